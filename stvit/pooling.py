"""Initial cluster centres P: what the semantic tokens start from (paper, section 3.1).

Every pooling maps a token map (B, H, W, C) to (B, m * m, C), the m x m centres in raster order.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

PoolingName = Literal["max", "average", "intra_inter"]
Layout = Literal["tile", "map"]


class AdaptivePooling(nn.Module):
    """Parameter-free adaptive pooling over m x m bins; ``max`` is what the released STViT-R weights use."""

    def __init__(self, centres: int, mode: Literal["max", "average"]) -> None:
        super().__init__()
        self.centres = centres
        self.pool = {"max": F.adaptive_max_pool2d, "average": F.adaptive_avg_pool2d}[mode]

    def forward(self, token_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, m * m, C)."""
        pooled = self.pool(token_map.permute(0, 3, 1, 2), self.centres)
        return pooled.flatten(2).transpose(1, 2)


class CellScores(nn.Module):
    """``Conv(GELU(LayerNorm(DepthwiseConv(x))))`` of Eq. 4: one or more scores per cell of a map."""

    def __init__(self, dim: int, scores: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(dim, dim, 3, padding=1, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.act = nn.GELU()
        self.score = nn.Linear(dim, scores, bias=False)  # the 1x1 convolution, on channels-last tokens

    def forward(self, token_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, scores)."""
        local = self.depthwise(token_map.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.score(self.act(self.norm(local)))


def bin_cells(length: int, bins: int, layout: Layout) -> Tensor:
    """(bins, k) int64: which of ``length`` cells each bin holds, -1 where a bin has fewer than k cells.

    ``tile`` cuts equal tiles of ``ceil(length / bins)`` cells out of the symmetrically padded axis; ``map`` takes
    adaptive bins, ``floor(i * length / bins)`` to ``ceil((i + 1) * length / bins)``, which may overlap.
    """
    if layout == "tile":
        k = math.ceil(length / bins)
        cells = torch.arange(bins * k).view(bins, k) - (bins * k - length) // 2
        return torch.where((cells >= 0) & (cells < length), cells, -1)
    starts = [i * length // bins for i in range(bins)]
    stops = [-(-(i + 1) * length // bins) for i in range(bins)]
    k = max(stop - start for start, stop in zip(starts, stops, strict=True))
    rows = [[c if c < stop else -1 for c in range(start, start + k)] for start, stop in zip(starts, stops, strict=True)]
    return torch.tensor(rows)


class IntraInterPooling(nn.Module):
    """Intra- and inter-window spatial pooling (Eq. 4 and 5).

    Every centre is a weighted sum of the image tokens of its bin. ``f_intra`` scores the cells of a bin (M), the
    centres that this yields are mixed by ``f_inter`` into offsets (O), and the final weights are ``softmax(M + O)``.

    The paper does not say how 14 tokens are split into 4, 6, 8 or 10 bins. ``layout="tile"`` (the author's comment on
    16 tokens: zero padding to equal tiles, ``f_intra`` inside each tile) serves where no tile is empty, ``"map"``
    (``f_intra`` once on the whole map, adaptive bins) elsewhere; both reproduce the published FLOPs.

    Args:
        dim: channels C.
        grid_hw: rows and columns of the token map.
        centres: m, centres per side.
        layout: see above.

    Raises:
        ValueError: a bin would hold no token.
    """

    def __init__(self, dim: int, grid_hw: tuple[int, int], centres: int, layout: Layout) -> None:
        super().__init__()
        rows, columns = (bin_cells(length, centres, layout) for length in grid_hw)
        if (rows < 0).all(1).any() or (columns < 0).all(1).any():
            raise ValueError(f"layout {layout!r} leaves some of the {centres}x{centres} bins of a {grid_hw} map empty")
        self.centres, self.grid_hw, self.layout = centres, grid_hw, layout
        self.tile_hw = rows.shape[1], columns.shape[1]
        inside = (rows >= 0)[:, None, :, None] & (columns >= 0)[None, :, None, :]
        cells = rows.clamp(min=0)[:, None, :, None] * grid_hw[1] + columns.clamp(min=0)[None, :, None, :]
        self.register_buffer("cells", cells.reshape(centres**2, -1), persistent=False)
        self.register_buffer("outside", ~inside.reshape(centres**2, -1), persistent=False)
        self.intra = CellScores(dim, 1)
        self.inter = CellScores(dim, self.tile_hw[0] * self.tile_hw[1])

    def forward(self, token_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, m * m, C)."""
        B, _, _, C = token_map.shape
        tiles = token_map.flatten(1, 2)[:, self.cells.flatten()].view(B, *self.cells.shape, C)
        if self.layout == "tile":
            tiles = tiles.masked_fill(self.outside[..., None], 0)
            scores = self.intra(tiles.view(-1, *self.tile_hw, C)).view(B, *self.cells.shape)
        else:
            scores = self.intra(token_map).flatten(1)[:, self.cells.flatten()].view(B, *self.cells.shape)
        scores = scores.masked_fill(self.outside, -100.0)
        provisional = weighted_sum(scores, tiles)
        offsets = self.inter(provisional.view(B, self.centres, self.centres, C)).view(B, *self.cells.shape)
        return weighted_sum(scores + offsets, tiles)


def weighted_sum(scores: Tensor, tiles: Tensor) -> Tensor:
    """Softmax (B, M, k) scores over the k cells of every tile and sum the (B, M, k, C) tokens: (B, M, C)."""
    return (scores.softmax(dim=-1).unsqueeze(-2) @ tiles).squeeze(-2)


def initial_centres(
    pooling: PoolingName, dim: int, grid_hw: tuple[int, int], centres: int, layout: Layout = "map"
) -> nn.Module:
    """Build the pooling of that name.

    Raises:
        ValueError: no such pooling.
    """
    if pooling == "intra_inter":
        return IntraInterPooling(dim, grid_hw, centres, layout)
    if pooling in ("max", "average"):
        return AdaptivePooling(centres, pooling)
    raise ValueError(f"unknown pooling {pooling!r}: choose max, average or intra_inter")
