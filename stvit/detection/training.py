"""The losses that the detector is trained with, as in the published configuration: Cascade Mask R-CNN on Swin with
GIoU and "4conv1f" heads (paper, section 4.3; the configuration names its parts as this module does)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.ops import clip_boxes_to_image

from . import losses
from .assign import IGNORED, Matching, Samples, Sampling, assign, sample, sample_proposals
from .boxes import decode_deltas, encode_deltas
from .cascade import STAGE_STDS, CascadeRoIHead
from .roi_heads import BOX_CELLS, MASK_CELLS, crop_regions, with_image_number
from .rpn import STDS, anchors_of, flatten_predictions, select_proposals

if TYPE_CHECKING:
    from .detector import CascadeMaskRCNN


@dataclass(frozen=True)
class DetectionTarget:
    """What is to be found in one image of a batch. Boxes are XYXY in network pixels.

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


def detector_losses(
    detector: CascadeMaskRCNN, images: Tensor, targets: Sequence[DetectionTarget], rules: TrainingRules = PUBLISHED
) -> dict[str, Tensor]:
    """All losses of a batch, weighted: their sum is what is minimised.

    Args:
        images: (B, 3, H, W), normalised, padded at the bottom and on the right.
        targets: one for every image.

    Returns:
        Scalars under their published names: ``loss_rpn_cls``, ``loss_rpn_bbox``, and ``loss_cls``, ``loss_bbox``,
        ``loss_mask`` of the stages ``s0.`` to ``s2.``.

    Raises:
        ValueError: targets that do not fit the images or the detector's classes.
    """
    check_targets(images, targets, detector.num_classes)
    features = detector.extract_features(images)
    anchors = anchors_of(features)
    predictions = [flatten_predictions(*level) for level in detector.rpn_head(features)]
    found = proposal_losses(predictions, anchors, targets, rules)
    proposals = []
    for i, target in enumerate(targets):
        of_image = [(logits[i].detach(), deltas[i].detach()) for logits, deltas in predictions]
        many = {"per_level": rules.proposals, "kept": rules.proposals}
        proposals.append(select_proposals(of_image, anchors, target.image_hw, **many)[0])
    return found | cascade_losses(detector.roi_head, features, proposals, targets, rules)


def check_targets(images: Tensor, targets: Sequence[DetectionTarget], num_classes: int) -> None:
    """
    Raises:
        ValueError: targets that do not fit.
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
        "loss_rpn_cls": losses.objectness_loss(torch.cat(sampled_logits), torch.cat(is_object), normaliser),
        "loss_rpn_bbox": losses.delta_loss(torch.cat(positive_deltas), torch.cat(target_deltas), normaliser),
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
        of_stage, proposals = box_losses(roi_head, i, features, samples, targets)
        of_stage["loss_mask"] = stage_mask_loss(roi_head, i, features, samples, targets)
        found |= {f"s{i}.{name}": weight * loss for name, loss in of_stage.items()}
    return found


def box_losses(
    roi_head: CascadeRoIHead,
    stage: int,
    features: Sequence[Tensor],
    samples: Sequence[Samples],
    targets: Sequence[DetectionTarget],
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Losses of one stage's box head, and the boxes (P_i, 4) of every image for the next stage."""
    boxes = torch.cat([one.boxes for one in samples])
    logits, deltas = roi_head.bbox_head[stage](
        crop_regions(features, with_image_number([one.boxes for one in samples]), BOX_CELLS)
    )
    background = deltas.shape[1]
    pairs = list(zip(samples, targets, strict=True))
    labels = torch.cat([one.labels(target.labels, background) for one, target in pairs])
    positive = (labels != background).nonzero().flatten()
    found = {
        "loss_cls": losses.classification_loss(logits, labels),
        "loss_bbox": losses.box_loss(
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
    logits = roi_head.mask_head[stage](crop_regions(features, regions, MASK_CELLS))
    pairs = list(zip(samples, targets, strict=True))
    size_hw = tuple(logits.shape[-2:])
    cropped = [losses.crop_masks(target.masks, one.positive_boxes, one.matched, size_hw) for one, target in pairs]
    labels = torch.cat([target.labels[one.matched] for one, target in pairs])
    return losses.mask_loss(logits, labels, torch.cat(cropped))
