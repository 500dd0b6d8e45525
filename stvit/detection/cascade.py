"""Cascade R-CNN (Cai and Vasconcelos, 2018): three heads, each on the boxes that the one before it has refined."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from .boxes import decode_deltas
from .roi_heads import BOX_CELLS, MASK_CELLS, BoxHead, MaskHead, crop_regions, with_image_number

#: deviations of each stage's box deltas
STAGE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
NMS_IOU = 0.5
MAX_DETECTIONS = 100


class CascadeRoIHead(nn.Module):
    """Three box heads and three mask heads.

    Args:
        num_classes: without background.
        channels: width of the pyramid.
        hidden: width of the box heads' hidden layer.
    """

    def __init__(self, num_classes: int, channels: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        self.bbox_head = nn.ModuleList(BoxHead(num_classes, channels, hidden) for _ in STAGE_STDS)
        self.mask_head = nn.ModuleList(MaskHead(num_classes, channels) for _ in STAGE_STDS)

    def refine(
        self, pyramid: Sequence[Tensor], boxes: Tensor, image_hw: tuple[int, int]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All stages on the proposals of one image.

        Args:
            pyramid: maps (1, C, H_i, W_i).
            boxes: (P, 4) XYXY proposals.
            image_hw: size that boxes are clipped to.

        Returns:
            The boxes (P, 4) that the last stage looked at, its deltas (P, classes, 4), and the mean of the stages'
            class logits (P, classes + 1), the background last.
        """
        logits, deltas = self.look(0, pyramid, with_image_number([boxes]))
        total = logits
        for stage in range(1, len(self.bbox_head)):
            moved = refined_boxes(boxes, logits, deltas, STAGE_STDS[stage - 1])
            boxes = clip_boxes_to_image(moved, image_hw)
            logits, deltas = self.look(stage, pyramid, with_image_number([boxes]))
            total = total + logits
        return boxes, deltas, total / len(self.bbox_head)

    def look(self, stage: int, pyramid: Sequence[Tensor], regions: Tensor) -> tuple[Tensor, Tensor]:
        """One stage on regions (R, 5): class logits (R, classes + 1) and box deltas (R, classes, 4)."""
        return self.bbox_head[stage](crop_regions(pyramid, regions, BOX_CELLS))

    def masks(self, pyramid: Sequence[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        """Mean of the stages' mask probabilities (N, 28, 28) inside boxes (N, 4), for the labels (N,)."""
        crops = crop_regions(pyramid, with_image_number([boxes]), MASK_CELLS)
        of_label = torch.arange(len(labels), device=labels.device), labels
        return torch.stack([head(crops)[of_label].sigmoid() for head in self.mask_head]).mean(dim=0)


def refined_boxes(boxes: Tensor, logits: Tensor, deltas: Tensor, stds: tuple[float, float, float, float]) -> Tensor:
    """Boxes (P, 4) moved by the deltas (P, classes, 4) of each one's most probable class, background left out."""
    best = logits[:, :-1].argmax(dim=1)
    return decode_deltas(boxes, deltas[torch.arange(len(boxes), device=boxes.device), best], stds)


def select_detections(
    boxes: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float = NMS_IOU, limit: int = MAX_DETECTIONS
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections of one image, overlapping ones of the same class suppressed.

    Args:
        boxes: (P, classes, 4), a box for every class.
        scores: (P, classes), softmax probabilities without the background's.
        score_threshold: lower bound, exclusive.

    Returns:
        Boxes (N, 4), scores (N,) and labels (N,) int64, best first.
    """
    region, label = (scores > score_threshold).nonzero(as_tuple=True)
    boxes, scores = boxes[region, label], scores[region, label]
    keep = batched_nms(boxes, scores, label, iou_threshold)[:limit]
    return boxes[keep], scores[keep], label[keep]
