"""What predictors return: frozen, validated on construction, on the CPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from stvit.detection import Detections

from .preprocess import InputGeometry
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
class Classification:
    """What a classifier says about one picture.

    Attributes:
        predictions: best first.
        regions: of the layers that were asked for, in order of execution; empty for full-token models.
        geometry: which part of the picture the network saw, and the way back to its pixels.
        engine: that ran the network.
        scope_score: below 0 where the picture seems to show none of the classes; ``None`` where the model cannot tell.
    """

    predictions: tuple[Prediction, ...]
    regions: tuple[TokenRegions, ...]
    geometry: InputGeometry
    engine: str
    scope_score: float | None

    @property
    def in_scope(self) -> bool:
        """Whether the predictions are an answer, as far as the model can tell."""
        return self.scope_score is None or self.scope_score >= 0


@dataclass(frozen=True)
class DetectionResult:
    """What a detector says about one picture.

    Attributes:
        found: the objects; ``None`` where only the backbone was run, or where there are no weights.
        regions: of the backbone's layers that were asked for; their grids cover the padded input.
        geometry: how the picture became the input: resized, then padded at the bottom and on the right.
        classes: names of the labels.
        engine: that ran backbone and feature pyramid.
        heads_engine: that ran box and mask heads, joined by "and" where they are several; empty where none ran.
    """

    found: Detections | None
    regions: tuple[TokenRegions, ...]
    geometry: InputGeometry
    classes: Sequence[str]
    engine: str
    heads_engine: str

    def __post_init__(self) -> None:
        if self.found is not None and len(self.found) and int(self.found.labels.max()) >= len(self.classes):
            raise ValueError(f"labels name classes outside [0, {len(self.classes)})")

    @property
    def network_hw(self) -> tuple[int, int]:
        """Size of the picture as the network sees it, without padding."""
        return self.geometry.resized_hw

    @property
    def padded_hw(self) -> tuple[int, int]:
        """Size of the network's input."""
        return self.geometry.input_hw


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


@dataclass(frozen=True)
class SegmentationResult:
    """What a segmenter says about one picture of (H, W) pixels.

    Attributes:
        labels: (H, W) uint8, the class of every pixel; ``None`` where there are no weights.
        classes: their names.
        regions: of the backbone's layers that were asked for.
        geometry: how the picture became the input; the grids of the regions reach to the next multiple of their stride.
        labelled_side: longest side of the map of classes when it was made; it may be smaller than the picture.
        engine: that ran backbone and head.
    """

    labels: np.ndarray | None
    classes: Sequence[str]
    regions: tuple[TokenRegions, ...]
    geometry: InputGeometry
    labelled_side: int
    engine: str

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.max() >= len(self.classes):
            raise ValueError(f"labels name classes outside [0, {len(self.classes)})")

    @property
    def network_hw(self) -> tuple[int, int]:
        """Size of the network's input."""
        return self.geometry.resized_hw

    def areas(self) -> tuple[ClassArea, ...]:
        """The classes that are in the picture, largest first.

        Raises:
            ValueError: nothing is labelled.
        """
        if self.labels is None:
            raise ValueError("nothing is labelled: there are no weights")
        pixels = np.bincount(self.labels.ravel(), minlength=len(self.classes)).tolist()
        size = self.labels.size
        areas = [ClassArea(i, self.classes[i], count, count / size) for i, count in enumerate(pixels) if count]
        return tuple(sorted(areas, key=lambda area: -area.pixels))


@dataclass(frozen=True)
class ClipClassification:
    """What a clip model says about one window of frames.

    Attributes:
        scores: (classes,) float32 probabilities.
        classes: their names.
        engine: that ran the network.
        regions: of the layer that is shown, one for every token frame; empty where they were not asked for, and for
            full-token models.
    """

    scores: np.ndarray
    classes: Sequence[str]
    engine: str
    regions: tuple[TokenRegions, ...] = ()
