"""Two models on the same pixels, interleaved: a generator of measurements, complete a little more with every step."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, replace

from torch import Tensor, nn

import stvit
from demo.engine import Engine
from demo.registry import ModelSpec
from stvit.measure.memory import peak_memory_bytes
from stvit.measure.timing import LatencySummary, interleave, summarise

BATCH_SIZES = (1, 4, 8, 16, 32, 64, 128)
MAX_BATCH_SIZE_ON_CPU = 32  # more only takes longer there, and a pass under way cannot be cancelled
LATENCY_ROUNDS, LATENCY_SECONDS = 60, 8.0
THROUGHPUT_ROUNDS, THROUGHPUT_SECONDS = 20, 25.0
MIN_ROUNDS = 5  # fewer give no median worth a verdict
WARMUP_ROUNDS = 1
REPORT_EVERY_S = 0.4


class BadBatchSize(ValueError):
    """A batch size that is not offered; the message is for the user."""


class SameModel(ValueError):
    """A model against itself; the message is for the user."""


@dataclass(frozen=True)
class Racer:
    """One model and what is known of it so far; ``None`` where nothing is measured yet.

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
class RaceState:
    """A comparison under way.

    Attributes:
        stage: what is being measured now, in words; ``"Done"`` at the end.
        progress: part of the work that is done, in [0, 1].
        model: the one whose speed-up is asked for.
        baseline: what it is compared with.
        batch_size: images in a batch.
        device: device and precision, in words.
    """

    stage: str
    progress: float
    model: Racer
    baseline: Racer
    batch_size: int
    device: str

    @property
    def done(self) -> bool:
        return self.stage == "Done"

    @property
    def allowed_speedup(self) -> float:
        """The speed-up if time followed the multiply-adds that are really computed."""
        return self.baseline.macs / self.model.macs

    def speedup(self, batched: bool) -> float | None:
        """Baseline time over model time, above 1 where the model is faster; ``None`` before there are runs enough."""
        mine, theirs = (
            (self.model.batch_latency, self.baseline.batch_latency)
            if batched
            else (self.model.latency, self.baseline.latency)
        )
        return theirs.median_ms / mine.median_ms if mine and theirs and mine.runs >= MIN_ROUNDS else None

    def images_per_second(self, racer: Racer) -> float | None:
        """Throughput at the chosen batch size; ``None`` before it is measured."""
        return self.batch_size / racer.batch_latency.median_ms * 1e3 if racer.batch_latency else None


States = Generator[RaceState, None, RaceState]  # every state on the way, and the last one as its value


def check_batch_size(value: object) -> int:
    """``value`` as one of ``BATCH_SIZES``.

    Raises:
        BadBatchSize: anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value in BATCH_SIZES:
        return value
    offered = ", ".join(map(str, BATCH_SIZES))
    raise BadBatchSize(f"A batch of {str(value)[:20]!r} is not offered. Choose one of {offered}.")


def race(
    engine: Engine, inputs: Mapping[ModelSpec, Tensor], model: ModelSpec, baseline: ModelSpec, batch_size: int
) -> Iterator[RaceState]:
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
    networks = {spec: engine.store.get(spec).network for spec in (model, baseline)}
    racers = (racer(spec, network, tuple(inputs[spec].shape[1:])) for spec, network in networks.items())
    state = RaceState("Counting multiply-adds", 0.0, *racers, batch_size, engine.device_words())
    yield state
    images = {spec: inputs[spec].to(engine.device, engine.precision) for spec in networks}
    state = yield from _latency_states(engine, networks, images, state)
    batches = {spec: image.expand(batch_size, -1, -1, -1).contiguous() for spec, image in images.items()}
    state = yield from _batch_states(engine, networks, batches, state)
    yield replace(with_peak_memory(engine, networks, batches, state), stage="Done", progress=1.0)


def racer(spec: ModelSpec, network: nn.Module, input_shape: tuple[int, ...]) -> Racer:
    """What is known of a network before it runs; ``input_shape`` is (C, H, W)."""
    return Racer(
        spec,
        sum(parameter.numel() for parameter in network.parameters()),
        stvit.count_macs(network, input_shape),
        stvit.count_macs(network, input_shape, as_published=True),
    )


def with_peak_memory(
    engine: Engine, networks: dict[ModelSpec, nn.Module], inputs: Mapping[ModelSpec, Tensor], state: RaceState
) -> RaceState:
    """The state with the peak memory of one pass over the inputs, by model."""
    model, baseline = (
        engine.compute.run(peak_memory_bytes, network, inputs[spec]) for spec, network in networks.items()
    )
    return replace(
        state,
        model=replace(state.model, peak_memory_bytes=model),
        baseline=replace(state.baseline, peak_memory_bytes=baseline),
    )


def _latency_states(
    engine: Engine, networks: dict[ModelSpec, nn.Module], images: Mapping[ModelSpec, Tensor], state: RaceState
) -> States:
    yield replace(state, stage="Warming up, one image at a time")
    for part, (model, baseline) in measured(engine, networks, images, LATENCY_ROUNDS, LATENCY_SECONDS):
        state = replace(
            state,
            stage="Latency, one image at a time",
            progress=0.3 * part,
            model=replace(state.model, latency=model),
            baseline=replace(state.baseline, latency=baseline),
        )
        yield state
    return state


def _batch_states(
    engine: Engine, networks: dict[ModelSpec, nn.Module], batches: Mapping[ModelSpec, Tensor], state: RaceState
) -> States:
    yield replace(state, stage=f"Warming up, batches of {state.batch_size}", progress=0.3)
    for part, (model, baseline) in measured(engine, networks, batches, THROUGHPUT_ROUNDS, THROUGHPUT_SECONDS):
        state = replace(
            state,
            stage=f"Throughput, batches of {state.batch_size}",
            progress=0.3 + 0.7 * part,
            model=replace(state.model, batch_latency=model),
            baseline=replace(state.baseline, batch_latency=baseline),
        )
        yield state
    return state


def measured(
    engine: Engine,
    networks: dict[ModelSpec, nn.Module],
    inputs: Mapping[ModelSpec, Tensor],
    max_rounds: int,
    max_seconds: float,
) -> Iterator[tuple[float, tuple[LatencySummary, LatencySummary]]]:
    """Run two networks in turns, each on its own input; (part done, summary of each) every now and then, until the
    rounds or the seconds are used up."""
    times: dict[str, list[float]] = {spec.name: [] for spec in networks}
    by_name = {spec.name: network for spec, network in networks.items()}
    seen = {spec.name: inputs[spec] for spec in networks}
    rounds = interleave(by_name, seen, rounds=max_rounds, warmup=WARMUP_ROUNDS)
    start = reported = time.perf_counter()
    while True:
        step = engine.compute.run(next, rounds, None)
        if step is not None:
            for name, time_ms in step.times_ms.items():
                times[name].append(time_ms)
        num_rounds, elapsed = len(next(iter(times.values()))), time.perf_counter() - start
        out_of_time = num_rounds >= MIN_ROUNDS and elapsed > max_seconds
        over = step is None or out_of_time
        if over or time.perf_counter() - reported > REPORT_EVERY_S:
            reported = time.perf_counter()
            part = 1.0 if over else max(num_rounds / max_rounds, min(elapsed / max_seconds, 0.95))
            yield part, tuple(summarise(measured_ms) for measured_ms in times.values())
        if over:
            return
