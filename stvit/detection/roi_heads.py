"""Heads that look at one region at a time: what it is, where exactly, and which of its pixels belong to it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation, roi_align

from .anchors import STRIDES

ROI_STRIDES = STRIDES[:4]
FINEST_SIDE = 56  # regions of up to twice this side, in pixels, are looked up in the finest map
BOX_CELLS = 7
MASK_CELLS = 14


def crop_regions(pyramid: Sequence[Tensor], regions: Tensor, cells: int) -> Tensor:
    """RoIAlign of every region on the map that fits its size; positions need float32, whatever the maps are in.

    Args:
        pyramid: maps (B, C, H_i, W_i) at strides 4 to 32; coarser ones are ignored.
        regions: (R, 5), number of the image and XYXY in its pixels.
        cells: side of the result.

    Returns:
        (R, C, cells, cells).
    """
    side = ((regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])).sqrt()
    levels = (side / FINEST_SIDE + 1e-6).log2().floor().clamp(0, len(ROI_STRIDES) - 1)
    crops = pyramid[0].new_zeros(len(regions), pyramid[0].shape[1], cells, cells)
    for level, (feature, stride) in enumerate(zip(pyramid[: len(ROI_STRIDES)], ROI_STRIDES, strict=True)):
        here = (levels == level).nonzero()[:, 0]
        aligned = roi_align(feature.float(), regions[here], cells, 1 / stride, sampling_ratio=0, aligned=True)
        crops[here] = aligned.to(crops.dtype)
    return crops


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


def with_image_number(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes (R_i, 4) of the images of a batch -> regions (R, 5)."""
    return torch.cat([torch.cat([b.new_full((len(b), 1), i), b], dim=1) for i, b in enumerate(boxes)])
