"""Measure two classifiers on the same picture, in turns: generators whose states fill up with every step."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from torch import Tensor, nn

import stvit
from demo.predictors import Predictors
from demo.registry import ModelSpec
from stvit.errors import UserError
from stvit.measure.memory import peak_memory_bytes
from stvit.measure.roofline import explain, roofline
from stvit.measure.timing import (
    LatencySummary,
    Quartiles,
    Verdict,
    interleave,
    medians_of_stretches,
    speed_up,
    summarise,
    verdict,
)
from stvit.predict.engines import Engine
from stvit.predict.regions import Wanted

BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128)
MAX_BATCH_SIZE_ON_CPU = 32  # more only takes longer there, and a pass under way cannot be cancelled
MAX_PASS_S = 2.0  # of the slower model on a batch: whoever waits for the device waits for one
MIN_ROUNDS = 5  # fewer give no median worth a verdict
STRETCHES = 8  # that the passes of one comparison are divided into
LONGEST_S = 45.0  # after which there is no verdict where there were fewer
WARMUP_ROUNDS = 1
REPORT_EVERY_S = 0.4
GRAPH_WAIT_S = 30.0
GIVE_WAY_S = 0.002  # between two rounds: a lock that is taken again at once is never handed over


@dataclass(frozen=True)
class Limits:
    """How long one comparison takes: ``seconds`` where its verdict is clear by then, else ``in_doubt_s``; longer, up to
    ``LONGEST_S``, only where the first ``MIN_ROUNDS`` take longer."""

    seconds: float
    in_doubt_s: float


SHORT, LATENCY, THROUGHPUT = Limits(2.0, 6.0), Limits(5.0, 12.0), Limits(10.0, 20.0)


class BadBatchSize(UserError, ValueError):
    """A batch size that is not offered; the message is for the user."""


class SameModel(UserError, ValueError):
    """A model against itself; the message is for the user."""


@dataclass(frozen=True)
class BenchmarkEntry:
    """What is known of one model beside its times.

    Attributes:
        spec: which model it is.
        parameters: number of learned values.
        macs: multiply-adds that this implementation computes for one image.
        macs_as_published: the same counted the paper's way.
        peak_memory_bytes: of one pass over the largest measured batch, beside weights and input; ``None`` before it is
            measured.
    """

    spec: ModelSpec
    parameters: int
    macs: int
    macs_as_published: int
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class Turns:
    """Two models that ran in turns.

    Attributes:
        model, baseline: times of their passes.
        speed_up: baseline time over model time within a round, above 1 where the model is faster; ``None`` before
            there are enough rounds.
        engine: that ran both.
    """

    model: LatencySummary
    baseline: LatencySummary
    speed_up: Quartiles | None
    engine: str = "eager"

    @property
    def verdict(self) -> Verdict | None:
        """What the speed-up says; ``None`` where there is none yet."""
        return self.speed_up and verdict(self.speed_up)


@dataclass(frozen=True)
class BenchmarkState:
    """A comparison under way.

    Attributes:
        stage: what is being measured now, in words; ``"Done"`` at the end.
        progress: part of the work that is done, in [0, 1].
        model: the one whose speed-up is asked for.
        baseline: what it is compared with.
        batch_size: images in a batch; ``None`` where single images alone are measured.
        device: device and precision, in words.
        engine: that runs both now.
        explanation: what keeps single images from gaining as much as the multiply-adds are fewer, in words.
        single: one image at a time; ``None`` before it is measured.
        batched: the same with batches.
    """

    stage: str
    progress: float
    model: BenchmarkEntry
    baseline: BenchmarkEntry
    batch_size: int | None
    device: str
    engine: str = "eager"
    explanation: str = ""
    single: Turns | None = None
    batched: Turns | None = None

    @property
    def done(self) -> bool:
        return self.stage == "Done"

    @property
    def allowed_speedup(self) -> float:
        """The speed-up if time followed the multiply-adds that are really computed."""
        return self.baseline.macs / self.model.macs

    def images_per_second(self, latency: LatencySummary) -> float:
        """Throughput at the chosen batch size, by the median pass."""
        return self.batch_size / latency.median_ms * 1e3


Runs = Mapping[ModelSpec, Callable[[Tensor], Any]]  # what runs each of two models, the one that is asked about first
States = Generator[BenchmarkState, None, BenchmarkState]  # every state on the way, and the last one as its value


def check_batch_size(value: object) -> int:
    """Return ``value`` if it is one of ``BATCH_SIZES``.

    Raises:
        BadBatchSize: anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value in BATCH_SIZES:
        return value
    offered = ", ".join(map(str, BATCH_SIZES))
    raise BadBatchSize(f"A batch of {str(value)[:20]!r} is not offered. Choose one of {offered}.")


def benchmark_classifiers(
    predictors: Predictors,
    inputs: Mapping[ModelSpec, Tensor],
    model: ModelSpec,
    baseline: ModelSpec,
    batch_size: int | None,
    engine: str | None = None,
) -> Iterator[BenchmarkState]:
    """Measure two models on the same picture, one image at a time and in batches.

    Every state holds all that is known so far. The device is held for one pass at a time, never across a ``yield``,
    so others come to their turn, and a generator that is closed or dropped at any point leaves nothing behind.

    Args:
        inputs: the picture as each of them takes it, (1, 3, H, W) by model.
        batch_size: ``None`` for a short measurement of one image at a time. Batches of slow models are smaller.
        engine: that is to run both, see ``Predictors``.

    Raises:
        UnknownEngine: it is not at hand.
        BadBatchSize: see ``check_batch_size``.
        SameModel: there is only one model to measure.
    """
    if batch_size is not None:
        check_batch_size(batch_size)
    if model == baseline:
        raise SameModel("Both sides are the same model: choose two different ones to compare.")
    loaded = {spec: predictors.model_cache.get(spec) for spec in (model, baseline)}
    networks = {spec: entry.network for spec, entry in loaded.items()}
    engines = {spec: predictors.classifier(entry, engine).engine for spec, entry in loaded.items()}
    yield from benchmark_networks(predictors, networks, engines, inputs, batch_size, "attention")


def benchmark_networks(
    predictors: Predictors,
    networks: Mapping[ModelSpec, nn.Module],
    engines: Mapping[ModelSpec, Engine],
    inputs: Mapping[ModelSpec, Tensor],
    batch_size: int | None,
    wanted: Wanted,
) -> Iterator[BenchmarkState]:
    """Measure two networks as :func:`benchmark_classifiers` does.

    Args:
        networks: the one whose speed-up is asked for first.
        engines: that run them.
        inputs: of each, (1, 3, H, W).
        batch_size: ``None`` for a short measurement of one image at a time.
        wanted: regions that are part of every pass.
    """
    entries = (counted(spec, network, tuple(inputs[spec].shape[1:])) for spec, network in networks.items())
    state = BenchmarkState("Counting multiply-adds", 0.0, *entries, batch_size, predictors.device_words())
    yield state
    images = {spec: inputs[spec].to(predictors.device) for spec in networks}
    state, runs = yield from same_engine(engines, images, wanted, state)
    limits, span = (SHORT, (0.0, 1.0)) if batch_size is None else (LATENCY, (0.0, 0.3))
    state = yield from in_turns(predictors, runs, images, state, "single", limits, span)
    state = replace(state, explanation=_explanation(predictors, networks, images, state))
    if batch_size is not None:
        state = replace(state, batch_size=_bounded(batch_size, state.single))
        batches = {spec: image.expand(state.batch_size, -1, -1, -1).contiguous() for spec, image in images.items()}
        state, runs = yield from same_engine(engines, batches, wanted, state)
        state = yield from in_turns(predictors, runs, batches, state, "batched", THROUGHPUT, (0.3, 1.0))
        if state.engine == "eager":  # of others, what PyTorch holds says nothing
            batches = {spec: batch.to(predictors.precision) for spec, batch in batches.items()}
            state = with_peak_memory(predictors, networks, batches, state)
    yield replace(state, stage="Done", progress=1.0)


def same_engine(
    engines: Mapping[ModelSpec, Engine], inputs: Mapping[ModelSpec, Tensor], wanted: Wanted, state: BenchmarkState
) -> Generator[BenchmarkState, None, tuple[BenchmarkState, Runs]]:
    """Wait for the graphs of both models, ``GRAPH_WAIT_S`` at most, and run both on what serves both of them then: one
    engine, or eager PyTorch.

    Args:
        wanted: regions that are part of every pass, as they are of the page's answers.
    """
    state = replace(state, stage="Making graphs")
    yield state
    for spec, engine in engines.items():
        if engine.recall(tuple(inputs[spec].shape), wanted) == "eager":
            engine(inputs[spec], wanted)  # begins the graph
    start = time.perf_counter()
    while not all(engine.settle(REPORT_EVERY_S) for engine in engines.values()):
        if time.perf_counter() - start > GRAPH_WAIT_S:
            break
        yield state
    serving = {engine.serving(tuple(inputs[spec].shape)) for spec, engine in engines.items()}
    if len(serving) > 1 or "eager" in serving:  # by itself, as a graph that came midway would change what is measured
        runs = {spec: partial(engine.eager, wanted=wanted) for spec, engine in engines.items()}
        return replace(state, engine="eager"), runs
    return replace(state, engine=serving.pop()), {
        spec: partial(engine, wanted=wanted) for spec, engine in engines.items()
    }


def _explanation(
    predictors: Predictors,
    networks: Mapping[ModelSpec, nn.Module],
    images: Mapping[ModelSpec, Tensor],
    state: BenchmarkState,
) -> str:
    """Why one image at a time gains less than the multiply-adds are fewer; empty where there is nothing to explain."""
    if state.single.verdict != "faster" or state.allowed_speedup <= 1:
        return ""
    bounds = [
        predictors.compute.run(roofline, network, tuple(images[spec].shape[1:])) for spec, network in networks.items()
    ]
    return explain(*bounds, state.single.model.median_ms, state.single.baseline.median_ms)


def _bounded(batch_size: int, single: Turns) -> int:
    """The largest batch up to the chosen one that the slower model passes within ``MAX_PASS_S``."""
    slower_ms = max(single.model.median_ms, single.baseline.median_ms)
    fitting = [size for size in BATCH_SIZES if size <= batch_size and size * slower_ms <= MAX_PASS_S * 1e3]
    return max(fitting, default=1)


def counted(spec: ModelSpec, network: nn.Module, input_shape: tuple[int, ...]) -> BenchmarkEntry:
    """Count parameters and multiply-adds of a network; ``input_shape`` is (C, H, W)."""
    return BenchmarkEntry(
        spec,
        sum(parameter.numel() for parameter in network.parameters()),
        stvit.count_macs(network, input_shape),
        stvit.count_macs(network, input_shape, as_published=True),
    )


def with_peak_memory(
    predictors: Predictors,
    networks: Mapping[ModelSpec, nn.Module],
    inputs: Mapping[ModelSpec, Tensor],
    state: BenchmarkState,
) -> BenchmarkState:
    """Measure the peak memory of one pass of each model over its inputs; returns the state with both."""
    model, baseline = (
        predictors.compute.run(peak_memory_bytes, network, inputs[spec]) for spec, network in networks.items()
    )
    return replace(
        state,
        model=replace(state.model, peak_memory_bytes=model),
        baseline=replace(state.baseline, peak_memory_bytes=baseline),
    )


def in_turns(
    predictors: Predictors,
    runs: Runs,
    inputs: Mapping[ModelSpec, Tensor],
    state: BenchmarkState,
    field: Literal["single", "batched"],
    limits: Limits,
    span: tuple[float, float],
) -> States:
    """Run two models in turns, each on its own input, and go on while the verdict is in doubt.

    Args:
        field: of the state, that is filled.
        span: of the progress.
    """
    what = "one image at a time" if field == "single" else f"batches of {state.batch_size}"
    state = replace(state, stage=f"Warming up: {what}", progress=span[0])
    yield state
    by_name = {spec.name: run for spec, run in runs.items()}
    named = {spec.name: inputs[spec] for spec in runs}
    rounds = interleave(by_name, named, rounds=sys.maxsize, warmup=WARMUP_ROUNDS, run=predictors.compute.run)
    times: tuple[list[float], list[float]] = [], []
    start = reported = time.perf_counter()
    over = False
    while not over:
        for own, time_ms in zip(times, next(rounds).times_ms.values(), strict=True):
            own.append(time_ms)
        time.sleep(GIVE_WAY_S)
        now = time.perf_counter()
        enough = len(times[0]) >= MIN_ROUNDS or now - start > LONGEST_S
        over = enough and now - start > limits.in_doubt_s
        if over or now - reported > REPORT_EVERY_S:
            turns, reported = _turns(*times, state.engine), now
            over = over or (turns.verdict in ("faster", "slower") and now - start > limits.seconds)
            part = 1.0 if over else min((now - start) / limits.seconds, 0.95)
            progress = span[0] + (span[1] - span[0]) * part
            doubt = " (not clear yet)" if now - start > limits.seconds else ""
            state = replace(state, **{"stage": f"Measuring {what}{doubt}", "progress": progress, field: turns})
            yield state
    return state


def _turns(model_ms: list[float], baseline_ms: list[float], engine: str) -> Turns:
    enough = len(model_ms) >= MIN_ROUNDS
    stretches = (medians_of_stretches(times, STRETCHES) for times in (model_ms, baseline_ms))
    return Turns(summarise(model_ms), summarise(baseline_ms), speed_up(*stretches) if enough else None, engine)
