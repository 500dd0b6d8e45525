"""Frozen results that travel from the engine to the drawings and the page. Validated on construction."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stvit.class_names import COCO_CLASSES
from stvit.detection import Detections


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
class ClusterMap:
    """The image regions that the semantic tokens of one layer stand for.

    Attributes:
        unit: 1-based dumbbell unit.
        layer: name of the layer, e.g. ``"STGM 1"``.
        semantic_grid_hw: rows and columns of the semantic-token grid.
        image_grid_hw: rows and columns of the image-token grid.
        assignment: (h, w) int16, index of the semantic token that each image token belongs to.
        attention: (M, h, w) float32, each token's head-averaged attention over the image tokens.
    """

    unit: int
    layer: str
    semantic_grid_hw: tuple[int, int]
    image_grid_hw: tuple[int, int]
    assignment: np.ndarray
    attention: np.ndarray

    def __post_init__(self) -> None:
        num_tokens = self.semantic_grid_hw[0] * self.semantic_grid_hw[1]
        if self.assignment.shape != self.image_grid_hw:
            raise ValueError(f"assignment is {self.assignment.shape}, the image grid {self.image_grid_hw}")
        if self.attention.shape != (num_tokens, *self.image_grid_hw):
            raise ValueError(f"attention is {self.attention.shape}, expected {(num_tokens, *self.image_grid_hw)}")
        if self.assignment.min() < 0 or self.assignment.max() >= num_tokens:
            raise ValueError(f"assignment names tokens outside [0, {num_tokens})")


@dataclass(frozen=True)
class ReductionMap:
    """What has become of every image token by the end of one layer of a network that drops, fuses or merges them.

    Attributes:
        layer: name of the layer, e.g. ``"Layer 4"``.
        image_grid_hw: rows and columns of the image-token grid.
        assignment: (h, w) int16, number of the token that stands for each image token now, -1 where it was dropped.
        group_sizes: (T,) int64, how many image tokens each of the layer's tokens stands for.
        one_colour: whether all tokens that stand for several are drawn alike (EViT fuses into one) or each in a colour
            of its own (ToMe merges into many).
        unit: always 0: these networks have no units.
    """

    layer: str
    image_grid_hw: tuple[int, int]
    assignment: np.ndarray
    group_sizes: np.ndarray
    one_colour: bool
    unit: int = 0

    def __post_init__(self) -> None:
        if self.assignment.shape != self.image_grid_hw:
            raise ValueError(f"assignment is {self.assignment.shape}, the image grid {self.image_grid_hw}")
        if self.assignment.min() < -1 or self.assignment.max() >= len(self.group_sizes):
            raise ValueError(f"assignment names tokens outside [-1, {len(self.group_sizes)})")

    @property
    def num_tokens(self) -> int:
        """Tokens that go on from this layer, a class token left out."""
        return len(self.group_sizes)

    def together(self) -> np.ndarray:
        """(h, w) bool: image tokens that share their token with others."""
        return (self.assignment >= 0) & (self.group_sizes[self.assignment] > 1)


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
        clusters: one entry per layer that ties semantic tokens to image regions; empty for models without them.
        device: device and precision in words, e.g. ``"CPU, bfloat16"``.
        model_ms: wall-clock time of the traced forward pass.
        reductions: one entry per layer of a model that drops, fuses or merges image tokens; empty for others.
    """

    model: str
    predictions: tuple[Prediction, ...]
    weights: str
    clusters: tuple[ClusterMap, ...]
    device: str
    model_ms: float
    reductions: tuple[ReductionMap, ...] = ()

    @property
    def maps(self) -> tuple[ClusterMap, ...] | tuple[ReductionMap, ...]:
        """All that can be drawn on the picture, in order of execution; empty for full-token models."""
        return self.clusters or self.reductions


@dataclass(frozen=True)
class RegionMap:
    """The image regions that the semantic tokens of one layer of a dense backbone stand for.

    Attributes:
        unit: 1-based dumbbell unit.
        layer: name of the layer, e.g. ``"STGM 1"``.
        semantic_grid_hw: rows and columns of the semantic-token grid.
        image_grid_hw: rows and columns of the image-token grid, which covers the padded input.
        assignment: (h, w) int16, index of the semantic token that each image token belongs to.
    """

    unit: int
    layer: str
    semantic_grid_hw: tuple[int, int]
    image_grid_hw: tuple[int, int]
    assignment: np.ndarray

    def __post_init__(self) -> None:
        if self.assignment.shape != self.image_grid_hw:
            raise ValueError(f"assignment is {self.assignment.shape}, the image grid {self.image_grid_hw}")
        if self.assignment.min() < 0 or self.assignment.max() >= self.num_tokens:
            raise ValueError(f"assignment names tokens outside [0, {self.num_tokens})")

    @property
    def num_tokens(self) -> int:
        return self.semantic_grid_hw[0] * self.semantic_grid_hw[1]


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
    regions: tuple[RegionMap, ...]
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
    regions: tuple[RegionMap, ...]
    device: str
    network_hw: tuple[int, int]
    labelled_side: int
    times: SegmentationTimes

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.max() >= len(self.classes):
            raise ValueError(f"labels name classes outside [0, {len(self.classes)})")
