"""RoIAlign (He et al., 2017): regions of a feature pyramid, each brought to the same number of cells.

With gradients and on GPUs that is torchvision's kernel. On CPUs that one runs on a single core and fetches every value
of every channel by itself; without gradients, the same weighted sums are taken over whole rows of many channels
instead. On one core, 300 regions took 17 ms of 256 channels, and 18 of 64, where the kernel took 97 and 22.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.ops import roi_align

from .rpn import STRIDES

ROI_STRIDES = STRIDES[:4]
MANY_CHANNELS = 64  # from which on rows are faster
FINEST_SIDE = 56  # regions of up to twice this side, in pixels, are looked up in the finest map


class RegionCrops:
    """Crops regions of a pyramid; in float32, whatever the maps are in.

    Args:
        pyramid: maps (B, C, H_i, W_i) at strides 4 to 32; coarser ones are ignored.
    """

    def __init__(self, pyramid: Sequence[Tensor]) -> None:
        first = pyramid[0]
        self._dtype, self._channels = first.dtype, first.shape[1]
        self._maps = [feature.float() for feature in pyramid[: len(ROI_STRIDES)]]
        self._by_rows = first.device.type == "cpu" and self._channels >= MANY_CHANNELS and not first.requires_grad
        if self._by_rows:
            self._rows = torch.cat([one.flatten(2).transpose(1, 2).flatten(0, 1) for one in self._maps])
            self._hw = torch.tensor([one.shape[2:] for one in self._maps])
            cells = torch.tensor([len(one) * one[0, 0].numel() for one in self._maps])
            self._starts = cells.cumsum(0) - cells  # of the maps among the rows

    def __call__(self, regions: Tensor, cells: int) -> Tensor:
        """Crop each region from the map that fits its size.

        Args:
            regions: (R, 5), number of the image and XYXY in its pixels.
            cells: side of the result.

        Returns:
            (R, C, cells, cells) in the precision of the maps.
        """
        side = ((regions[:, 3] - regions[:, 1]) * (regions[:, 4] - regions[:, 2])).sqrt()
        levels = (side / FINEST_SIDE + 1e-6).log2().floor().clamp(0, len(ROI_STRIDES) - 1).long()
        crop = self._sum_rows if self._by_rows and len(regions) else self._align
        return crop(regions, levels, cells).to(self._dtype)

    def _align(self, regions: Tensor, levels: Tensor, cells: int) -> Tensor:
        crops = self._maps[0].new_zeros(len(regions), self._channels, cells, cells)
        for level, (feature, stride) in enumerate(zip(self._maps, ROI_STRIDES, strict=True)):
            here = (levels == level).nonzero()[:, 0]
            crops[here] = roi_align(feature, regions[here], cells, 1 / stride, sampling_ratio=0, aligned=True)
        return crops

    def _sum_rows(self, regions: Tensor, levels: Tensor, cells: int) -> Tensor:
        """Every cell as a weighted sum of rows (C,), those that its sampling points lie between."""
        height, width = self._hw[levels].unbind(1)
        boxes = regions[:, 1:] / torch.tensor(ROI_STRIDES)[levels, None] - 0.5
        top, row_weights, num_rows = taps(boxes[:, 1], boxes[:, 3], cells, height)
        left, column_weights, num_columns = taps(boxes[:, 0], boxes[:, 2], cells, width)

        of_cell = (num_rows * num_columns).repeat_interleave(cells * cells)  # how many rows are summed
        first = of_cell.cumsum(0) - of_cell
        cell = torch.repeat_interleave(of_cell)
        number, (region, place) = torch.arange(len(cell)) - first[cell], (cell // cells**2, cell % cells**2)
        i, j = place // cells, place % cells
        down, right = number // num_columns[region], number % num_columns[region]
        y = (top[region, i] + down).minimum(height[region] - 1)
        x = (left[region, j] + right).minimum(width[region] - 1)
        map_start = self._starts[levels] + regions[:, 0].long() * height * width
        summed = F.embedding_bag(
            map_start[region] + y * width[region] + x,
            self._rows,
            first,
            mode="sum",
            per_sample_weights=row_weights[region, i, down] * column_weights[region, j, right],
        )
        return summed.view(len(regions), cells, cells, -1).permute(0, 3, 1, 2)


def taps(start: Tensor, end: Tensor, cells: int, length: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which places of an axis the cells of every region are averaged from: sampling points at most a place apart, each
    between two places.

    Args:
        start, end: (R,) of the regions; places are whole numbers.
        cells: of a region.
        length: (R,) places of the axis.

    Returns:
        The first place of every cell (R, cells), the weights (R, cells, K) of the places from there on, and how many of
        them a region uses (R,); weights beyond the axis are 0.
    """
    extent = end - start
    samples = (extent / cells).ceil()
    numbers = torch.arange(max(1, int(samples.max())))
    offsets = (numbers + 0.5) / samples[:, None].clamp(min=1)
    cell = torch.arange(cells)[:, None]
    points = start[:, None, None] + (cell + offsets[:, None]) * (extent / cells)[:, None, None]
    used, last = (numbers < samples[:, None])[:, None], (length - 1)[:, None, None]
    share = (used & (points >= -1) & (points <= last + 1)) / samples[:, None, None].clamp(min=1)
    points = points.clamp(min=0).minimum(last)
    low = points.floor()
    first = low[:, :, :1]
    tap = (low - first).long() * used
    weights = points.new_zeros(*points.shape[:2], len(numbers) + 1)
    weights.scatter_add_(2, tap, share * (low + 1 - points)).scatter_add_(2, tap + 1, share * (points - low))
    return first[..., 0].long(), weights, samples.long() + 1
