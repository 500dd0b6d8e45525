"""What a load test saw, and whether two answers on one picture say the same."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOLERANCE = 0.02  # of a probability: in bfloat16 a batch rounds otherwise than a picture alone
SAME_TOKENS = 0.9  # of an image's tokens, for the same reason
SIDES = ("model", "baseline")
SETTLED_S = 300.0  # after which memory is expected to stay


@dataclass
class Figures:
    """What was seen.

    Attributes:
        scripts_s: from sending a script's picture to its answer.
        visitors_s: from the press of a visitor's button to its answer.
        overheads_s: of single requests on an idle page, over the time of both models.
        told_s: waits that refused requests were told.
        outcomes: number of right, wrong and unchecked answers, refusals, and errors.
        engines: number of answers by the engines that gave them.
        problems: number of errors by their first words.
        memory: seconds since the start, and resident bytes.
        batch_size: mean over the test.
        alone_s: time of both models for one picture in batches of that size, on an idle page; ``None`` if not measured.
    """

    scripts_s: list[float] = field(default_factory=list)
    visitors_s: list[float] = field(default_factory=list)
    overheads_s: list[float] = field(default_factory=list)
    told_s: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    batch_size: float = math.nan
    alone_s: float | None = None

    def report(self, seconds: float) -> str:
        """Write them as lines of text, of a test that took some seconds."""
        scripts = sum(self.outcomes[outcome] for outcome in ("right", "wrong", "unchecked"))
        share = "not measured"
        if self.alone_s is not None:
            share = f"{(scripts + len(self.visitors_s)) / seconds * self.alone_s:.2f}"
        told = {
            "answers to scripts": f"{scripts} in {seconds:.0f} s: {scripts / seconds:.2f} a second",
            "wrong": f"{self.outcomes['wrong']}, {self.outcomes['unchecked']} not compared",
            "refused, tried again": f"{self.outcomes['refused']}, told to wait {quantiles(self.told_s)}",
            "errors": f"{self.outcomes['error']} {_counts(self.problems)}".strip(),
            "scripts wait": quantiles(self.scripts_s),
            "visitors wait": f"{quantiles(self.visitors_s)}, of {len(self.visitors_s)}",
            "alone, over the time of the models": quantiles(self.overheads_s),
            "engines": _counts(self.engines),
            "mean batch": f"{self.batch_size:.1f}",
            "throughput, of the models alone": share,
            "resident memory": self._memory_words(),
        }
        width = max(map(len, told))
        return "\n".join(f"{name:<{width}}  {words}" for name, words in told.items())

    def _memory_words(self) -> str:
        if len(self.memory) < 2:
            return "not measured"
        (_, first), (_, last) = self.memory[0], self.memory[-1]
        words = f"{first / 1e6:.0f} MB before, {last / 1e6:.0f} MB after"
        settled = [size for seconds, size in self.memory if seconds >= SETTLED_S]
        if len(settled) > 1:
            words += f", {last / settled[0] - 1:+.1%} since minute {SETTLED_S / 60:.0f}"
        return words


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two documents on the same picture say the same, within rounding: classes by their probabilities, token
    regions by the image tokens that belong to them."""
    return all(_same_classes(one[side], other[side]) and _same_regions(one[side], other[side]) for side in SIDES)


def _same_classes(one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = (
        {entry["index"]: entry["probability"] for entry in answer["predictions"]} for answer in (one, other)
    )
    least = min([*first.values(), *second.values()], default=0.0)  # of the five that are told
    return all(abs(first.get(index, least) - second.get(index, least)) <= TOLERANCE for index in {*first, *second})


def _same_regions(one: dict[str, Any], other: dict[str, Any]) -> bool:
    layers = [answer["clusters"] + answer["reductions"] for answer in (one, other)]
    if len(layers[0]) != len(layers[1]):
        return False
    return all(
        np.mean(np.array(first["assignment"]) == np.array(second["assignment"])) >= SAME_TOKENS
        for first, second in zip(*layers, strict=True)
    )


def quantiles(seconds: Sequence[float]) -> str:
    """Write median and 95th percentile in words."""
    if len(seconds) < 2:
        return "not measured"
    ordered = sorted(seconds)
    return f"p50 {statistics.median(ordered):.3f} s, p95 {ordered[math.ceil(0.95 * len(ordered)) - 1]:.3f} s"


def _counts(counter: Counter[str]) -> str:
    return ", ".join(f"{name} {number}" for name, number in counter.most_common(5))
