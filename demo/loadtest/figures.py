"""What a load test saw, and whether two answers on one picture say the same."""

from __future__ import annotations

import math
import statistics
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

TOLERANCE = 0.02  # of a probability: in bfloat16 a batch rounds otherwise than a picture alone
SAME_TOKENS = 0.9  # of an image's tokens, for the same reason
SIDES = ("model", "baseline")
SETTLED_S = 300.0  # after which memory is expected to stay


@dataclass(frozen=True)
class Alone:
    """Both models alone, measured by the page's own comparison.

    Attributes:
        batch: pictures of a batch.
        engine: that ran them.
        picture_s: time of both for one picture.
    """

    batch: int
    engine: str
    picture_s: float


@dataclass
class Figures:
    """What was seen.

    Attributes:
        scripts_s: from sending a script's picture to its answer.
        visitors_s: from the press of a visitor's button to its answer.
        long_s: of comparisons and clips.
        single_s: of single requests on an idle page: the time beyond that of both models, by what it went to.
        told_s: waits that refused requests were told, and what they were.
        outcomes: number of right, wrong and unchecked answers, refusals (of visitors apart), and errors.
        engines: number of answers by the engines that gave them.
        problems: number of errors by their first words.
        memory: seconds since the start, and resident bytes.
        at_rest: resident bytes when the page had had nothing to do for a while; ``None`` if not measured.
        batch_size: mean over the test.
        alone: before and after the test.
    """

    scripts_s: list[float] = field(default_factory=list)
    visitors_s: list[float] = field(default_factory=list)
    long_s: list[float] = field(default_factory=list)
    single_s: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    told_s: list[tuple[float, float]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    engines: Counter[str] = field(default_factory=Counter)
    problems: Counter[str] = field(default_factory=Counter)
    memory: list[tuple[float, float]] = field(default_factory=list)
    at_rest: float | None = None
    batch_size: float = math.nan
    alone: list[Alone] = field(default_factory=list)

    def report(self, seconds: float) -> str:
        """Write them as lines of text, of a test that took some seconds."""
        scripts = sum(self.outcomes[outcome] for outcome in ("right", "wrong", "unchecked"))
        told = {
            "answers to scripts": f"{scripts} in {seconds:.0f} s: {scripts / seconds:.2f} a second",
            "wrong": f"{self.outcomes['wrong']}, {self.outcomes['unchecked']} not compared",
            "refused, tried again": f"scripts {self.outcomes['refused']}, visitors {self.outcomes['visitor refused']}",
            "errors": f"{self.outcomes['error']} {_counts(self.problems)}".strip(),
            "scripts wait": quantiles(self.scripts_s),
            "visitors wait": f"{quantiles(self.visitors_s)}, of {len(self.visitors_s)}",
            "comparisons and clips take": f"{quantiles(self.long_s)}, of {len(self.long_s)}",
            "told waits": self._told_words(),
            "single requests, over the time of the models": self._single_words(),
            "engines": _counts(self.engines),
            "mean batch": f"{self.batch_size:.1f}",
            "throughput, of the models alone": self._share_words((scripts + len(self.visitors_s)) / seconds),
            "resident memory": self._memory_words(),
        }
        width = max(map(len, told))
        return "\n".join(f"{name:<{width}}  {words}" for name, words in told.items())

    def _told_words(self) -> str:
        if not self.told_s:
            return "not measured"
        ratios = sorted(told / max(real, 1.0) for told, real in self.told_s)  # whole seconds are told
        close = sum(0.5 <= ratio <= 2 for ratio in ratios)
        words = f"{ratios[0]:.2f} to {ratios[-1]:.2f} of the real ones"
        return f"{words}, p50 {statistics.median(ratios):.2f}; {close} of {len(ratios)} within a factor of two"

    def _single_words(self) -> str:
        parts = ", ".join(f"{name} {statistics.median(times) * 1e3:.0f} ms" for name, times in self.single_s.items())
        beyond = [sum(times) for times in zip(*self.single_s.values(), strict=True)]
        return f"{quantiles(beyond)}; {parts}" if parts else quantiles(beyond)

    def _share_words(self, pictures_per_s: float) -> str:
        measured = [one for one in self.alone if one.batch == self.alone[-1].batch]
        if not measured:
            return "not measured"
        picture_s = min(one.picture_s for one in measured)  # whatever else the machine does only adds to it
        each = ", ".join(f"{1 / one.picture_s:.2f} by {one.engine}" for one in measured)
        return (
            f"{pictures_per_s * picture_s:.2f}: {pictures_per_s:.2f} pictures a second, alone in batches of "
            f"{measured[0].batch} {each}"
        )

    def _memory_words(self) -> str:
        if len(self.memory) < 2:
            return "not measured"
        (_, first), (_, last) = self.memory[0], self.memory[-1]
        words = f"{first / 1e6:.0f} MB before"
        settled = next((size for seconds, size in self.memory[:-1] if seconds >= SETTLED_S), None)
        if settled is None:
            words += f", {last / 1e6:.0f} MB after"
        else:
            words += f", {settled / 1e6:.0f} MB at minute {SETTLED_S / 60:.0f}, {last / 1e6:.0f} MB after"
            words += f" ({last / settled - 1:+.1%})"
        return words if self.at_rest is None else f"{words}, {self.at_rest / 1e6:.0f} MB at rest"


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
