"""What this project wants to reach on a CPU, beside what was measured: ``python -m stvit.measure --suite aims``."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from .engines import EngineComparison, EngineRow
from .suite import EVIT_HALF, STVIT_16, STVIT_R, TOME_16

AHEAD = 1.0


@dataclass(frozen=True)
class Aim:
    """A speed-up that one model should have over another under the same engine, at one batch size.

    Attributes:
        group: of the suite.
        model, over: labels; ``over`` is empty for the same model in eager.
        large: at the larger batch size, else at batch 1.
        at_least: the speed-up; it may not be missed, and more than :data:`AHEAD` counts where that is the aim.
    """

    group: str
    model: str
    over: str
    large: bool
    at_least: float


@dataclass(frozen=True)
class Outcome:
    """What became of an aim under one engine; ``measured`` is a ratio of medians."""

    aim: Aim
    engine: str
    batch_size: int
    load: int
    measured: float

    @property
    def met(self) -> bool:
        return self.measured > AHEAD if self.aim.at_least == AHEAD else self.measured >= self.aim.at_least


AIMS = (
    Aim("deit_small", STVIT_16, "DeiT", False, 2.3),
    Aim("deit_small", STVIT_16, "DeiT", True, 2.4),
    Aim("swin_small", STVIT_R, "Swin", False, 1.4),
    Aim("swin_small", STVIT_R, "Swin", True, 1.5),
    *(Aim("deit_small", STVIT_16, other, large, AHEAD) for other in (TOME_16, EVIT_HALF) for large in (False, True)),
    Aim("deit_small", STVIT_16, "", False, 1.5),
    Aim("swin_small", STVIT_R, "", False, 1.5),
)


def outcomes(measured: Mapping[str, EngineComparison], aims: Iterable[Aim] = AIMS) -> Iterator[Outcome]:
    """Every aim under every engine that was measured for it."""
    for aim in aims:
        rows = measured[aim.group].rows if aim.group in measured else ()
        largest = max((row.batch_size for row in rows), default=1)
        for row in rows:
            at = largest if aim.large else 1
            if row.model == aim.model and row.batch_size == at and not (aim.large and largest == 1):
                ratio = _ratio(aim, row, rows)
                if ratio is not None:
                    yield Outcome(aim, row.engine, row.batch_size, row.load, ratio)


def _ratio(aim: Aim, row: EngineRow, rows: Iterable[EngineRow]) -> float | None:
    if not aim.over:
        return row.over_eager.median if row.over_eager else None
    same = [one for one in rows if (one.engine, one.batch_size, one.load) == (row.engine, row.batch_size, row.load)]
    others = [one for one in same if one.model == aim.over]
    if not others or row.over_baseline is None:
        return None
    other = others[0].over_baseline
    return row.over_baseline.median / (other.median if other else 1.0)  # both over the same baseline


def aims_table(found: Iterable[Outcome]) -> str:
    """The outcomes as text."""
    lines = [f"{'aim':40} {'engine':15} {'batch':>5} {'load':>4} {'wanted':>7} {'measured':>8}"]
    for one in found:
        sign = ">" if one.aim.at_least == AHEAD else ">="
        lines.append(
            f"{one.aim.model + ' over ' + (one.aim.over or 'itself in eager'):40} {one.engine:15} {one.batch_size:5} "
            f"{one.load:4} {f'{sign}{one.aim.at_least:.1f}x':>7} {one.measured:7.2f}x {'met' if one.met else 'missed'}"
        )
    return "\n".join(lines)
