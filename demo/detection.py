"""One detection: a file in, a frozen result out, with the time of every step."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from demo.engine import Engine
from demo.media import SourceImage, read_image
from demo.memory import first_that_fits
from demo.model_cache import LoadedModel
from demo.registry import ModelSpec
from stvit.class_names import COCO_CLASSES
from stvit.detection import CascadeMaskRCNN, Detections
from stvit.detection.preprocess import PreparedImage
from stvit.predict.regions import region_layers, regions_of
from stvit.predict.results import DetectionResult, DetectionTimes

SHORT_SIDES = (800, 640, 480, 320)  # the first as published
PUBLISHED_SCALE = (1333, 800)
SCORE_THRESHOLD = 0.05  # as published; what is shown of it is chosen in the browser
WARMUP_SIDE = 64


class BadSize(ValueError):
    """An input size that is not offered; the message is for the user."""


@dataclass(frozen=True)
class DetectRun:
    """A picture and what a detector says about it."""

    source: SourceImage
    result: DetectionResult


def scale_of(short_side: int) -> tuple[int, int]:
    """The longest and the shortest side that the resized picture may have, in the published proportion."""
    long, short = PUBLISHED_SCALE
    return round(short_side * long / short), short_side


def check_short_side(value: object) -> int:
    """``value`` as one of ``SHORT_SIDES``.

    Raises:
        BadSize: anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value in SHORT_SIDES:
        return value
    offered = ", ".join(map(str, SHORT_SIDES))
    raise BadSize(f"An input size of {str(value)[:20]!r} is not offered. Choose one of {offered}.")


def input_side(detector: ModelSpec, short_side: int) -> int:
    """The short side of a detector's input: the chosen one, but for bundled detectors, which know objects of the sizes
    that they were trained on and no others."""
    return detector.input_size if detector.bundled else short_side


def detect_file(engine: Engine, path: str | Path, detector: ModelSpec, short_side: int) -> DetectRun:
    """The objects in an image file.

    Raises:
        MediaError: the file cannot be read as an image.
        BadSize: the size is not offered.
        OutOfMemory: not even the smallest size fits.
    """
    short_side = input_side(detector, check_short_side(short_side))
    start = time.perf_counter()
    source = read_image(path)
    decode_ms = (time.perf_counter() - start) * 1e3
    result = detect(engine, source.pixels, detector, short_side)
    return DetectRun(source, replace(result, times=replace(result.times, decode_ms=decode_ms)))


def detect(engine: Engine, pixels: np.ndarray, detector: ModelSpec, short_side: int) -> DetectionResult:
    """The objects in a picture, (H, W, 3) uint8 RGB; at a smaller size where the device has not enough memory.

    Raises:
        OutOfMemory: not even the smallest size fits.
    """
    loaded = engine.store.get(detector)
    if engine.first_use(loaded.network):
        _detect_at(engine, loaded, np.zeros((WARMUP_SIDE, WARMUP_SIDE, 3), np.uint8), WARMUP_SIDE)
    _, result = first_that_fits(
        sizes_from(short_side), lambda side: _detect_at(engine, loaded, pixels, side), engine.device
    )
    return replace(result, asked_short_side=short_side)


def sizes_from(short_side: int) -> tuple[int, ...]:
    """The sizes to try: the chosen one, then smaller ones."""
    return (short_side, *(side for side in SHORT_SIDES if side < short_side))


def _detect_at(engine: Engine, loaded: LoadedModel, pixels: np.ndarray, short_side: int) -> DetectionResult:
    return engine.compute.run(_all_steps, engine, loaded, pixels, short_side)


def _all_steps(engine: Engine, loaded: LoadedModel, pixels: np.ndarray, short_side: int) -> DetectionResult:
    """All steps at one size. The backbone first runs with its trace, which is drawn; that pass is not timed."""
    detector: CascadeMaskRCNN = loaded.network
    watch = Stopwatch(engine.device)
    prepared = prepare(detector, pixels, short_side, engine.precision)
    prepare_ms = watch.lap()
    _, trace = detector.backbone(prepared.images, return_trace=True)
    regions = tuple(regions_of(layer)[0] for layer in region_layers(trace))
    del trace
    watch.lap()
    features = detector.extract_features(prepared.images)
    backbone_ms = watch.lap()
    proposals = detector.propose(features, prepared.network_hw)
    proposals_ms = watch.lap()
    boxes, scores, labels = detector.classify(features, proposals, prepared, SCORE_THRESHOLD)
    heads_ms = watch.lap()
    masks = detector.segment(features, boxes, labels, prepared)
    masks_ms = watch.lap()
    found = Detections(boxes.cpu(), scores.cpu(), labels.cpu(), masks.cpu(), prepared.source_hw)
    return DetectionResult(
        model=loaded.spec.name,
        found=None if loaded.problem else found,
        weights=f"{loaded.problem} {loaded.next_step}".strip() or loaded.weights,
        regions=regions,
        device=engine.device_words(),
        asked_short_side=short_side,
        short_side=short_side,
        network_hw=prepared.network_hw,
        padded_hw=tuple(prepared.images.shape[2:]),
        classes=loaded.spec.classes or COCO_CLASSES,
        times=DetectionTimes(0.0, prepare_ms, backbone_ms, proposals_ms, heads_ms, masks_ms),
    )


def prepare(detector: CascadeMaskRCNN, pixels: np.ndarray, short_side: int, precision: torch.dtype) -> PreparedImage:
    """The detector's input for one size, in the precision of its weights."""
    prepared = detector.prepare(pixels, scale_of(short_side))
    return replace(prepared, images=prepared.images.to(precision))


class Stopwatch:
    """Milliseconds between laps; the device is at rest at every one."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._last = self._now()

    def lap(self) -> float:
        before, self._last = self._last, self._now()
        return (self._last - before) * 1e3

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
