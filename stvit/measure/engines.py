"""The same models under several engines, all of them interleaved in one run: who gains what by which."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from stvit.errors import UserError
from stvit.predict.device import Compute, device_name
from stvit.predict.engines import Engine

from .compare import versions
from .macs import count_macs
from .timing import LatencySummary, Quartiles, interleave, speed_up, summarise


class CannotMeasure(UserError, ValueError):
    """A model cannot be measured as asked."""


@dataclass(frozen=True)
class EngineRow:
    """One model under one engine, for one batch size.

    Attributes:
        model, engine: names.
        batch_size: images in a forward pass.
        latency: of a forward pass.
        over_baseline: how much faster than the baseline under the same engine; ``None`` of the baseline itself.
        over_eager: how much faster than the same model in eager; ``None`` where eager was not measured.
        allowed_by_macs: the baseline's multiply-adds over the model's.
    """

    model: str
    engine: str
    batch_size: int
    latency: LatencySummary
    over_baseline: Quartiles | None
    over_eager: Quartiles | None
    allowed_by_macs: float


@dataclass(frozen=True)
class EngineComparison:
    """Rows, and what they were measured on. ``notes`` say which engines could not run, and why."""

    device: str
    precision: str
    input_shape: tuple[int, ...]
    versions: dict[str, str]
    rows: tuple[EngineRow, ...]
    notes: tuple[str, ...]


def compare_engines(
    models: Mapping[str, nn.Module],
    engines: Sequence[str],
    *,
    input_shape: tuple[int, ...] = (3, 224, 224),
    batch_sizes: Sequence[int] = (1,),
    rounds: int = 30,
    progress: Callable[[str, int, int], Any] = lambda phase, done, total: None,
) -> EngineComparison:
    """Measure every model under every engine; the last model is the baseline of the others.

    Args:
        models: by name, in evaluation mode, on one device and in one precision.
        engines: names of :data:`stvit.predict.engines.ENGINES`.
        progress: told the phase, finished rounds and all rounds.

    Raises:
        CannotMeasure: not one of the engines can run here.
    """
    reference = next(next(iter(models.values())).parameters())
    compute = Compute(reference.device)
    cost = {name: count_macs(model, input_shape) for name, model in models.items()}
    *_, baseline = models
    made = {
        (name, engine): Engine(model, engine, compute=compute, wait=True)
        for name, model in models.items()
        for engine in engines
    }
    rows: list[EngineRow] = []
    for batch in batch_sizes:
        images = torch.randn(batch, *input_shape, device=reference.device)
        for number, run in enumerate(made.values(), start=1):
            run(images)  # makes its graph
            progress("graphs", number, len(made))
        able = {key: run for key, run in made.items() if key[1] == "auto" or run.serving(images.shape) == key[1]}
        if not able:
            problem = f"{' and '.join(engines)} cannot run here: {' '.join(_notes(made.values()))}"
            raise CannotMeasure(problem, "Choose another engine, or another --device.")
        times: dict[tuple[str, str], list[float]] = {key: [] for key in able}
        names = {str(key): key for key in able}
        for one in interleave({text: able[key] for text, key in names.items()}, images, rounds=rounds):
            for text, ms in one.times_ms.items():
                times[names[text]].append(ms)
            progress(f"batch {batch}", len(times[names[text]]), rounds)
        for (model, engine), own in times.items():
            full, eager = times.get((baseline, engine)), times.get((model, "eager"))
            rows.append(
                EngineRow(
                    model,
                    engine if engine != "auto" else f"auto ({made[model, engine].serving(images.shape)})",
                    batch,
                    summarise(own),
                    speed_up(own, full) if full and model != baseline else None,
                    speed_up(own, eager) if eager and engine != "eager" else None,
                    cost[baseline] / cost[model],
                )
            )
    precision = str(reference.dtype).removeprefix("torch.")
    device = device_name(reference.device, compute.lanes)
    return EngineComparison(device, precision, tuple(input_shape), versions(), tuple(rows), _notes(made.values()))


def _notes(engines: Iterable[Engine]) -> tuple[str, ...]:
    """What the engines tell, each note once."""
    return tuple(dict.fromkeys(note for engine in engines for note in engine.notes))


def engines_table(comparison: EngineComparison) -> str:
    """The comparison as text."""
    size = "x".join(map(str, comparison.input_shape))
    lines = [
        f"{comparison.device}, {comparison.precision}, input {size}; "
        + ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        "",
        f"{'model':34} {'engine':16} {'batch':>5} {'ms (IQR)':>24} "
        f"{'over baseline':>14} {'of MACs':>8} {'over eager':>11}",
    ]
    for row in comparison.rows:
        spread = f"{row.latency.median_ms:.1f} ({row.latency.q1_ms:.1f} to {row.latency.q3_ms:.1f})"
        gain, share, own = "", "", ""
        if row.over_baseline:
            gain = f"{row.over_baseline.median:.2f}x"
            share = f"{row.over_baseline.median / row.allowed_by_macs:.2f}"
        if row.over_eager:
            own = f"{row.over_eager.median:.2f}x"
        lines.append(f"{row.model:34} {row.engine:16} {row.batch_size:5} {spread:>24} {gain:>14} {share:>8} {own:>11}")
    return "\n".join([*lines, *comparison.notes])
