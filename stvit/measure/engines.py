"""The same models under several engines: who gains what by which, and with other work on the cores."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from stvit.errors import UserError

from .compare import versions
from .processes import Build, CannotMeasure, EngineProcess, Ready, busy_cores
from .roofline import Roofline, allowed, explain
from .timing import LatencySummary, Quartiles, speed_up, summarise

TURNS = 3  # of every engine, so that a machine that slows down slows all of them
Times = dict[tuple[str, str], list[float]]  # milliseconds by model and engine


@dataclass(frozen=True)
class EngineRow:
    """One model under one engine, for one batch size.

    Attributes:
        model, engine: names.
        batch_size: images in a forward pass.
        load: other processes that kept a core busy each.
        macs: multiply-adds for one image.
        latency: of a forward pass.
        over_baseline: how much faster than the baseline under the same engine; ``None`` of the baseline itself.
        over_eager: how much faster than the same model in eager; ``None`` where eager was not measured.
        allowed_by_macs: the baseline's multiply-adds over the model's.
        share_of_macs: median of ``over_baseline`` over ``allowed_by_macs``; ``None`` of the baseline itself.
        allowed_by_roofline: see :func:`stvit.measure.roofline.allowed`.
        roofline: of a forward pass, see :class:`stvit.measure.roofline.Roofline`.
        peak_memory_bytes: of a forward pass beside weights and input; known of eager on CUDA.
    """

    model: str
    engine: str
    batch_size: int
    load: int
    macs: int
    latency: LatencySummary
    over_baseline: Quartiles | None
    over_eager: Quartiles | None
    allowed_by_macs: float
    share_of_macs: float | None
    allowed_by_roofline: float
    roofline: Roofline
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class EngineComparison:
    """Rows, and what they were measured on. As JSON it is one object with these attributes, rows as objects with those
    of :class:`EngineRow`, quartiles as lists of three.

    Attributes:
        device, precision: in words.
        input_shape: (C, H, W) of one image.
        versions: of what determines the speed.
        baseline: the model that others are compared with.
        rows: what was measured.
        notes: which engines could not run or be measured, and why.
    """

    device: str
    precision: str
    input_shape: tuple[int, ...]
    versions: dict[str, str]
    baseline: str
    rows: tuple[EngineRow, ...]
    notes: tuple[str, ...]


def compare_engines(
    build: Build,
    engines: Sequence[str],
    *,
    input_shape: tuple[int, ...] = (3, 224, 224),
    batch_sizes: Sequence[int] = (1,),
    rounds: int = 30,
    load: int = 0,
    until: float = math.inf,
    progress: Callable[[str, int, int], Any] = lambda phase, done, total: None,
) -> EngineComparison:
    """Measure every model under every engine; the last model is the baseline of the others.

    Every engine has a process of its own, in which the models take turns; the processes take turns too. An engine that
    fails is left out, with a note.

    Args:
        build: makes the models by name, on one device and in one precision; picklable, as every process calls it.
        engines: names of :data:`stvit.predict.engines.ENGINES`.
        load: measure once more while so many other processes keep a core busy each.
        until: when to stop, by ``time.monotonic()``; what is not measured by then is a note.
        progress: told the phase, finished rounds and all rounds.

    Raises:
        CannotMeasure: not one of the engines can run here.
        OutOfTime: nothing was measured in time.
        UserError: what ``build`` raises.
    """
    rows: list[EngineRow] = []
    notes: dict[str, None] = {}
    errors: list[UserError] = []
    with _processes(build, engines, input_shape, until) as processes:
        for batch in batch_sizes:
            ready, failed = _make_ready(processes, batch)
            errors += failed
            notes |= dict.fromkeys(note for one in ready.values() for note in one.notes)
            progress(f"graphs of batch {batch}", len(ready), len(engines))
            processes = [process for process in processes if _able(process.engine, ready)]
            for busy in sorted({0, load}) if processes else ():
                try:
                    bounds = processes[0].rooflines(batch)
                except UserError as error:  # what was measured before stands
                    errors.append(error)
                    break
                with busy_cores(busy):
                    phase = f"batch {batch}" + (f", {busy} busy cores" if busy else "")
                    times = _in_turns(processes, ready, batch, rounds, errors, partial(progress, phase))
                rows += _rows(times, ready, bounds, busy)
                described = ready[processes[0].engine]
    if not rows:
        raise errors[0] if errors else _none_runs(engines, notes)
    kinds = described.device, described.precision, tuple(input_shape), versions()
    notes |= dict.fromkeys(map(str, errors))
    return EngineComparison(*kinds, list(described.macs)[-1], tuple(rows), tuple(notes))


@contextmanager
def _processes(
    build: Build, engines: Sequence[str], input_shape: tuple[int, ...], until: float
) -> Iterator[list[EngineProcess]]:
    started: list[EngineProcess] = []
    try:
        for engine in engines:
            started.append(EngineProcess(build, engine, input_shape, until))
        yield started
    finally:
        for process in started:
            process.end()


def _make_ready(processes: Sequence[EngineProcess], batch: int) -> tuple[dict[str, Ready], list[UserError]]:
    """Let all engines get ready at once; what is ready by engine, and what failed."""
    ready: dict[str, Ready] = {}
    failed: list[UserError] = []
    for process in processes:
        process.begin_making_ready(batch)
    for process in processes:
        try:
            ready[process.engine] = process.ready()
        except UserError as error:
            failed.append(error)
    return ready, failed


def _able(engine: str, ready: dict[str, Ready]) -> list[str]:
    """The models that the engine runs itself."""
    serving = ready[engine].serving if engine in ready else {}
    return [name for name, found in serving.items() if engine in ("auto", found)]


def _none_runs(engines: Sequence[str], notes: Iterable[str]) -> CannotMeasure:
    problem = f"{' and '.join(engines)} cannot run here: {' '.join(notes)}"
    return CannotMeasure(problem, "Choose another engine, or another --device.")


def _in_turns(
    processes: list[EngineProcess],
    ready: dict[str, Ready],
    batch: int,
    rounds: int,
    errors: list[UserError],
    progress: Callable[[int, int], Any],
) -> Times:
    """Times of all that went well; a process that fails has no further turn, and its error is added to the others."""
    times: Times = {}
    running = list(processes)
    for turn in range(TURNS):
        timed = (turn + 1) * rounds // TURNS - turn * rounds // TURNS
        for process in list(running) if timed else ():
            try:
                found = process.time(_able(process.engine, ready), batch, timed)
            except UserError as error:
                errors.append(error)
                running.remove(process)
                continue
            for model, own in found.items():
                times.setdefault((model, process.engine), []).extend(own)
        progress((turn + 1) * rounds // TURNS, rounds)
    return times


def _rows(times: Times, ready: dict[str, Ready], bounds: dict[str, Roofline], load: int) -> Iterator[EngineRow]:
    macs = next(iter(ready.values())).macs
    *_, baseline = macs
    for (model, engine), own in times.items():
        full, eager = times.get((baseline, engine)), times.get((model, "eager"))
        over_baseline = speed_up(own, full) if full and model != baseline else None
        by_macs = macs[baseline] / macs[model]
        yield EngineRow(
            model,
            engine if engine != "auto" else f"auto ({ready[engine].serving[model]})",
            bounds[model].batch,
            load,
            macs[model],
            summarise(own),
            over_baseline,
            _same_turns(own, eager) if eager and engine != "eager" else None,
            by_macs,
            over_baseline.median / by_macs if over_baseline else None,
            allowed(bounds[model], bounds[baseline]),
            bounds[model],
            ready[engine].peak_memory_bytes.get(model),
        )


def _same_turns(own: Sequence[float], eager: Sequence[float]) -> Quartiles:
    """Over the rounds that both have: one of them may have been stopped."""
    common = min(len(own), len(eager))
    return speed_up(own[:common], eager[:common])


def engines_table(comparison: EngineComparison) -> str:
    """The comparison as text."""
    size = "x".join(map(str, comparison.input_shape))
    limits = comparison.rows[0].roofline.limits
    lines = [
        f"{comparison.device}, {comparison.precision}, input {size}; "
        + ", ".join(f"{name} {version}" for name, version in comparison.versions.items()),
        f"measured peak {limits.macs_per_s / 1e9:.0f} G multiply-adds/s, {limits.bytes_per_s / 1e9:.0f} GB/s",
        "",
        f"{'model':32} {'engine':15} {'batch':>5} {'load':>4} {'ms (IQR)':>24} {'over eager':>10} "
        f"{'over baseline (IQR)':>23} {'MACs allow':>10} {'roofline':>8} {'of MACs':>7}",
    ]
    for row in comparison.rows:
        own = f"{row.over_eager.median:.2f}x" if row.over_eager else ""
        line = (
            f"{row.model:32} {row.engine:15} {row.batch_size:5} {row.load:4} "
            f"{_spread(*_quartiles(row.latency)):>24} {own:>10}"
        )
        if row.over_baseline:
            gain = _spread(*row.over_baseline, digits=2, unit="x")
            allowances = f"{row.allowed_by_macs:9.2f}x {row.allowed_by_roofline:7.2f}x"
            line += f" {gain:>23} {allowances} {row.share_of_macs:7.2f}"
        lines.append(line)
    return "\n".join([*lines, *_explained(comparison), *comparison.notes])


def _explained(comparison: EngineComparison) -> Iterator[str]:
    """Why the first model is no faster, for every engine and batch size without load."""
    of = {(row.model, row.engine, row.batch_size): row for row in comparison.rows if not row.load}
    first = comparison.rows[0].model
    for (model, engine, batch), row in of.items():
        full = of.get((comparison.baseline, engine, batch))
        if model == first and row.over_baseline and full:
            ms = row.latency.median_ms
            yield f"{first}, {engine}: {explain(row.roofline, full.roofline, ms, ms * row.over_baseline.median)}"


def _quartiles(latency: LatencySummary) -> Quartiles:
    return Quartiles(latency.q1_ms, latency.median_ms, latency.q3_ms)


def _spread(q1: float, median: float, q3: float, digits: int = 1, unit: str = "") -> str:
    return f"{median:.{digits}f}{unit} ({q1:.{digits}f} to {q3:.{digits}f})"
