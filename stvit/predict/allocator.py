"""Memory that is freed and soon needed again."""

from __future__ import annotations

import ctypes
import sys

# parameters of mallopt(3)
TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Let the C library keep what this process frees, up to its peak, instead of handing it back to the system.

    Large tensors otherwise come as fresh pages every time, each of which the system clears at its first use. On a CPU,
    dense backbones at 800x1333 took 0.76 (STViT-R-Swin-S) and 0.83 (Swin-S) of the time with this. It is a choice for
    programs, not for libraries: nothing in the package calls it when imported.

    Returns:
        Whether the C library is glibc and took the settings.
    """
    if not sys.platform.startswith("linux"):
        return False
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = ((MMAP_MAX, 0), (TRIM_THRESHOLD, -1), (ARENA_MAX, 1))
    return all(library.mallopt(parameter, value) == 1 for parameter, value in settings)
