"""What this machine reaches, measured in a moment: multiply-adds and bytes a second."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from stvit.predict.device import Compute

MATRIX_SIDE = 384  # fits into the cache of a core; larger matrices are no faster there
MATRIX_SIDE_ON_CUDA = 8192
SECONDS = 0.15  # of repeating a measurement
FEWEST_REPEATS = 10
SMALLEST_STREAM, LARGEST_STREAM = 2**22, 2**28  # bytes
SMALLEST_STREAM_ON_CUDA = 2**26  # where reading less takes no longer than the launch
AT_ONCE_ON_CUDA = 8  # works between two waits for the device, so that it goes on while the next one is launched
PIECE = 2**21  # bytes that are timed at once on a CPU, short enough to go undisturbed


@dataclass(frozen=True)
class MachineLimits:
    """What a device reaches, measured.

    Attributes:
        macs_per_s: of large matrix products.
        bytes_per_s: of reading.
    """

    macs_per_s: float
    bytes_per_s: float


def working_set(size: int, device: torch.device) -> int:
    """Bytes to measure the bandwidth on: the next power of two. Small networks stay in a cache from pass to pass."""
    smallest = SMALLEST_STREAM_ON_CUDA if device.type == "cuda" else SMALLEST_STREAM
    return min(max(smallest, 1 << (size - 1).bit_length()), LARGEST_STREAM)


@lru_cache
def machine_limits(device: torch.device, precision: torch.dtype, stream_bytes: int) -> MachineLimits:
    """Measure peak and bandwidth once for each device, precision and size.

    On a CPU every core works for itself and the rates are added up: no core waits for another one, so the figures hold
    beside other work too.

    Args:
        precision: of the matrices.
        stream_bytes: that are read again and again.
    """
    return MachineLimits(_macs_per_s(device, precision), _bytes_per_s(device, stream_bytes))


@lru_cache
def _macs_per_s(device: torch.device, precision: torch.dtype) -> float:
    side = MATRIX_SIDE_ON_CUDA if device.type == "cuda" else MATRIX_SIDE

    def of_one_core(_: Tensor) -> float:
        left, right = (torch.ones(side, side, device=device, dtype=precision) for _ in range(2))
        return side**3 / _undisturbed_s([lambda: left @ right], device)

    return _of_all_cores(of_one_core, device)


def _bytes_per_s(device: torch.device, stream_bytes: int) -> float:
    def of_one_core(part: Tensor) -> float:
        pieces = torch.ones(len(part), device=device).split(PIECE // 4 if device.type == "cpu" else len(part))
        return 4 * len(pieces[0]) / _undisturbed_s([one.sum for one in pieces], device)

    return _of_all_cores(of_one_core, device, stream_bytes // 4)


def _of_all_cores(rate: Callable[[Tensor], float], device: torch.device, size: int = 1) -> float:
    """The sum over the cores of a CPU, each of which gets its part of ``size`` numbers."""
    compute = Compute(device)
    parts = torch.empty(max(size, compute.lanes), device="meta").tensor_split(compute.lanes)
    return sum(compute.run(compute.each, rate, parts))


def _undisturbed_s(works: Sequence[Callable[[], Any]], device: torch.device) -> float:
    """Seconds that one of these works takes in turn with the others: the first decile, as whatever else the machine
    does makes it longer."""
    times: list[float] = []
    at_once = AT_ONCE_ON_CUDA if device.type == "cuda" else 1
    start = time.perf_counter()
    with torch.inference_mode():
        while len(times) < FEWEST_REPEATS or time.perf_counter() - start < SECONDS:
            for work in works:
                before = time.perf_counter()
                for _ in range(at_once):
                    work()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                times.append((time.perf_counter() - before) / at_once)
    return sorted(times)[len(times) // 10]
