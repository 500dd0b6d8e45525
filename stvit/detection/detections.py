"""What a detector returns, and its masks pasted into the image."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

MASK_THRESHOLD = 0.5
SHOWN_SCORE = 0.5  # of objects that are drawn, tracked and told by default; the page's slider starts there


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

    def cpu(self) -> Detections:
        """The detections in the CPU's memory."""
        tensors = (self.boxes, self.scores, self.labels, self.mask_probabilities)
        return Detections(*(tensor.cpu() for tensor in tensors), self.image_hw)

    def select(self, keep: Tensor) -> Detections:
        """Keep the detections that an index or a bool tensor (N,) names."""
        return Detections(
            self.boxes[keep], self.scores[keep], self.labels[keep], self.mask_probabilities[keep], self.image_hw
        )


def mask_in_image(
    probabilities: Tensor, box: Tensor, image_hw: tuple[int, int], threshold: float = MASK_THRESHOLD
) -> tuple[Tensor, tuple[int, int]]:
    """Resample one object's mask to pixels, only as large as its box.

    Every pixel centre is looked up in the probabilities bilinearly; nothing is rounded to whole pixels first.

    Args:
        probabilities: (m, m), cells of the box.
        box: (4,) XYXY in pixels of the image.
        image_hw: the image's size.
        threshold: lower bound, inclusive.

    Returns:
        (h, w) bool and the row and column of its first pixel; empty for a box outside of the image.
    """
    H, W = image_hw
    x0, y0, x1, y1 = box.tolist()
    left, top = max(int(x0 // 1) - 1, 0), max(int(y0 // 1) - 1, 0)
    right, bottom = min(int(-(-x1 // 1)) + 1, W), min(int(-(-y1 // 1)) + 1, H)
    if right <= left or bottom <= top:
        return torch.zeros(0, 0, dtype=torch.bool, device=box.device), (0, 0)

    def cells(first: int, last: int, start: Tensor, end: Tensor) -> Tensor:
        """Where pixel centres lie between the box's sides, -1 to 1; in the middle of a box without extent."""
        centres = torch.arange(first, last, dtype=box.dtype, device=box.device) + 0.5
        place = (centres - start) / (end - start) * 2 - 1
        return torch.where(place.isfinite(), place, 0.0)

    y, x = cells(top, bottom, box[1], box[3]), cells(left, right, box[0], box[2])
    grid = torch.stack([x.expand(len(y), -1), y[:, None].expand(-1, len(x))], dim=-1)
    sampled = F.grid_sample(probabilities[None, None].to(box.dtype), grid[None], align_corners=False)
    return sampled[0, 0] >= threshold, (top, left)


def paste_masks(
    probabilities: Tensor, boxes: Tensor, image_hw: tuple[int, int], threshold: float = MASK_THRESHOLD
) -> Tensor:
    """(N, m, m) probabilities inside boxes (N, 4) -> (N, H, W) bool; see :func:`mask_in_image`."""
    whole = torch.zeros(len(boxes), *image_hw, dtype=torch.bool, device=boxes.device)
    for canvas, cells, box in zip(whole, probabilities, boxes, strict=True):
        mask, (top, left) = mask_in_image(cells, box, image_hw, threshold)
        canvas[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    return whole
