"""Where models compute: on a GPU in the thread that asks, on a CPU in threads that are kept for it.

Each thread that calls PyTorch's operators on a CPU gets OpenMP threads of its own to share the work with. As soon as a
process has more of them than cores, GNU's OpenMP lets them sleep between any two operators, and waking them takes
longer than many operators do. On 2 threads of an EPYC, in bfloat16, STViT-R-Swin-S takes 36 ms for one picture where a
single thread of the process has used PyTorch, and 65 ms where two have. So here one thread computes for all.

Batches are faster still in parts, one to a core, each computed without further threads: no core ever waits for another
one between operators, least of all where decoding and drawing take some of their time.
"""

from __future__ import annotations

import contextlib
import ctypes
import math
import os
import platform
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from .turns import Turns

Result = TypeVar("Result")
CONTROL_GROUP = Path("/sys/fs/cgroup")  # of this process, as containers see it
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8  # parameters of mallopt(3)


class Compute:
    """A device for one caller at a time, without gradients; callers that wait take turns, see ``stvit.predict.turns``.

    On a CPU all instances share their threads. Those are started with the first one, as many as PyTorch then uses;
    whatever thread calls PyTorch for the first time at that very moment may be left with one core.

    Args:
        device: where the models are.

    Attributes:
        device: as given.
        lanes: parts of a batch that are computed at once: on a CPU one for each thread that PyTorch uses, else 1.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._cores = _cores() if device.type == "cpu" else None
        self.lanes = self._cores.threads if self._cores else 1
        self._free = Turns()

    def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """``work(*arguments)``, when the device is free; raises what that raises. Within work it begins at once.

        Raises:
            RuntimeError: the device is a CPU, and the program's main thread has ended.
        """
        if getattr(_here, "computes", False):
            return work(*arguments)
        with self._free:
            if self._cores is None:
                return _without_gradients(work, *arguments)
            return self._cores.together.submit(_without_gradients, work, *arguments).result()

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """A batch (B, ...) in parts for ``each``: one for each lane, or all of it where that leaves lanes empty."""
        return batch.tensor_split(self.lanes) if len(batch) >= self.lanes else (batch,)

    def each(self, work: Callable[[Tensor], Result], parts: Sequence[Tensor]) -> list[Result]:
        """``work`` on every part, all at once; to be called within ``run``. When it fails for one, it is over for all
        before the error is raised."""
        if self._cores is None or len(parts) == 1:
            return [work(part) for part in parts]
        futures = [self._cores.apart.submit(_without_gradients, work, part) for part in parts]
        try:
            wait(futures)
            return [future.result() for future in futures]
        finally:
            del futures  # an error would hold this frame, this frame the futures, and one of them the error


class _Cores:
    """The threads that compute on the CPU: one that shares its operators out to all cores, and one alone per core."""

    def __init__(self) -> None:
        self.threads = _threads()
        self.apart = ThreadPoolExecutor(self.threads, "core", _share_with, (1,))
        everyone = threading.Barrier(self.threads)
        list(self.apart.map(lambda _: everyone.wait(), range(self.threads)))
        # last, as PyTorch also takes the latest number for threads that begin later
        self.together = ThreadPoolExecutor(1, "cores", _share_with, (self.threads,))
        self.together.submit(torch.get_num_threads).result()


def _threads() -> int:
    """Threads that PyTorch uses, no more than the container's share of time is for."""
    return min(torch.get_num_threads(), cpu_quota() or sys.maxsize)


_here = threading.local()  # ``computes`` in the threads that compute on the CPU
_starting = threading.Lock()
_started = cache(_Cores)


def _cores() -> _Cores:
    with _starting:
        return _started()


def available_cores() -> int:
    """Cores that this process may keep busy: those that it may run on, and no more than its container pays for."""
    cores = os.cpu_count() or 1
    with contextlib.suppress(AttributeError):  # not on every system
        cores = len(os.sched_getaffinity(0))
    return min(cores, cpu_quota() or cores)


def cpu_quota() -> int | None:
    """Cores whose time the container may use, rounded up, as ``docker run --cpus`` and Kubernetes limit it; ``None``
    without a limit. Such a container sees all cores of the machine, and is halted as soon as it has used up its share:
    with a thread for each core, all of them wait for most of the time."""
    with contextlib.suppress(OSError, ValueError):  # version 2, "max 100000" without a limit
        quota, period = (CONTROL_GROUP / "cpu.max").read_text(encoding="ascii").split()
        return math.ceil(int(quota) / int(period))
    with contextlib.suppress(OSError, ValueError):  # version 1, -1 without a limit
        names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
        quota, period = (int((CONTROL_GROUP / "cpu" / name).read_text(encoding="ascii")) for name in names)
        return math.ceil(quota / period) if quota > 0 else None
    return None


def compute_in_one_place() -> None:
    """Let this thread, and every thread that has not used PyTorch yet, do what they do in PyTorch on one core alone, so
    that they get no OpenMP threads. A choice for programs whose models are on a CPU, before they use PyTorch: nothing
    in the package calls it when imported."""
    _cores()
    torch.set_num_threads(1)


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
    settings = ((_MMAP_MAX, 0), (_TRIM_THRESHOLD, -1), (_ARENA_MAX, 1))
    return all(library.mallopt(parameter, value) == 1 for parameter, value in settings)


def return_freed_memory() -> bool:
    """Hand what this process has freed back to the system, as ``keep_freed_memory`` does not; whether there was any."""
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    return hasattr(library, "malloc_trim") and bool(library.malloc_trim(0))


def best_precision(device: torch.device) -> torch.dtype:
    """The fastest precision that the device supports well: bfloat16 where there are units for it, else float16 on CUDA
    and float32 on the CPU."""
    if device.type == "cuda":
        native = torch.cuda.get_device_capability(device) >= (8, 0)
        return torch.bfloat16 if native else torch.float16
    return torch.bfloat16 if cpu_has_bfloat16_units() else torch.float32


def cpu_has_bfloat16_units() -> bool:
    """Whether the processor multiplies bfloat16 itself (AMX or AVX-512): measured 2 to 4 times as fast as float32."""
    return not cpu_flags().isdisjoint({"amx_bf16", "avx512_bf16"})


@lru_cache(maxsize=1)
def cpu_flags() -> frozenset[str]:
    """Instruction-set flags as Linux names them; empty elsewhere."""
    for line in read_cpuinfo():
        if line.startswith("flags"):
            return frozenset(line.split(":", 1)[1].split())
    return frozenset()


def read_cpuinfo() -> list[str]:
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            return file.read().splitlines()
    except OSError:
        return []


@lru_cache
def device_name(device: torch.device, threads: int | None = None) -> str:
    """The device in words: ``"NVIDIA H200"``, or the processor's name and the number of threads.

    Args:
        threads: that models compute with; by default those that PyTorch uses in this thread.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    models = [line.split(":", 1)[1].strip() for line in read_cpuinfo() if line.startswith("model name")]
    name = models[0] if models else platform.processor() or platform.machine()
    threads = threads or torch.get_num_threads()
    return f"{name} CPU, {threads} thread{'s' if threads > 1 else ''}"


def _share_with(threads: int) -> None:
    _here.computes = True
    torch.get_num_threads()  # PyTorch gives a thread its default at the first use, which must not come later
    torch.set_num_threads(threads)


def _without_gradients(work: Callable[..., Result], *arguments: Any) -> Result:
    with torch.inference_mode():
        return work(*arguments)
