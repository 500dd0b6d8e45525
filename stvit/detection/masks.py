"""Masks from boxes to images."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

MASK_THRESHOLD = 0.5


def mask_in_image(
    probabilities: Tensor, box: Tensor, image_hw: tuple[int, int], threshold: float = MASK_THRESHOLD
) -> tuple[Tensor, tuple[int, int]]:
    """One object's mask, only as large as its box.

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
