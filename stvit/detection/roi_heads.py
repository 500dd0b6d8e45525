"""Second stage of the detector: box and mask heads, three of each in a cascade (Cai and Vasconcelos, 2018), where each
looks at the boxes that the one before it has refined."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, batched_nms, clip_boxes_to_image

from .boxes import decode_deltas
from .region_crops import RegionCrops

BOX_CELLS = 7
MASK_CELLS = 14
#: deviations of each stage's box deltas
STAGE_STDS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))
NMS_IOU = 0.5
MAX_DETECTIONS = 100


class BoxHead(nn.Module):
    """Class and box of a region: four convolutions, one hidden layer ("4conv1f").

    Args:
        num_classes: without background.
        channels: width of the pyramid.
        hidden: width of the hidden layer.
    """

    def __init__(self, num_classes: int, channels: int = 256, hidden: int = 1024) -> None:
        super().__init__()
        self.shared_convs = nn.Sequential(*(Conv2dNormActivation(channels, channels, inplace=True) for _ in range(4)))
        self.shared_fc = nn.Linear(channels * BOX_CELLS**2, hidden)
        self.fc_cls = nn.Linear(hidden, num_classes + 1)
        self.fc_reg = nn.Linear(hidden, 4 * num_classes)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        nn.init.zeros_(self.fc_cls.bias)
        nn.init.zeros_(self.fc_reg.bias)

    def forward(self, crops: Tensor) -> tuple[Tensor, Tensor]:
        """(R, C, 7, 7) -> class logits (R, classes + 1), the background last, and deltas (R, classes, 4); float32."""
        hidden = self.shared_fc(self.shared_convs(crops).flatten(1)).relu()
        return self.fc_cls(hidden).float(), self.fc_reg(hidden).float().unflatten(1, (-1, 4))


class MaskHead(nn.Module):
    """Mask of a region for every class: four convolutions and one step of upsampling."""

    def __init__(self, num_classes: int, channels: int = 256) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            *(Conv2dNormActivation(channels, channels, norm_layer=None, inplace=True) for _ in range(4))
        )
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        for module in (self.upsample, self.conv_logits):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(module.bias)

    def forward(self, crops: Tensor) -> Tensor:
        """(R, C, 14, 14) -> mask logits (R, classes, 28, 28)."""
        return self.conv_logits(self.upsample(self.convs(crops)).relu()).float()


class MaskHeads(nn.Module):
    """The mask heads of all stages, which look at the same crops, as one network."""

    def __init__(self, heads: Sequence[MaskHead]) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)

    def forward(self, crops: Tensor) -> tuple[Tensor, ...]:
        """(R, C, 14, 14) -> mask logits (R, classes, 28, 28) of every stage."""
        return tuple(head(crops) for head in self.heads)


class HeadRunners(NamedTuple):
    """What runs the heads.

    Attributes:
        boxes: by stage, as :class:`BoxHead`.
        masks: as :class:`MaskHeads`.
    """

    boxes: Sequence[Callable[[Tensor], tuple[Tensor, Tensor]]]
    masks: Callable[[Tensor], Sequence[Tensor]]


def with_image_number(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes (R_i, 4) of the images of a batch -> regions (R, 5)."""
    return torch.cat([torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)])


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

    def own_runners(self) -> HeadRunners:
        """The heads themselves."""
        return HeadRunners(self.bbox_head, MaskHeads(self.mask_head))

    def refine(
        self, pyramid: Sequence[Tensor], boxes: Tensor, image_hw: tuple[int, int], heads: HeadRunners | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """All stages on the proposals of one image.

        Args:
            pyramid: maps (1, C, H_i, W_i).
            boxes: (P, 4) XYXY proposals.
            image_hw: size that boxes are clipped to.
            heads: by default the heads themselves.

        Returns:
            The boxes (P, 4) that the last stage looked at, its deltas (P, classes, 4), and the mean of the stages'
            class logits (P, classes + 1), the background last.
        """
        first, *others = (heads or self.own_runners()).boxes
        crop = RegionCrops(pyramid)
        logits, deltas = first(crop(with_image_number([boxes]), BOX_CELLS))
        total = logits
        for head, stds in zip(others, STAGE_STDS, strict=False):
            boxes = clip_boxes_to_image(refined_boxes(boxes, logits, deltas, stds), image_hw)
            logits, deltas = head(crop(with_image_number([boxes]), BOX_CELLS))
            total = total + logits
        return boxes, deltas, total / len(self.bbox_head)

    def masks(
        self, pyramid: Sequence[Tensor], boxes: Tensor, labels: Tensor, heads: HeadRunners | None = None
    ) -> Tensor:
        """Mean of the stages' mask probabilities (N, 28, 28) inside boxes (N, 4), for the labels (N,); ``heads`` as in
        :meth:`refine`."""
        if not len(boxes):
            return boxes.new_zeros(0, 2 * MASK_CELLS, 2 * MASK_CELLS)
        crops = RegionCrops(pyramid)(with_image_number([boxes]), MASK_CELLS)
        of_label = torch.arange(len(labels), device=labels.device), labels
        logits = (heads or self.own_runners()).masks(crops)
        return torch.stack([of_stage[of_label].sigmoid() for of_stage in logits]).mean(dim=0)


def refined_boxes(boxes: Tensor, logits: Tensor, deltas: Tensor, stds: tuple[float, float, float, float]) -> Tensor:
    """Boxes (P, 4) moved by the deltas (P, classes, 4) of each one's most probable class, background left out."""
    best = logits[:, :-1].argmax(dim=1)
    return decode_deltas(boxes, deltas[torch.arange(len(boxes), device=boxes.device), best], stds)


def select_detections(
    boxes: Tensor, scores: Tensor, score_threshold: float, iou_threshold: float = NMS_IOU, limit: int = MAX_DETECTIONS
) -> tuple[Tensor, Tensor, Tensor]:
    """Keep the detections of one image, overlapping ones of the same class suppressed.

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
