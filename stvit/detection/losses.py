"""The losses of the detector as functions of tensors, as in the published configuration.

Boxes are XYXY in pixels of the network's input. P counts positive samples, S all samples of a batch. Every loss is a
scalar that keeps its graph where nothing is sampled, so that each parameter still gets a gradient, of zeros.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss, roi_align

SMOOTH_L1_BETA = 1 / 9
GIOU_WEIGHT = 10.0


def objectness_loss(logits: Tensor, is_object: Tensor, normaliser: int) -> Tensor:
    """Binary cross-entropy of the region proposal network.

    Args:
        logits: (S,) of the sampled anchors.
        is_object: (S,) bool.
        normaliser: what the sum over the samples is divided by.
    """
    return F.binary_cross_entropy_with_logits(logits, is_object.to(logits.dtype), reduction="sum") / normaliser


def delta_loss(deltas: Tensor, target_deltas: Tensor, normaliser: int) -> Tensor:
    """Smooth L1 loss of the region proposal network's box deltas.

    Args:
        deltas: (P, 4) of the positive anchors.
        target_deltas: (P, 4), their ground-truth boxes, encoded.
        normaliser: what the sum over anchors and coordinates is divided by: samples, not positive samples.
    """
    return F.smooth_l1_loss(deltas, target_deltas, beta=SMOOTH_L1_BETA, reduction="sum") / normaliser


def classification_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy over classes and background, averaged over the samples.

    Args:
        logits: (S, classes + 1).
        labels: (S,) int64.
    """
    return F.cross_entropy(logits, labels, reduction="sum") / max(len(labels), 1)


def box_loss(boxes: Tensor, target_boxes: Tensor, normaliser: int) -> Tensor:
    """GIoU loss of the decoded boxes, times ten.

    Args:
        boxes: (P, 4), decoded with the deltas of the ground-truth class.
        target_boxes: (P, 4).
        normaliser: what the sum over the positive samples is divided by: samples, not positive samples.
    """
    return GIOU_WEIGHT * generalized_box_iou_loss(boxes, target_boxes, reduction="sum") / max(normaliser, 1)


def mask_loss(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Binary cross-entropy of the masks of the ground-truth classes, averaged over samples and pixels.

    Args:
        logits: (P, classes, h, w).
        labels: (P,) int64.
        targets: (P, h, w), 0 or 1.
    """
    own = logits[torch.arange(len(labels), device=logits.device), labels]
    return F.binary_cross_entropy_with_logits(own, targets.to(own.dtype), reduction="sum") / max(own.numel(), 1)


def crop_masks(masks: Tensor, boxes: Tensor, matched: Tensor, size_hw: tuple[int, int] = (28, 28)) -> Tensor:
    """Mask targets: the ground-truth masks within the boxes, resampled by RoIAlign and cut at one half.

    Args:
        masks: (K, H, W) bool, ground truth.
        boxes: (P, 4).
        matched: (P,) int64, index of each box's mask.

    Returns:
        (P, h, w) bool.
    """
    if not len(boxes):
        return masks.new_zeros((0, *size_hw), dtype=torch.bool)
    rois = torch.cat([matched[:, None].to(boxes.dtype), clip_boxes_to_image(boxes, masks.shape[-2:])], dim=1)
    shares = roi_align(masks[:, None].to(boxes.dtype), rois, size_hw, sampling_ratio=0, aligned=True)
    return shares[:, 0] >= 0.5
