"""Anchors: the boxes that the region proposal network starts from."""

from __future__ import annotations

import torch
from torch import Tensor

STRIDES = (4, 8, 16, 32, 64)
SCALE = 8  # side of a square anchor, in strides
RATIOS = (0.5, 1.0, 2.0)  # height / width


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
