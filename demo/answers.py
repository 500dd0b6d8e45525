"""Results of the page: a predictor's result with the model that gave it, its weights, its device, its times."""

from __future__ import annotations

from dataclasses import dataclass

from stvit.predict.results import Classification, DetectionResult, SegmentationResult


@dataclass(frozen=True)
class Times:
    """Durations of consecutive steps, in milliseconds; the device is at rest around every one."""

    @property
    def total_ms(self) -> float:
        return sum(vars(self).values())


@dataclass(frozen=True)
class StageTimes(Times):
    """Where the time of one classification went."""

    decode_ms: float
    preprocess_ms: float
    model_ms: float
    draw_ms: float


@dataclass(frozen=True)
class DetectionTimes(Times):
    """Where the time of one detection went."""

    decode_ms: float
    prepare_ms: float
    backbone_ms: float
    proposals_ms: float
    heads_ms: float
    masks_ms: float
    draw_ms: float = 0.0


@dataclass(frozen=True)
class SegmentationTimes(Times):
    """Where the time of one segmentation went."""

    decode_ms: float
    prepare_ms: float
    model_ms: float
    labels_ms: float
    draw_ms: float = 0.0


@dataclass(frozen=True)
class ClassifyAnswer(Classification):
    """What one model says about one picture. Without weights there are no predictions: random ones predict nothing.

    Attributes:
        model: name of the model on the page.
        weights: where the weights came from, or why there are none.
        device: device and precision, e.g. ``"NVIDIA H200, bfloat16"``.
        model_ms: of the traced forward pass.
    """

    model: str
    weights: str
    device: str
    model_ms: float


@dataclass(frozen=True)
class DetectAnswer(DetectionResult):
    """What a detector says about one picture.

    Attributes:
        model, weights, device: as of a :class:`ClassifyAnswer`.
        asked_short_side: of the input, as the visitor chose it, pixels.
        short_side: what there was memory for.
        proposals: most regions that the heads looked at, and most by the detector's own setting.
        times: without drawing.
    """

    model: str
    weights: str
    device: str
    asked_short_side: int
    short_side: int
    proposals: tuple[int, int]
    times: DetectionTimes


@dataclass(frozen=True)
class SegmentAnswer(SegmentationResult):
    """What a segmenter says about one picture.

    Attributes:
        model, weights, device: as of a :class:`ClassifyAnswer`.
        times: without drawing.
    """

    model: str
    weights: str
    device: str
    times: SegmentationTimes
