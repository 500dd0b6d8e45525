"""Which candidate boxes learn from which ground-truth box: matching by IoU, then random sampling.

As in the published configuration (Cascade Mask R-CNN on Swin, 3x schedule, GIoU, 4conv1f); boxes are XYXY, K is the
number of ground-truth boxes of one image, N that of its candidates (anchors or proposals).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.ops import box_area, box_iou

BACKGROUND = -1
IGNORED = -2


@dataclass(frozen=True)
class Matching:
    """When a candidate belongs to a ground-truth box.

    Attributes:
        positive_iou: from this IoU on, with the ground-truth box that overlaps it most, a candidate is positive.
        negative_iou: below it, with every ground-truth box, a candidate is background; in between it is ignored.
        low_quality_iou: a ground-truth box also takes the candidates that overlap it most, all of them in a tie, if
            they do so at least this much; it takes them from other ground-truth boxes too. ``None``: it does not.
        ignore_overlap: a candidate with more than this share of its area in one of the boxes to be ignored (crowds)
            is ignored. ``None``, as published: such boxes have no effect.
    """

    positive_iou: float
    negative_iou: float
    low_quality_iou: float | None = None
    ignore_overlap: float | None = None


@dataclass(frozen=True)
class Sampling:
    """How many candidates of an image take part in a loss: ``size`` at most, positive ones at most ``positive_share``
    of that; background fills what they leave.
    """

    size: int
    positive_share: float


@dataclass(frozen=True)
class Samples:
    """The sampled candidates of one image, positive ones first.

    Attributes:
        boxes: (P + Q, 4), P positive and Q background boxes.
        matched: (P,) int64, index of the ground-truth box of each positive one.
        is_ground_truth: (P,) bool, whether it is a ground-truth box that was added to the proposals.
    """

    boxes: Tensor
    matched: Tensor
    is_ground_truth: Tensor

    @property
    def positive_boxes(self) -> Tensor:
        """(P, 4)."""
        return self.boxes[: len(self.matched)]

    def labels(self, target_labels: Tensor, background: int) -> Tensor:
        """(P + Q,) int64: the class that each sample is to be given.

        Args:
            target_labels: (K,) classes of the ground-truth boxes.
            background: the class of background.
        """
        labels = torch.full_like(self.boxes[:, 0], background, dtype=torch.int64)
        labels[: len(self.matched)] = target_labels[self.matched]
        return labels


def assign(boxes: Tensor, target_boxes: Tensor, rule: Matching, ignore_boxes: Tensor | None = None) -> Tensor:
    """The ground-truth box of every candidate.

    Args:
        boxes: (N, 4) candidates.
        target_boxes: (K, 4) ground truth.
        ignore_boxes: regions without exact ground truth; used only if the rule has an ``ignore_overlap``.

    Returns:
        (N,) int64: an index into ``target_boxes``, ``BACKGROUND`` or ``IGNORED``.
    """
    assigned = torch.full_like(boxes[:, 0], BACKGROUND, dtype=torch.int64)
    if not len(boxes) or not len(target_boxes):
        return assigned.masked_fill(in_ignored_region(boxes, ignore_boxes, rule), IGNORED)
    overlaps = box_iou(target_boxes, boxes).nan_to_num(0)  # 0 / 0 where both boxes are empty
    overlaps = overlaps.masked_fill(in_ignored_region(boxes, ignore_boxes, rule), -1)
    best, nearest = overlaps.max(dim=0)
    assigned[(best < 0) | (best >= rule.negative_iou)] = IGNORED
    assigned = torch.where(best >= rule.positive_iou, nearest, assigned)
    if rule.low_quality_iou is None:
        return assigned
    most = overlaps.max(dim=1, keepdim=True).values
    claims = (overlaps == most) & (most >= rule.low_quality_iou)
    # Where several ground-truth boxes claim a candidate, the last one gets it.
    order = torch.arange(len(target_boxes), device=boxes.device)[:, None]
    claimant = torch.where(claims, order, BACKGROUND).max(dim=0).values
    return torch.where(claimant >= 0, claimant, assigned)


def in_ignored_region(boxes: Tensor, ignore_boxes: Tensor | None, rule: Matching) -> Tensor:
    """(N,) bool: whether the rule ignores a candidate for lying in one of the ``ignore_boxes``."""
    if rule.ignore_overlap is None or ignore_boxes is None or not len(ignore_boxes):
        return torch.zeros_like(boxes[:, 0], dtype=torch.bool)
    low = torch.maximum(boxes[:, None, :2], ignore_boxes[:, :2])
    high = torch.minimum(boxes[:, None, 2:], ignore_boxes[:, 2:])
    shared = (high - low).clamp(min=0).prod(dim=-1)
    return (shared > rule.ignore_overlap * box_area(boxes)[:, None]).any(dim=1)


def sample(assigned: Tensor, rule: Sampling) -> tuple[Tensor, Tensor]:
    """Positive and background candidates, drawn at random without repetition.

    Args:
        assigned: (N,) from ``assign``.

    Returns:
        Two index tensors (P,) and (Q,), each in ascending order.
    """
    positive = draw(torch.nonzero(assigned >= 0).flatten(), int(rule.size * rule.positive_share))
    background = draw(torch.nonzero(assigned == BACKGROUND).flatten(), rule.size - len(positive))
    return positive, background


def draw(indices: Tensor, most: int) -> Tensor:
    """At most so many of the indices, ascending."""
    if len(indices) <= most:
        return indices
    chosen = torch.randperm(len(indices), device=indices.device)[:most]
    return indices[chosen].sort().values


def sample_proposals(
    proposals: Tensor,
    target_boxes: Tensor,
    matching: Matching,
    sampling: Sampling,
    ignore_boxes: Tensor | None = None,
) -> Samples:
    """Proposals of one image for a stage of the cascade; the ground-truth boxes join them, each matched to itself.

    Args:
        proposals: (N, 4).
        target_boxes: (K, 4).
    """
    assigned = assign(proposals, target_boxes, matching, ignore_boxes)
    themselves = torch.arange(len(target_boxes), device=assigned.device)
    assigned = torch.cat([themselves, assigned])
    boxes = torch.cat([target_boxes, proposals])
    positive, background = sample(assigned, sampling)
    return Samples(boxes[torch.cat([positive, background])], assigned[positive], positive < len(target_boxes))
