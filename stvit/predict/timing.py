"""Time measured around a predictor: what it does is never timed from inside."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

import torch
from torch import nn

from .device import Compute

Result = TypeVar("Result")

Lap = Callable[[str], object]
"""What a predictor calls with the name of every step that it has finished."""


def no_lap(step: str) -> None:
    """Nobody measures."""


class Stopwatch:
    """Milliseconds of consecutive steps; the device is at rest between them.

    Attributes:
        laps_ms: by step, in order; the times of a step that comes several times are added up.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.laps_ms: dict[str, float] = {}
        self._last = self._now()

    def __call__(self, step: str) -> None:
        """A step has ended."""
        before, self._last = self._last, self._now()
        self.laps_ms[step] = self.laps_ms.get(step, 0.0) + (self._last - before) * 1e3

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()


def timed(
    compute: Compute, predict: Callable[..., Result], *arguments: Any, **options: Any
) -> tuple[Result, dict[str, float]]:
    """What a predictor returns, and the milliseconds of its steps; the wait for the device is none of them.

    Args:
        predict: takes a ``lap`` beside its arguments.
    """

    def work() -> tuple[Result, dict[str, float]]:
        watch = Stopwatch(compute.device)
        return predict(*arguments, lap=watch, **options), watch.laps_ms

    return compute.run(work)


class FirstUse:
    """Remembers which networks have run: the first pass of one is slow, and has to go before the one that is timed."""

    def __init__(self) -> None:
        self._seen: WeakKeyDictionary[nn.Module, set[Hashable]] = WeakKeyDictionary()

    def __call__(self, network: nn.Module, way: Hashable = None) -> bool:
        """Whether a network has not been asked for in this way before."""
        ways = self._seen.setdefault(network, set())
        first = way not in ways
        ways.add(way)
        return first
