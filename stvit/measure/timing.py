"""How long models take: what is compared runs interleaved, warmed up and synchronised; medians with their spread."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median, quantiles
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Verdict = Literal["faster", "slower", "unclear"]
WIDEST_SPREAD = 0.5  # of the middle half of a speed-up that says something, as part of its median


@dataclass(frozen=True)
class LatencySummary:
    """Median and quartiles of repeated forward passes, in milliseconds."""

    median_ms: float
    q1_ms: float
    q3_ms: float
    runs: int


@dataclass(frozen=True)
class Round:
    """One forward pass of every model, by name, in milliseconds."""

    index: int
    times_ms: dict[str, float]


def summarise(times_ms: Sequence[float]) -> LatencySummary:
    """Median and quartiles of at least one time.

    Raises:
        ValueError: no times.
    """
    q1, median, q3 = quartiles(times_ms)
    return LatencySummary(median, q1, q3, len(times_ms))


class Quartiles(NamedTuple):
    """First quartile, median and third quartile."""

    q1: float
    median: float
    q3: float


def quartiles(values: Sequence[float]) -> Quartiles:
    """Summarise at least one value.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("no measurements to summarise")
    if len(values) == 1:
        return Quartiles(values[0], values[0], values[0])
    return Quartiles(*quantiles(values, n=4, method="inclusive"))


def speed_up(model_ms: Sequence[float], baseline_ms: Sequence[float]) -> Quartiles:
    """Compare two models that ran in turns: quartiles over the rounds of baseline time over model time.

    The ratio is taken within each round, so that what slows the machine down for a while cancels. Above 1 the model is
    faster than the baseline.

    Args:
        model_ms: times of the model, one per round, in milliseconds.
        baseline_ms: times of the baseline in the same rounds.

    Raises:
        ValueError: no rounds, or different numbers of them.
    """
    return quartiles([theirs / own for own, theirs in zip(model_ms, baseline_ms, strict=True)])


def verdict(ratios: Quartiles) -> Verdict:
    """Say whether a speed-up is one: ``"unclear"`` where the middle half of the rounds includes 1, as people read it
    with two decimals, or is wider than ``WIDEST_SPREAD`` of the median."""
    wide = ratios.q3 - ratios.q1 > WIDEST_SPREAD * ratios.median
    if round(ratios.q1, 2) <= 1 <= round(ratios.q3, 2) or wide:
        return "unclear"
    return "faster" if ratios.median > 1 else "slower"


def medians_of_stretches(times_ms: Sequence[float], stretches: int) -> list[float]:
    """Divide consecutive times into so many stretches of one length, and take the median of each; the times themselves
    where there are fewer than two for each stretch.

    A pass that another program interrupts then weighs nothing, and the longer one measures, the narrower the quartiles
    of what is left.
    """
    length = max(1, len(times_ms) // stretches)
    starts = range(0, len(times_ms) - length + 1, length)
    return [median(times_ms[start : start + length]) for start in starts]


def interleave(
    models: Mapping[str, Callable[[Tensor], Any]],
    images: Tensor | Mapping[str, Tensor],
    *,
    rounds: int,
    warmup: int = 3,
    run: Callable[..., float] | None = None,
) -> Iterator[Round]:
    """Time one forward pass of each model per round, so that a machine that slows down slows all of them.

    The order of the models alternates from round to round. Stop the iteration to cancel.

    Args:
        models: by name; networks in evaluation mode on the device and in the precision of the images, or engines.
        images: (B, 3, H, W), the input of every model, or that of each one by its name.
        rounds: timed rounds.
        warmup: untimed rounds before them.
        run: carries out each timed pass: (function, its arguments) -> what the function returns. What it waits for is
            not timed.
    """
    names = list(models)
    inputs = dict.fromkeys(names, images) if isinstance(images, Tensor) else images
    timer = time_cuda if inputs[names[0]].device.type == "cuda" else time_cpu
    for index in range(-warmup, rounds):
        order = names if index % 2 == 0 else names[::-1]
        with torch.inference_mode():
            passes = {name: (timer, models[name], inputs[name]) for name in order}
            times = {name: run(*one) if run else one[0](*one[1:]) for name, one in passes.items()}
        if index >= 0:
            yield Round(index, {name: times[name] for name in names})


def time_cpu(model: Callable[[Tensor], Any], images: Tensor) -> float:
    """Wall-clock milliseconds of one forward pass."""
    start = time.perf_counter()
    model(images)
    return (time.perf_counter() - start) * 1e3


def time_cuda(model: Callable[[Tensor], Any], images: Tensor) -> float:
    """Milliseconds between CUDA events around one forward pass, launch overhead included."""
    start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    torch.cuda.synchronize(images.device)
    start.record()
    model(images)
    stop.record()
    stop.synchronize()
    return start.elapsed_time(stop)
