"""Feature pyramid (Lin et al., 2017): maps of equal width, each with the context of the coarser ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FPN(nn.Module):
    """Maps at strides 4 to 32 of any widths -> maps at strides 4 to 64 of one width.

    Args:
        in_channels: widths of the maps that come in.
        channels: width of those that go out.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps (B, C_i, H_i, W_i) -> five (B, C, H_i, W_i); the fifth is the fourth, every second cell."""
        merged = [conv(feature) for conv, feature in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            finer = merged[i - 1]
            merged[i - 1] = finer + F.interpolate(merged[i], size=finer.shape[-2:], mode="nearest")
        pyramid = [conv(feature) for conv, feature in zip(self.fpn_convs, merged, strict=True)]
        return (*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))
