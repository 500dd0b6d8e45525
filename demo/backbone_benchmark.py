"""Two backbones on the same picture, in turns: a detector's, and the full-token one of its size."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from demo.benchmark import RaceState, measured, racer, with_peak_memory
from demo.detection import check_short_side, input_side, prepare, sizes_from
from demo.engine import Engine
from demo.media import read_image
from demo.memory import first_that_fits
from demo.registry import ModelSpec

ROUNDS, SECONDS = 20, 25.0


def race_backbones(
    engine: Engine, path: str | Path, model: ModelSpec, baseline: ModelSpec, short_side: int
) -> Iterator[RaceState]:
    """Measure both backbones, interleaved, on one picture at a time.

    The backbones alone: the heads are the same, and how long they take hangs on what they find. The device is held only
    while something runs on it, never across a ``yield``.

    Raises:
        MediaError: the file cannot be read as an image.
        BadSize: the size is not offered.
        OutOfMemory: not even the smallest size fits.
    """
    short_side = input_side(model, check_short_side(short_side))
    pixels = read_image(path).pixels
    detectors = {spec: engine.store.get(spec).network for spec in (model, baseline)}
    backbones = {spec: detector.backbone for spec, detector in detectors.items()}

    def run_once(side: int) -> Tensor:
        images = prepare(detectors[model], pixels, side, engine.precision).images
        for backbone in backbones.values():
            backbone(images)
        return images

    sizes = sizes_from(short_side)
    side, images = first_that_fits(sizes, partial(engine.compute.run, run_once), engine.device)
    fitted = "" if side == short_side else f", as there was not enough memory for {short_side}"
    yield from in_turns(engine, backbones, images, "Both backbones in turns", fitted)


def in_turns(
    engine: Engine, networks: dict[ModelSpec, nn.Module], images: Tensor, stage: str, remark: str = ""
) -> Iterator[RaceState]:
    """Measure two networks, interleaved, on the same input; the device is held only while something runs on it.

    Args:
        networks: the one whose speed-up is asked for first.
        images: (1, 3, H, W), on the device and in its precision.
        stage: what is measured, in words.
        remark: on the input's size.
    """
    shape = tuple(images.shape[1:])
    where = f"{engine.device_words()}; input {shape[1]} × {shape[2]}{remark}"
    racers = (racer(spec, network, shape) for spec, network in networks.items())
    state = RaceState("Counted multiply-adds, warming up", 0.0, *racers, 1, where)
    yield state
    inputs = dict.fromkeys(networks, images)
    for part, (model, baseline) in measured(engine, networks, inputs, ROUNDS, SECONDS):
        state = replace(
            state,
            stage=stage,
            progress=part,
            model=replace(state.model, latency=model),
            baseline=replace(state.baseline, latency=baseline),
        )
        yield state
    yield replace(with_peak_memory(engine, networks, inputs, state), stage="Done", progress=1.0)
