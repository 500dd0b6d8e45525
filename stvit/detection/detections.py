"""What a detector returns."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .masks import paste_masks


@dataclass(frozen=True)
class Detections:
    """The objects found in one image, best first.

    Attributes:
        boxes: (N, 4) float32, XYXY in source pixels.
        scores: (N,) float32 in (0, 1].
        labels: (N,) int64, numbers of the classes, from 0.
        mask_probabilities: (N, 28, 28) float32 in [0, 1], cells of each box.
        image_hw: size of the source image.

    Raises:
        ValueError: lengths or shapes that do not fit each other.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probabilities: Tensor
    image_hw: tuple[int, int]

    def __post_init__(self) -> None:
        N = len(self.boxes)
        if self.boxes.shape != (N, 4) or self.scores.shape != (N,) or self.labels.shape != (N,):
            shapes = [tuple(t.shape) for t in (self.boxes, self.scores, self.labels)]
            raise ValueError(f"boxes, scores and labels do not belong together: {shapes}")
        if self.mask_probabilities.ndim != 3 or len(self.mask_probabilities) != N:
            raise ValueError(f"expected {N} masks, not {tuple(self.mask_probabilities.shape)}")

    def __len__(self) -> int:
        return len(self.boxes)

    def masks(self) -> Tensor:
        """(N, H, W) bool at the size of the source image."""
        return paste_masks(self.mask_probabilities, self.boxes, self.image_hw)

    def select(self, keep: Tensor) -> Detections:
        """Those that an index or a bool tensor (N,) names."""
        return Detections(
            self.boxes[keep], self.scores[keep], self.labels[keep], self.mask_probabilities[keep], self.image_hw
        )
