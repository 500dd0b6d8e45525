"""Where models compute: on a GPU in whatever thread asks, on a CPU in threads that are kept for it.

Each thread that calls PyTorch's operators on a CPU gets OpenMP threads of its own to share the work with. As soon as a
process has more of them than cores, GNU's OpenMP lets them sleep between any two operators, and waking them takes
longer than many operators do. On 2 threads of an EPYC, in bfloat16, STViT-R-Swin-S takes 36 ms for one picture where a
single thread of the process has used PyTorch, and 65 ms where two have. So here one thread computes for all.

Batches are faster still in parts, one to a core, each computed without further threads: no core ever waits for another
one between operators, least of all where decoding and drawing take some of their time.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from threading import Barrier, Lock
from typing import Any, TypeVar

import torch
from torch import Tensor

Result = TypeVar("Result")


class Compute:
    """A device for one caller at a time, without gradients.

    Args:
        device: where the models are.

    Attributes:
        lanes: parts of a batch that are computed at once: on a CPU one for each thread that PyTorch would use, else 1.
    """

    def __init__(self, device: torch.device) -> None:
        self._cores = _cores() if device.type == "cpu" else None
        self.lanes = self._cores.threads if self._cores else 1
        self._free = Lock()

    def run(self, work: Callable[..., Result], *arguments: Any) -> Result:
        """``work(*arguments)``, when the device is free; raises what that raises. Not to be called from within."""
        with self._free:
            if self._cores is None:
                return _without_gradients(work, *arguments)
            return self._cores.together.submit(_without_gradients, work, *arguments).result()

    def parts(self, batch: Tensor) -> tuple[Tensor, ...]:
        """A batch (B, ...) in parts as ``each`` computes them best: as many as there are lanes, or images."""
        return batch.tensor_split(min(self.lanes, len(batch)))

    def each(self, work: Callable[[Tensor], Result], parts: tuple[Tensor, ...]) -> list[Result]:
        """``work`` on every part, all at once; to be called from within ``run``."""
        if len(parts) == 1:
            return [work(parts[0])]
        return list(self._cores.apart.map(_without_gradients, [work] * len(parts), parts))


class _Cores:
    """The threads that compute on the CPU: one that shares its operators out to all cores, and one alone per core."""

    def __init__(self) -> None:
        self.threads = torch.get_num_threads()
        self.apart = ThreadPoolExecutor(self.threads, "core", _share_with, (1,))
        everyone = Barrier(self.threads)
        list(self.apart.map(lambda _: everyone.wait(), range(self.threads)))
        # last, as PyTorch also takes the latest number for threads that begin later
        self.together = ThreadPoolExecutor(1, "cores", _share_with, (self.threads,))
        self.together.submit(torch.get_num_threads).result()


@cache
def _cores() -> _Cores:
    return _Cores()


def compute_in_one_place() -> None:
    """Let all other threads of this process, those that begin later too, do what they do in PyTorch on one core alone,
    so that they get no OpenMP threads. A choice for programs, before they use PyTorch: nothing in the package calls it
    when imported."""
    _cores()
    torch.set_num_threads(1)


def _share_with(threads: int) -> None:
    torch.get_num_threads()  # PyTorch gives a thread its default at the first use, which must not come later
    torch.set_num_threads(threads)


def _without_gradients(work: Callable[..., Result], *arguments: Any) -> Result:
    with torch.inference_mode():
        return work(*arguments)
