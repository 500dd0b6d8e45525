"""Running out of memory: told apart from other failures, and met with less work."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from stvit.errors import UserError

Size = TypeVar("Size")
Result = TypeVar("Result")

# What PyTorch's allocators say where they raise a plain RuntimeError.
_CPU_WORDS = ("not enough memory", "can't allocate memory")


class OutOfMemory(UserError, RuntimeError):
    """Nothing that was tried fits; the message is for the user."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error).lower() for words in _CPU_WORDS)


def release_memory(device: torch.device) -> None:
    """Free what is no longer used."""
    gc.collect()  # the frames of a failed run refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()


def first_that_fits(sizes: Sequence[Size], run: Callable[[Size], Result], device: torch.device) -> tuple[Size, Result]:
    """The first of ``sizes`` that ``run`` has memory for, and what it returned.

    Raises:
        OutOfMemory: it has memory for none of them.
    """
    for size in sizes:
        try:
            return size, run(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory(device)  # only here, where the traceback holds the tensors of the failed run no longer
    raise OutOfMemory(
        f"The device has not enough memory, even at the smallest size ({sizes[-1]}). Try again when other visitors "
        "are done, or choose a smaller model."
    )
