"""One segmentation: a file in, a frozen result out, with the time of every step; and two segmenters in turns."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from demo.backbone_benchmark import in_turns
from demo.benchmark import RaceState
from demo.detection import Stopwatch
from demo.engine import Engine
from demo.media import SourceImage, read_image
from demo.memory import first_that_fits
from demo.model_cache import LoadedModel
from demo.registry import ModelSpec
from stvit.detection import preprocess
from stvit.predict.regions import region_layers, regions_of
from stvit.predict.results import SegmentationResult, SegmentationTimes
from stvit.segmentation import UperNet, label_map
from stvit.segmentation.inference import scaled_hw
from stvit.segmentation.losses import resize

LABEL_SIDES = (4096, 2048, 1024, 512)  # of the map of classes, where there is no memory for one of the picture's size


@dataclass(frozen=True)
class SegmentRun:
    """A picture and what a segmenter says about it."""

    source: SourceImage
    result: SegmentationResult


@dataclass(frozen=True)
class ClassArea:
    """How much of a picture belongs to one class.

    Attributes:
        label: number of the class.
        name: of the class.
        pixels: that belong to it.
        share: of all pixels, in (0, 1].
    """

    label: int
    name: str
    pixels: int
    share: float


def segment_file(engine: Engine, path: str | Path, segmenter: ModelSpec) -> SegmentRun:
    """The class of every pixel of an image file.

    Raises:
        MediaError: the file cannot be read as an image.
        OutOfMemory: not even the smallest map fits.
    """
    start = time.perf_counter()
    source = read_image(path)
    decode_ms = (time.perf_counter() - start) * 1e3
    result = segment(engine, source.pixels, segmenter)
    return SegmentRun(source, replace(result, times=replace(result.times, decode_ms=decode_ms)))


def segment(engine: Engine, pixels: np.ndarray, segmenter: ModelSpec) -> SegmentationResult:
    """The class of every pixel of a picture, (H, W, 3) uint8 RGB; in coarser steps where memory is short.

    Raises:
        OutOfMemory: not even the smallest map fits.
    """
    loaded = engine.store.get(segmenter)
    longest = max(pixels.shape[:2])
    if engine.first_use(loaded.network):
        _segment_at(engine, loaded, pixels, 1)
    sides = (longest, *(side for side in LABEL_SIDES if side < longest))
    return first_that_fits(sides, lambda side: _segment_at(engine, loaded, pixels, side), engine.device)[1]


def _segment_at(engine: Engine, loaded: LoadedModel, pixels: np.ndarray, side: int) -> SegmentationResult:
    return engine.compute.run(_all_steps, engine, loaded, pixels, side)


def _all_steps(engine: Engine, loaded: LoadedModel, pixels: np.ndarray, side: int) -> SegmentationResult:
    """All steps, with a map of classes of one size. The backbone first runs with its trace, which is drawn; that pass
    is not timed."""
    network: UperNet = loaded.network
    spec, source_hw = loaded.spec, pixels.shape[:2]
    watch = Stopwatch(engine.device)
    images = prepare(engine, pixels, spec.input_size)
    prepare_ms = watch.lap()
    _, trace = network.backbone(images, return_trace=True)
    regions = tuple(regions_of(layer)[0] for layer in region_layers(trace))
    del trace
    watch.lap()
    maps = network.backbone(images)
    backbone_ms = watch.lap()
    scores = resize(network.head(maps), tuple(images.shape[2:])).float()
    head_ms = watch.lap()
    labels = label_map(scores, scaled_hw(source_hw, (side, side)))[0].byte().cpu().numpy()
    if labels.shape != source_hw:
        labels = cv2.resize(labels, source_hw[::-1], interpolation=cv2.INTER_NEAREST)
    labels_ms = watch.lap()
    return SegmentationResult(
        model=spec.name,
        labels=None if loaded.problem else labels,
        classes=spec.classes,
        weights=f"{loaded.problem} {loaded.next_step}".strip() or loaded.weights,
        regions=regions,
        device=engine.device_words(),
        network_hw=tuple(images.shape[2:]),
        labelled_side=side,
        times=SegmentationTimes(0.0, prepare_ms, backbone_ms, head_ms, labels_ms),
    )


def prepare(engine: Engine, pixels: np.ndarray, side: int) -> Tensor:
    """A segmenter's input (1, 3, h, w), on the device and in its precision: the picture with ``side`` as its longest.

    As :meth:`stvit.segmentation.UperNet.predict` makes it, but resized in whole numbers before it is normalised, so
    that no large picture is ever held as real numbers.
    """
    prepared = preprocess.prepare(pixels, (side, side), engine.device)
    height, width = prepared.network_hw
    return prepared.images[..., :height, :width].to(engine.precision).contiguous()


def class_areas(result: SegmentationResult) -> tuple[ClassArea, ...]:
    """The classes that are in a picture, largest first.

    Raises:
        ValueError: there are no labels, for want of weights.
    """
    if result.labels is None:
        raise ValueError(f"nothing is labelled: {result.weights}")
    pixels = [int(np.count_nonzero(result.labels == label)) for label in range(len(result.classes))]
    areas = [
        ClassArea(label, result.classes[label], number, number / result.labels.size)
        for label, number in enumerate(pixels)
        if number
    ]
    return tuple(sorted(areas, key=lambda area: -area.pixels))


def race_segmenters(engine: Engine, path: str | Path, model: ModelSpec, baseline: ModelSpec) -> Iterator[RaceState]:
    """Measure two segmenters as wholes, interleaved, on one picture at a time.

    Raises:
        MediaError: the file cannot be read as an image.
        OutOfMemory: one of them does not fit.
    """
    pixels = read_image(path).pixels
    networks = {spec: engine.store.get(spec).network for spec in (model, baseline)}

    def run_once(side: int) -> Tensor:
        images = prepare(engine, pixels, side)
        for network in networks.values():
            network(images)
        return images

    _, images = first_that_fits((model.input_size,), partial(engine.compute.run, run_once), engine.device)
    yield from in_turns(engine, networks, images, "Both segmenters in turns")
