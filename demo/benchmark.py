"""Measure two models on the same picture, in turns: generators whose states fill up with every step."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

import stvit
from demo.model_cache import first_that_fits
from demo.predictors import Predictors, check_short_side, input_side, sizes_from
from demo.registry import ModelSpec
from stvit.errors import UserError
from stvit.measure.memory import peak_memory_bytes
from stvit.measure.timing import LatencySummary, Quartiles, interleave, speed_up, summarise
from stvit.predict.detector import published_scale
from stvit.predict.media import read_image

BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128)
MAX_BATCH_SIZE_ON_CPU = 32  # more only takes longer there, and a pass under way cannot be cancelled
LATENCY_ROUNDS, LATENCY_SECONDS = 60, 8.0
THROUGHPUT_ROUNDS, THROUGHPUT_SECONDS = 20, 25.0
DENSE_ROUNDS, DENSE_SECONDS = 20, 25.0  # of backbones and segmenters
MIN_ROUNDS = 5  # fewer give no median worth a verdict
WARMUP_ROUNDS = 1
REPORT_EVERY_S = 0.4


class BadBatchSize(UserError, ValueError):
    """A batch size that is not offered; the message is for the user."""


class SameModel(UserError, ValueError):
    """A model against itself; the message is for the user."""


@dataclass(frozen=True)
class BenchmarkEntry:
    """Figures of one model so far; ``None`` where nothing is measured yet.

    Attributes:
        spec: which model it is.
        parameters: number of learned values.
        macs: multiply-adds that this implementation computes for one image.
        macs_as_published: the same counted the paper's way.
        latency: one image at a time.
        batch_latency: the whole chosen batch.
        peak_memory_bytes: of one pass over the chosen batch, beside weights and input.
    """

    spec: ModelSpec
    parameters: int
    macs: int
    macs_as_published: int
    latency: LatencySummary | None = None
    batch_latency: LatencySummary | None = None
    peak_memory_bytes: int | None = None


@dataclass(frozen=True)
class BenchmarkState:
    """A comparison under way.

    Attributes:
        stage: what is being measured now, in words; ``"Done"`` at the end.
        progress: part of the work that is done, in [0, 1].
        model: the one whose speed-up is asked for.
        baseline: what it is compared with.
        batch_size: images in a batch.
        device: device and precision, in words.
        latency_speed_up: baseline time over model time within a round, above 1 where the model is faster; ``None``
            before there are enough rounds.
        batch_speed_up: the same at the chosen batch size.
    """

    stage: str
    progress: float
    model: BenchmarkEntry
    baseline: BenchmarkEntry
    batch_size: int
    device: str
    latency_speed_up: Quartiles | None = None
    batch_speed_up: Quartiles | None = None

    @property
    def done(self) -> bool:
        return self.stage == "Done"

    @property
    def allowed_speedup(self) -> float:
        """The speed-up if time followed the multiply-adds that are really computed."""
        return self.baseline.macs / self.model.macs

    def speedup(self, batched: bool) -> Quartiles | None:
        """Speed-up one image at a time or in batches; ``None`` before there are enough rounds."""
        return self.batch_speed_up if batched else self.latency_speed_up

    def images_per_second(self, entry: BenchmarkEntry) -> float | None:
        """Throughput at the chosen batch size; ``None`` before it is measured."""
        return self.batch_size / entry.batch_latency.median_ms * 1e3 if entry.batch_latency else None


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
    predictors: Predictors, inputs: Mapping[ModelSpec, Tensor], model: ModelSpec, baseline: ModelSpec, batch_size: int
) -> Iterator[BenchmarkState]:
    """Measure two models on the same picture, at batch 1 and at ``batch_size``; ``inputs`` holds it as each of them
    takes it, (1, 3, H, W) by model.

    Every state holds all that is known so far. The device is held only while something runs on it, never across a
    ``yield``, so a generator that is closed or dropped at any point leaves nothing behind.

    Raises:
        BadBatchSize: see ``check_batch_size``.
        SameModel: there is only one model to measure.
    """
    check_batch_size(batch_size)
    if model == baseline:
        raise SameModel("Both sides are the same model: choose two different ones to compare.")
    networks = {spec: predictors.model_cache.get(spec).network for spec in (model, baseline)}
    entries = (counted(spec, network, tuple(inputs[spec].shape[1:])) for spec, network in networks.items())
    state = BenchmarkState("Counting multiply-adds", 0.0, *entries, batch_size, predictors.device_words())
    yield state
    images = {spec: inputs[spec].to(predictors.device, predictors.precision) for spec in networks}
    state = yield from _latency_states(predictors, networks, images, state)
    batches = {spec: image.expand(batch_size, -1, -1, -1).contiguous() for spec, image in images.items()}
    state = yield from _batch_states(predictors, networks, batches, state)
    yield replace(with_peak_memory(predictors, networks, batches, state), stage="Done", progress=1.0)


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
    networks: dict[ModelSpec, nn.Module],
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


def _latency_states(
    predictors: Predictors,
    networks: dict[ModelSpec, nn.Module],
    images: Mapping[ModelSpec, Tensor],
    state: BenchmarkState,
) -> States:
    yield replace(state, stage="Warming up, one image at a time")
    for part, (model, baseline), ratios in measured(predictors, networks, images, LATENCY_ROUNDS, LATENCY_SECONDS):
        state = replace(
            state,
            stage="Latency, one image at a time",
            progress=0.3 * part,
            model=replace(state.model, latency=model),
            baseline=replace(state.baseline, latency=baseline),
            latency_speed_up=ratios,
        )
        yield state
    return state


def _batch_states(
    predictors: Predictors,
    networks: dict[ModelSpec, nn.Module],
    batches: Mapping[ModelSpec, Tensor],
    state: BenchmarkState,
) -> States:
    yield replace(state, stage=f"Warming up, batches of {state.batch_size}", progress=0.3)
    for part, (model, baseline), ratios in measured(
        predictors, networks, batches, THROUGHPUT_ROUNDS, THROUGHPUT_SECONDS
    ):
        state = replace(
            state,
            stage=f"Throughput, batches of {state.batch_size}",
            progress=0.3 + 0.7 * part,
            model=replace(state.model, batch_latency=model),
            baseline=replace(state.baseline, batch_latency=baseline),
            batch_speed_up=ratios,
        )
        yield state
    return state


def benchmark_backbones(
    predictors: Predictors, path: str | Path, model: ModelSpec, baseline: ModelSpec, short_side: int
) -> Iterator[BenchmarkState]:
    """Measure the backbones of two detectors on one picture at a time; hold the device as
    :func:`benchmark_classifiers` does. The heads are the same, and their time depends on how many objects they find.

    Raises:
        MediaError: the file cannot be read as an image.
        BadSize: the size is not offered.
        OutOfMemory: not even the smallest size fits.
    """
    short_side = input_side(model, check_short_side(short_side))
    pixels = read_image(path).pixels
    loaded = {spec: predictors.model_cache.get(spec) for spec in (model, baseline)}
    detector = predictors.detector(loaded[model])
    backbones = {spec: entry.network.backbone for spec, entry in loaded.items()}
    side, images = _run_once(
        predictors,
        backbones,
        sizes_from(short_side),
        lambda side: detector.prepare(pixels, published_scale(side)).images,
    )
    fitted = "" if side == short_side else f", as there was not enough memory for {short_side}"
    yield from _in_turns(predictors, backbones, images, "Both backbones in turns", fitted)


def benchmark_segmenters(
    predictors: Predictors, path: str | Path, model: ModelSpec, baseline: ModelSpec
) -> Iterator[BenchmarkState]:
    """Measure two segmenters as wholes, on one picture at a time; hold the device as above.

    Raises:
        MediaError: the file cannot be read as an image.
        OutOfMemory: one of them does not fit.
    """
    pixels = read_image(path).pixels
    networks = {spec: predictors.model_cache.get(spec).network for spec in (model, baseline)}
    prepare = networks[model].prepare
    _, images = _run_once(predictors, networks, (model.input_size,), lambda side: prepare(pixels, (side, side)))
    yield from _in_turns(predictors, networks, images, "Both segmenters in turns")


def _run_once(
    predictors: Predictors,
    networks: Mapping[ModelSpec, nn.Module],
    sizes: tuple[int, ...],
    prepare: Callable[[int], Tensor],
) -> tuple[int, Tensor]:
    """Find the first size that all networks have memory for; returns it and the input of that size."""

    def run(size: int) -> Tensor:
        images = prepare(size)
        for network in networks.values():
            network(images)
        return images

    return first_that_fits(sizes, partial(predictors.compute.run, run), predictors.device)


def _in_turns(
    predictors: Predictors, networks: dict[ModelSpec, nn.Module], images: Tensor, stage: str, remark: str = ""
) -> Iterator[BenchmarkState]:
    """Measure two networks on the same input.

    Args:
        networks: the one whose speed-up is asked for first.
        images: (1, 3, H, W), on the device and in its precision.
        stage: what is measured, in words.
        remark: on the input's size.
    """
    shape = tuple(images.shape[1:])
    where = f"{predictors.device_words()}; input {shape[1]} × {shape[2]}{remark}"
    entries = (counted(spec, network, shape) for spec, network in networks.items())
    state = BenchmarkState("Counted multiply-adds, warming up", 0.0, *entries, 1, where)
    yield state
    inputs = dict.fromkeys(networks, images)
    for part, (model, baseline), ratios in measured(predictors, networks, inputs, DENSE_ROUNDS, DENSE_SECONDS):
        state = replace(
            state,
            stage=stage,
            progress=part,
            model=replace(state.model, latency=model),
            baseline=replace(state.baseline, latency=baseline),
            latency_speed_up=ratios,
        )
        yield state
    yield replace(with_peak_memory(predictors, networks, inputs, state), stage="Done", progress=1.0)


def measured(
    predictors: Predictors,
    networks: dict[ModelSpec, nn.Module],
    inputs: Mapping[ModelSpec, Tensor],
    max_rounds: int,
    max_seconds: float,
) -> Iterator[tuple[float, tuple[LatencySummary, LatencySummary], Quartiles | None]]:
    """Run two networks in turns, each on its own input, until the rounds or the seconds are used up; yields the
    part done, a summary of each and the first one's speed-up, every ``REPORT_EVERY_S``."""
    times: dict[str, list[float]] = {spec.name: [] for spec in networks}
    by_name = {spec.name: network for spec, network in networks.items()}
    seen = {spec.name: inputs[spec] for spec in networks}
    rounds = interleave(by_name, seen, rounds=max_rounds, warmup=WARMUP_ROUNDS)
    start = reported = time.perf_counter()
    while True:
        step = predictors.compute.run(next, rounds, None)
        if step is not None:
            for name, time_ms in step.times_ms.items():
                times[name].append(time_ms)
        model_ms, baseline_ms = times.values()
        num_rounds, elapsed = len(model_ms), time.perf_counter() - start
        enough = num_rounds >= MIN_ROUNDS
        over = step is None or (enough and elapsed > max_seconds)
        if over or time.perf_counter() - reported > REPORT_EVERY_S:
            reported = time.perf_counter()
            part = 1.0 if over else max(num_rounds / max_rounds, min(elapsed / max_seconds, 0.95))
            ratios = speed_up(model_ms, baseline_ms) if enough else None
            yield part, (summarise(model_ms), summarise(baseline_ms)), ratios
        if over:
            return
