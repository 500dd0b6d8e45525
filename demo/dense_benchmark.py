"""Measure two detectors' backbones, or two segmenters, on the same picture, in turns, see ``demo.benchmark``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn

from demo.benchmark import BenchmarkState, Limits, counted, in_turns, same_engine, with_peak_memory
from demo.model_cache import first_that_fits
from demo.predictors import Predictors, check_short_side, input_side, sizes_from
from demo.registry import ModelSpec
from stvit.export.graph import FeaturePyramid, PixelScores
from stvit.predict.detector import published_scale
from stvit.predict.engines import Engine
from stvit.predict.media import read_image
from stvit.predict.regions import Wanted

DENSE = Limits(10.0, 20.0)
REGIONS: Wanted = "all"  # part of every pass, as of the page's answers


def benchmark_backbones(
    predictors: Predictors,
    path: str | Path,
    model: ModelSpec,
    baseline: ModelSpec,
    short_side: int,
    engine: str | None = None,
) -> Iterator[BenchmarkState]:
    """Measure backbone and feature pyramid of two detectors on one picture at a time; hold the device as
    ``benchmark_classifiers`` does. The heads are the same, and their time depends on how many objects they find.

    Raises:
        MediaError: the file cannot be read as an image.
        BadSize, UnknownEngine: the size, or the engine, is not offered.
        OutOfMemory: not even the smallest size fits.
    """
    short_side = input_side(model, check_short_side(short_side))
    pixels = read_image(path).pixels
    loaded = {spec: predictors.model_cache.get(spec) for spec in (model, baseline)}
    detectors = {spec: predictors.detector(entry, engine) for spec, entry in loaded.items()}
    engines = {spec: detector.pyramid for spec, detector in detectors.items()}
    side, images = _run_once(
        predictors,
        engines,
        sizes_from(short_side),
        lambda side: detectors[model].prepare(pixels, published_scale(side)).images,
    )
    pyramids = {spec: FeaturePyramid(entry.network) for spec, entry in loaded.items()}
    fitted = "" if side == short_side else f", as there was not enough memory for {short_side}"
    yield from _states(predictors, pyramids, engines, images, fitted)


def benchmark_segmenters(
    predictors: Predictors, path: str | Path, model: ModelSpec, baseline: ModelSpec, engine: str | None = None
) -> Iterator[BenchmarkState]:
    """Measure two segmenters as wholes, on one picture at a time; hold the device as above.

    Raises:
        MediaError: the file cannot be read as an image.
        OutOfMemory: one of them does not fit.
        UnknownEngine: the engine is not offered.
    """
    pixels = read_image(path).pixels
    loaded = {spec: predictors.model_cache.get(spec) for spec in (model, baseline)}
    engines = {spec: predictors.segmenter(entry, engine).engine for spec, entry in loaded.items()}
    prepare = loaded[model].network.prepare
    _, images = _run_once(predictors, engines, (model.input_size,), lambda side: prepare(pixels, (side, side)))
    scorers = {spec: PixelScores(entry.network) for spec, entry in loaded.items()}
    yield from _states(predictors, scorers, engines, images)


def _run_once(
    predictors: Predictors,
    engines: Mapping[ModelSpec, Engine],
    sizes: tuple[int, ...],
    prepare: Callable[[int], Tensor],
) -> tuple[int, Tensor]:
    """Find the first size that all networks have memory for; returns it and the input of that size."""

    def run(size: int) -> Tensor:
        images = prepare(size)
        for engine in engines.values():
            engine.eager(images, REGIONS)
        return images

    return first_that_fits(sizes, partial(predictors.compute.run, run), predictors.device)


def _states(
    predictors: Predictors,
    networks: dict[ModelSpec, nn.Module],
    engines: Mapping[ModelSpec, Engine],
    images: Tensor,
    remark: str = "",
) -> Iterator[BenchmarkState]:
    """Measure two networks on the same input, under one engine.

    Args:
        networks: the one whose speed-up is asked for first.
        engines: that run them.
        images: (1, 3, H, W), on the device.
        remark: on the input's size.
    """
    shape = tuple(images.shape[1:])
    where = f"{predictors.device_words()}; input {shape[1]} × {shape[2]}{remark}"
    entries = (counted(spec, network, shape) for spec, network in networks.items())
    state = BenchmarkState("Counted multiply-adds", 0.0, *entries, None, where)
    yield state
    inputs = dict.fromkeys(networks, images)
    state, runs = yield from same_engine(engines, inputs, REGIONS, state)
    state = yield from in_turns(predictors, runs, inputs, state, "single", DENSE, (0.0, 1.0))
    if state.engine == "eager":  # of others, what PyTorch holds says nothing
        state = with_peak_memory(predictors, networks, inputs, state)
    yield replace(state, stage="Done", progress=1.0)
