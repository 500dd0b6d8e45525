"""The loss of a map of class scores, as the published configuration has it."""

from __future__ import annotations

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
