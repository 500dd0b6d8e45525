"""Losses of the detector, as in the published configuration: Cascade Mask R-CNN on Swin with GIoU and "4conv1f" heads
(paper, section 4.3).

Boxes are XYXY in pixels of the network's input. P counts positive samples, S all samples of a batch. Every loss is a
scalar that keeps its graph where nothing is sampled, so that each parameter still gets a gradient, of zeros.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss, roi_align

from .assign import IGNORED, Matching, Samples, Sampling, assign, sample, sample_proposals
from .boxes import decode_deltas, encode_deltas
from .region_crops import RegionCrops
from .roi_heads import BOX_CELLS, MASK_CELLS, STAGE_STDS, CascadeRoIHead, with_image_number
from .rpn import STDS

SMOOTH_L1_BETA = 1 / 9
GIOU_WEIGHT = 10.0


@dataclass(frozen=True)
class DetectionTarget:
    """Ground truth of one image of a batch. Boxes are XYXY in network pixels.

    Attributes:
        boxes: (K, 4) float32, of positive width and height; K may be 0.
        labels: (K,) int64, numbers of the classes, from 0.
        masks: (K, H, W) bool; H and W are the image's size in the batch, without the padding at its bottom and right.
        ignore_boxes: (I, 4), crowds; they have an effect only where the rules give them one, the published ones do not.

    Raises:
        ValueError: shapes that do not fit each other.
    """

    boxes: Tensor
    labels: Tensor
    masks: Tensor
    ignore_boxes: Tensor | None = None

    def __post_init__(self) -> None:
        K = len(self.boxes)
        if self.boxes.shape != (K, 4) or self.labels.shape != (K,) or self.masks.ndim != 3 or len(self.masks) != K:
            shapes = [tuple(t.shape) for t in (self.boxes, self.labels, self.masks)]
            raise ValueError(f"expected boxes (K, 4), labels (K,) and masks (K, H, W), not {shapes}")

    @property
    def image_hw(self) -> tuple[int, int]:
        """Size of the image without its padding."""
        return tuple(self.masks.shape[-2:])

    def to(self, device: torch.device | str) -> DetectionTarget:
        """The same on another device."""
        ignored = None if self.ignore_boxes is None else self.ignore_boxes.to(device)
        moved = {"boxes": self.boxes.to(device), "labels": self.labels.to(device), "masks": self.masks.to(device)}
        return replace(self, ignore_boxes=ignored, **moved)


@dataclass(frozen=True)
class TrainingRules:
    """Which anchors and proposals learn from what.

    Attributes:
        anchor_matching, anchor_sampling: of the region proposal network; only anchors inside of the image take part.
        proposals: at most so many of a level take part in the suppression, and at most so many of an image go on.
        stage_matching, stage_weights: of the stages of the cascade; the weights are those of their losses.
        proposal_sampling: in every stage.
    """

    anchor_matching: Matching
    anchor_sampling: Sampling
    proposals: int
    stage_matching: tuple[Matching, ...]
    stage_weights: tuple[float, ...]
    proposal_sampling: Sampling


PUBLISHED = TrainingRules(
    anchor_matching=Matching(0.7, 0.3, low_quality_iou=0.3),
    anchor_sampling=Sampling(256, 0.5),
    proposals=2000,
    stage_matching=(Matching(0.5, 0.5), Matching(0.6, 0.6), Matching(0.7, 0.7)),
    stage_weights=(1.0, 0.5, 0.25),
    proposal_sampling=Sampling(512, 0.25),
)


def check_targets(images: Tensor, targets: Sequence[DetectionTarget], num_classes: int) -> None:
    """Check that targets fit the images and the detector's classes.

    Raises:
        ValueError: they do not.
    """
    if len(images) != len(targets):
        raise ValueError(f"there are {len(images)} images and {len(targets)} targets")
    for number, target in enumerate(targets):
        (H, W), (height, width) = images.shape[-2:], target.image_hw
        if height > H or width > W:
            raise ValueError(f"target {number} has masks of {height}x{width} pixels, but its image has {H}x{W}")
        if not (target.boxes[:, 2:] > target.boxes[:, :2]).all():
            raise ValueError(f"target {number} has boxes without width or height: leave out such objects")
        if len(target.labels) and not 0 <= target.labels.min() <= target.labels.max() < num_classes:
            labels = target.labels.unique().tolist()
            raise ValueError(f"target {number} has labels {labels}, the detector has classes 0 to {num_classes - 1}")


def proposal_losses(
    predictions: Sequence[tuple[Tensor, Tensor]],
    anchors: Sequence[Tensor],
    targets: Sequence[DetectionTarget],
    rules: TrainingRules,
) -> dict[str, Tensor]:
    """Losses of the region proposal network.

    Args:
        predictions: per level, logits (B, N_i) and deltas (B, N_i, 4).
        anchors: per level, (N_i, 4).
    """
    logits = torch.cat([level[0] for level in predictions], dim=1)
    deltas = torch.cat([level[1] for level in predictions], dim=1)
    all_anchors = torch.cat(list(anchors))
    sampled_logits, is_object, positive_deltas, target_deltas, normaliser = [], [], [], [], 0
    for i, target in enumerate(targets):
        assigned = assign_anchors(all_anchors, target, rules.anchor_matching)
        positive, background = sample(assigned, rules.anchor_sampling)
        sampled = torch.cat([positive, background])
        sampled_logits.append(logits[i, sampled])
        is_object.append(assigned[sampled] >= 0)
        positive_deltas.append(deltas[i, positive])
        target_deltas.append(encode_deltas(all_anchors[positive], target.boxes[assigned[positive]], STDS))
        normaliser += max(len(positive), 1) + max(len(background), 1)
    return {
        "loss_rpn_cls": objectness_loss(torch.cat(sampled_logits), torch.cat(is_object), normaliser),
        "loss_rpn_bbox": delta_loss(torch.cat(positive_deltas), torch.cat(target_deltas), normaliser),
    }


def assign_anchors(anchors: Tensor, target: DetectionTarget, rule: Matching) -> Tensor:
    """(N,) as :func:`~stvit.detection.assign.assign`; anchors that reach beyond the image are ignored."""
    H, W = target.image_hw
    inside = (anchors[:, :2] >= 0).all(dim=1) & (anchors[:, 2] < W) & (anchors[:, 3] < H)
    assigned = torch.full_like(anchors[:, 0], IGNORED, dtype=torch.int64)
    assigned[inside] = assign(anchors[inside], target.boxes, rule, target.ignore_boxes)
    return assigned


def cascade_losses(
    roi_head: CascadeRoIHead,
    features: Sequence[Tensor],
    proposals: Sequence[Tensor],
    targets: Sequence[DetectionTarget],
    rules: TrainingRules,
) -> dict[str, Tensor]:
    """Losses of the three stages; each one samples from what the one before it made of its samples.

    Args:
        features: maps (B, C, H_i, W_i).
        proposals: (P_i, 4) of every image.
    """
    found = {}
    for i, (matching, weight) in enumerate(zip(rules.stage_matching, rules.stage_weights, strict=True)):
        samples = [
            sample_proposals(boxes, target.boxes, matching, rules.proposal_sampling, target.ignore_boxes)
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        of_stage, proposals = stage_box_losses(roi_head, i, features, samples, targets)
        of_stage["loss_mask"] = stage_mask_loss(roi_head, i, features, samples, targets)
        found |= {f"s{i}.{name}": weight * loss for name, loss in of_stage.items()}
    return found


def stage_box_losses(
    roi_head: CascadeRoIHead,
    stage: int,
    features: Sequence[Tensor],
    samples: Sequence[Samples],
    targets: Sequence[DetectionTarget],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of one stage's box head, and the boxes (P_i, 4) of every image for the next stage."""
    boxes = torch.cat([one.boxes for one in samples])
    regions = with_image_number([one.boxes for one in samples])
    logits, deltas = roi_head.bbox_head[stage](RegionCrops(features)(regions, BOX_CELLS))
    background = deltas.shape[1]
    pairs = list(zip(samples, targets, strict=True))
    labels = torch.cat([one.labels(target.labels, background) for one, target in pairs])
    positive = (labels != background).nonzero().flatten()
    found = {
        "loss_cls": classification_loss(logits, labels),
        "loss_bbox": box_loss(
            decode_deltas(boxes[positive], deltas[positive, labels[positive]], STAGE_STDS[stage]),
            torch.cat([target.boxes[one.matched] for one, target in pairs]),
            len(labels),
        ),
    }
    # Background moves as its most probable class would have it, the others as their own class.
    moving_class = torch.where(labels == background, logits[:, :-1].argmax(dim=1), labels)
    own_deltas = deltas.detach()[torch.arange(len(labels), device=labels.device), moving_class]
    moved = decode_deltas(boxes, own_deltas, STAGE_STDS[stage]).split([len(one.boxes) for one in samples])
    return found, [next_proposals(of_image, *pair) for of_image, pair in zip(moved, pairs, strict=True)]


def next_proposals(moved: Tensor, samples: Samples, target: DetectionTarget) -> Tensor:
    """The boxes of one image, moved, clipped, without those that were added from the ground truth."""
    added = torch.zeros_like(moved[:, 0], dtype=torch.bool)
    added[: len(samples.is_ground_truth)] = samples.is_ground_truth
    return clip_boxes_to_image(moved[~added], target.image_hw)


def stage_mask_loss(
    roi_head: CascadeRoIHead,
    stage: int,
    features: Sequence[Tensor],
    samples: Sequence[Samples],
    targets: Sequence[DetectionTarget],
) -> Tensor:
    """Loss of one stage's mask head on the positive samples."""
    regions = with_image_number([one.positive_boxes for one in samples])
    logits = roi_head.mask_head[stage](RegionCrops(features)(regions, MASK_CELLS))
    pairs = list(zip(samples, targets, strict=True))
    size_hw = tuple(logits.shape[-2:])
    cropped = [crop_masks(target.masks, one.positive_boxes, one.matched, size_hw) for one, target in pairs]
    labels = torch.cat([target.labels[one.matched] for one, target in pairs])
    return mask_loss(logits, labels, torch.cat(cropped))


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
