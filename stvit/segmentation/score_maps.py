"""Maps of class scores: the loss, and label maps by sliding windows, several scales and flips.

Works on normalised images (B, 3, H, W) and on any network that turns them into logits (B, K, H, W).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORE_INDEX = 255  # label of pixels that no class is known for


def resize(maps: Tensor, hw: tuple[int, int]) -> Tensor:
    """(B, C, h, w) -> (B, C, H, W), bilinear between pixel centres."""
    return maps if tuple(maps.shape[-2:]) == hw else F.interpolate(maps, hw, mode="bilinear", align_corners=False)


def segmentation_loss(logits: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of every pixel, averaged over all of them; pixels to ignore contribute zero but are counted.

    That they are counted follows mmsegmentation 0.x, which the paper's models were trained with: an image with half of
    its pixels unlabelled weighs half, and one without any label has the loss 0 instead of 0 / 0.

    Args:
        logits: (B, K, h, w); resized to the labels' size.
        labels: (B, H, W) int64, classes from 0 to K - 1, or ``IGNORE_INDEX``.
        class_weights: (K,), what a pixel of each class counts; 1 for all by default.

    Raises:
        ValueError: labels of another shape, type or range.
    """
    num_classes = logits.shape[1]
    if labels.ndim != 3 or len(labels) != len(logits) or labels.is_floating_point():
        raise ValueError(
            f"labels must be whole numbers of shape ({len(logits)}, H, W), not {labels.dtype} {tuple(labels.shape)}"
        )
    labels = labels.long()
    if ((labels < 0) | ((labels >= num_classes) & (labels != IGNORE_INDEX))).any():
        raise ValueError(
            f"labels reach from {labels.min()} to {labels.max()}; expected 0 to {num_classes - 1}, or {IGNORE_INDEX} "
            "for pixels to ignore. Where files keep 0 for unlabelled pixels, as ADE20K does, subtract 1 first"
        )
    logits = resize(logits.float(), tuple(labels.shape[-2:]))
    total = F.cross_entropy(logits, labels, class_weights, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / labels.numel()


#: factors of the published multi-scale evaluation (Table 14)
PUBLISHED_RATIOS = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
CLASSES_AT_ONCE = 16  # resized to the source's size together, so that memory does not grow with the number of classes


@dataclass(frozen=True)
class SlidingWindow:
    """Square crops of ``crop`` pixels, one every ``stride`` pixels; those at the far edges are moved inside.

    Raises:
        ValueError: crops that would leave pixels uncovered.
    """

    crop: int = 512
    stride: int = 341

    def __post_init__(self) -> None:
        if not 1 <= self.stride <= self.crop:
            raise ValueError(f"stride must be from 1 to the crop's {self.crop} pixels to cover all, not {self.stride}")

    def spans(self, length: int) -> list[tuple[int, int]]:
        """Start and stop of every crop along an axis; one that covers the axis if the axis is no longer than a crop."""
        steps = -(-max(length - self.crop, 0) // self.stride)
        stops = [min(i * self.stride + self.crop, length) for i in range(steps + 1)]
        return [(max(stop - self.crop, 0), stop) for stop in stops]


def sliding_logits(network: Callable[[Tensor], Tensor], images: Tensor, window: SlidingWindow | None = None) -> Tensor:
    """Run the network on overlapping crops and average the logits where crops overlap.

    Args:
        network: normalised images -> logits of the same height and width.
        images: (B, 3, H, W).
        window: crops of 512 pixels every 341 by default.

    Returns:
        Logits (B, K, H, W).
    """
    window = window or SlidingWindow()
    H, W = images.shape[-2:]
    total, count = None, images.new_zeros(H, W)
    for top, bottom in window.spans(H):
        for left, right in window.spans(W):
            logits = network(images[:, :, top:bottom, left:right])
            if total is None:
                total = logits.new_zeros(*logits.shape[:2], H, W)
            total[:, :, top:bottom, left:right] += logits
            count[top:bottom, left:right] += 1
    return total / count


def average_probabilities(
    network: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    ratios: Sequence[float] = (1.0,),
    flip: bool = False,
    base_hw: tuple[int, int] | None = None,
) -> Tensor:
    """Class probabilities, averaged over resized and mirrored copies of the images.

    Args:
        network: normalised images -> logits of the same height and width.
        images: (B, 3, H, W); every copy is resized from these (without antialiasing, as in the published evaluation),
            so that no detail is lost for ratios above 1.
        ratios: the copies' sizes in units of ``base_hw``.
        flip: also run every copy mirrored left to right.
        base_hw: size of the copy of ratio 1 and of the result; that of the images by default.

    Returns:
        Probabilities (B, K, *base_hw).

    Raises:
        ValueError: no ratio, or one that is not positive.
    """
    if not ratios or min(ratios) <= 0:
        raise ValueError(f"ratios must be positive numbers, at least one: {tuple(ratios)}")
    base_hw = base_hw or tuple(images.shape[-2:])
    total, runs = 0, 0
    for ratio in ratios:
        copy = resize(images, tuple(max(int(side * ratio + 0.5), 1) for side in base_hw))
        for mirrored in (False, True) if flip else (False,):
            logits = network(copy.flip(-1)).flip(-1) if mirrored else network(copy)
            total = total + resize(logits.float(), base_hw).softmax(dim=1)
            runs += 1
    return total / runs


def label_map(scores: Tensor, hw: tuple[int, int]) -> Tensor:
    """The best class of every pixel after resizing the scores: (B, K, h, w) -> (B, H, W) int64.

    Classes are resized a few at a time: 150 of them at 12 megapixels would take 7 GB.
    """
    best, labels = None, None
    for first in range(0, scores.shape[1], CLASSES_AT_ONCE):
        highest, index = resize(scores[:, first : first + CLASSES_AT_ONCE], hw).max(dim=1)
        if best is None:
            best, labels = highest, index
        else:
            better = highest > best
            best = torch.where(better, highest, best)
            labels = torch.where(better, index + first, labels)
    return labels


def scaled_hw(source_hw: tuple[int, int], scale: tuple[int, int]) -> tuple[int, int]:
    """Height and width of an image resized, proportions kept, as far as the bounds of its long and short side allow.

    Raises:
        ValueError: a bound below one pixel.
    """
    if min(scale) < 1:
        raise ValueError(f"the scale bounds the long and the short side in pixels, so {scale} is too small")
    long, short = max(scale), min(scale)
    factor = min(long / max(source_hw), short / min(source_hw))
    return tuple(max(int(side * factor + 0.5), 1) for side in source_hw)
