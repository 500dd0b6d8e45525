"""Region proposal network (Ren et al., 2015): scores and refines anchors, whatever the class."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import batched_nms, clip_boxes_to_image

from .boxes import decode_deltas

STRIDES = (4, 8, 16, 32, 64)
SCALE = 8  # side of a square anchor, in strides
RATIOS = (0.5, 1.0, 2.0)  # height / width
STDS = (1.0, 1.0, 1.0, 1.0)  # units of the box deltas
NMS_IOU = 0.7
TEST_PROPOSALS = 1000  # per level before suppression, and of all levels after it


class RPNHead(nn.Module):
    """Objectness and box deltas for every anchor of every level, one head for all levels."""

    def __init__(self, channels: int = 256) -> None:
        super().__init__()
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, len(RATIOS), 1)
        self.rpn_reg = nn.Conv2d(channels, 4 * len(RATIOS), 1)
        for conv in self.children():
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, pyramid: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Per level (B, C, H, W): objectness logits (B, A, H, W) and deltas (B, 4A, H, W)."""
        hidden = [self.rpn_conv(feature).relu() for feature in pyramid]
        return [(self.rpn_cls(feature), self.rpn_reg(feature)) for feature in hidden]


def grid_anchors(grid_hw: tuple[int, int], stride: int, device: torch.device | None = None) -> Tensor:
    """(H * W * 3, 4) XYXY, by position in raster order and then by ratio, centred on the corners of the grid's cells.

    Args:
        grid_hw: rows and columns of a feature map.
        stride: of the map, in pixels.
    """
    heights = torch.tensor(RATIOS, device=device).sqrt()
    sizes = stride * SCALE * torch.stack([1 / heights, heights], dim=1)  # (3, 2) width, height
    around_zero = torch.cat([-0.5 * sizes, 0.5 * sizes], dim=1)
    rows, columns = (torch.arange(side, device=device) * stride for side in grid_hw)
    y, x = torch.meshgrid(rows, columns, indexing="ij")
    corners = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
    return (corners + around_zero).view(-1, 4)


def anchors_of(pyramid: Sequence[Tensor]) -> list[Tensor]:
    """Anchors (H * W * A, 4) of every level."""
    return [
        grid_anchors(tuple(feature.shape[-2:]), stride, feature.device)
        for feature, stride in zip(pyramid, STRIDES, strict=True)
    ]


def flatten_predictions(logits: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    """(B, A, H, W) and (B, 4A, H, W) -> (B, H * W * A) and (B, H * W * A, 4), in the order of the anchors, float32."""
    B = len(logits)
    logits = logits.permute(0, 2, 3, 1).reshape(B, -1)
    return logits.float(), deltas.permute(0, 2, 3, 1).reshape(B, -1, 4).float()


def select_proposals(
    predictions: Sequence[tuple[Tensor, Tensor]],
    anchors: Sequence[Tensor],
    image_hw: tuple[int, int],
    *,
    per_level: int = TEST_PROPOSALS,
    kept: int = TEST_PROPOSALS,
) -> tuple[Tensor, Tensor]:
    """Keep the best proposals of one image, overlapping ones suppressed level by level.

    Args:
        predictions: per level, logits (H * W * A,) and deltas (H * W * A, 4) of the image.
        anchors: per level, (H * W * A, 4).
        image_hw: size that boxes are clipped to: the image without its padding.
        per_level: at most so many of a level take part in the suppression.
        kept: at most so many go on.

    Returns:
        Boxes (P, 4) XYXY, best first, and their objectness in [0, 1] (P,).
    """
    boxes, scores, levels = [], [], []
    for level, ((logits, deltas), level_anchors) in enumerate(zip(predictions, anchors, strict=True)):
        objectness, best = logits.sigmoid().sort(descending=True)
        objectness, best = objectness[:per_level], best[:per_level]
        boxes.append(clip_boxes_to_image(decode_deltas(level_anchors[best], deltas[best], STDS), image_hw))
        scores.append(objectness)
        levels.append(torch.full_like(best, level))
    all_boxes, all_scores = torch.cat(boxes), torch.cat(scores)
    keep = batched_nms(all_boxes, all_scores, torch.cat(levels), NMS_IOU)[:kept]
    return all_boxes[keep], all_scores[keep]
