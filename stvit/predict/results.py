"""Frozen results that travel from the engine to the drawings and the page. Validated on construction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stvit.class_names import COCO_CLASSES
from stvit.detection import Detections

from .regions import TokenRegions


@dataclass(frozen=True)
class Prediction:
    """One class and its softmax probability in [0, 1]."""

    index: int
    label: str
    probability: float

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"a probability lies in [0, 1], not {self.probability}")


@dataclass(frozen=True)
class Times:
    """Durations of consecutive steps, in milliseconds."""

    @property
    def total_ms(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class StageTimes(Times):
    """Where the time of one request went, in milliseconds."""

    decode_ms: float
    preprocess_ms: float
    model_ms: float
    draw_ms: float


@dataclass(frozen=True)
class Classification:
    """What one model says about one image.

    Attributes:
        model: name in the roster, e.g. ``"stvit_r_swin_small_224"``.
        predictions: best first; empty when no weights were to be had, because random weights predict nothing.
        weights: where the weights came from, in words, or why there are none.
        regions: of every layer whose tokens stand for regions, in order of execution; empty for full-token models.
        device: device and precision in words, e.g. ``"CPU, bfloat16"``.
        model_ms: wall-clock time of the traced forward pass.
    """

    model: str
    predictions: tuple[Prediction, ...]
    weights: str
    regions: tuple[TokenRegions, ...]
    device: str
    model_ms: float


@dataclass(frozen=True)
class DetectionTimes(Times):
    """Where the time of one detection went, in milliseconds; each step measured with the device at rest around it."""

    decode_ms: float
    prepare_ms: float
    backbone_ms: float
    proposals_ms: float
    heads_ms: float
    masks_ms: float
    draw_ms: float = 0.0


@dataclass(frozen=True)
class DetectionResult:
    """What a detector says about one picture.

    Attributes:
        model: name in the roster.
        found: the objects, on the CPU; ``None`` when no weights were to be had, because random weights find nothing.
        weights: where the weights came from, in words, or why there are none.
        regions: one entry per layer that ties semantic tokens to image regions.
        device: device and precision in words.
        asked_short_side: of the input, as the visitor chose it, pixels.
        short_side: what there was memory for.
        network_hw: size of the picture as the network sees it, without padding.
        padded_hw: size of the network's input.
        times: without drawing.
        classes: names of the labels.
    """

    model: str
    found: Detections | None
    weights: str
    regions: tuple[TokenRegions, ...]
    device: str
    asked_short_side: int
    short_side: int
    network_hw: tuple[int, int]
    padded_hw: tuple[int, int]
    times: DetectionTimes
    classes: tuple[str, ...] = COCO_CLASSES


@dataclass(frozen=True)
class SegmentationTimes(Times):
    """Where the time of one segmentation went, in milliseconds; the device is at rest around every step."""

    decode_ms: float
    prepare_ms: float
    backbone_ms: float
    head_ms: float
    labels_ms: float
    draw_ms: float = 0.0


@dataclass(frozen=True)
class SegmentationResult:
    """What a segmenter says about one picture, of (H, W) pixels.

    Attributes:
        model: name in the roster.
        labels: (H, W) uint8, the class of every pixel; ``None`` when no weights were to be had.
        classes: their names, background first.
        weights, regions, device: as of a :class:`DetectionResult`; a full-token model has no regions.
        network_hw: size of the network's input.
        labelled_side: longest side of the map of classes when it was made; below the picture's where memory was short.
        times: without drawing.
    """

    model: str
    labels: np.ndarray | None
    classes: tuple[str, ...]
    weights: str
    regions: tuple[TokenRegions, ...]
    device: str
    network_hw: tuple[int, int]
    labelled_side: int
    times: SegmentationTimes

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.max() >= len(self.classes):
            raise ValueError(f"labels name classes outside [0, {len(self.classes)})")
