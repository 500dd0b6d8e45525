"""Initial cluster centres P: what the semantic tokens start from (paper, section 3.1).

Every pooling maps a token map (B, H, W, C) to (B, m * m, C), the m x m centres in raster order.
"""

from __future__ import annotations

import math
from itertools import pairwise
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
        self.centres, self.mode = centres, mode  # by name: what PyTorch dispatches to cannot be pickled

    def forward(self, token_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, m * m, C)."""
        channels_first = token_map.permute(0, 3, 1, 2)
        rows, columns = (regular_bins(length, self.centres) for length in token_map.shape[1:3])
        if self.mode == "average":
            pooled = F.adaptive_avg_pool2d(channels_first, self.centres)
        elif rows and columns:  # the same maxima; ONNX has no adaptive pooling
            pooled = F.max_pool2d(channels_first, (rows[0], columns[0]), (rows[1], columns[1]))
        else:
            pooled = F.adaptive_max_pool2d(channels_first, self.centres)
        return pooled.flatten(2).transpose(1, 2)


def regular_bins(length: int, bins: int) -> tuple[int, int] | None:
    """Length and stride of adaptive bins, ``None`` where they differ from one to the next: 7 cells in 3 bins are rows 0
    to 2, 2 to 4 and 4 to 6, so (3, 2)."""
    cells = bin_cells(length, bins, "map")
    strides = {after[0] - before[0] for before, after in pairwise(cells)} or {1}
    full = all(min(row) >= 0 for row in cells)
    return (len(cells[0]), strides.pop()) if full and len(strides) == 1 else None


class LearnedCentres(nn.Module):
    """Centres that do not look at the image: the single global initialisation of Table 7."""

    def __init__(self, dim: int, centres: int) -> None:
        super().__init__()
        self.global_centres = nn.Parameter(torch.empty(1, centres**2, dim))
        nn.init.trunc_normal_(self.global_centres, std=0.02)

    def forward(self, token_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, m * m, C), the same for every image."""
        return self.global_centres.expand(token_map.shape[0], -1, -1)


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
        local = self.depthwise(token_map.permute(0, 3, 1, 2))
        local = local.flatten(2).transpose(1, 2)  # rows of tokens, which OpenVINO normalises in one step, a map in five
        return self.score(self.act(self.norm(local))).unflatten(1, token_map.shape[1:3])


def bin_cells(length: int, bins: int, layout: Layout) -> list[list[int]]:
    """Which of ``length`` cells each bin holds; every bin is filled up to the same length with -1.

    ``tile`` cuts equal tiles of ``ceil(length / bins)`` cells out of the symmetrically padded axis; ``map`` takes
    adaptive bins, ``floor(i * length / bins)`` to ``ceil((i + 1) * length / bins)``, which may overlap.
    """
    if layout == "tile":
        k = math.ceil(length / bins)
        first = -((bins * k - length) // 2)
        spans = [(start, start + k) for start in range(first, first + bins * k, k)]
    else:
        spans = [(i * length // bins, -(-(i + 1) * length // bins)) for i in range(bins)]
        k = max(stop - start for start, stop in spans)
    return [[c if c < min(stop, length) and c >= 0 else -1 for c in range(start, start + k)] for start, stop in spans]


def has_empty_bin(grid_hw: tuple[int, int], centres: int, layout: Layout) -> bool:
    """Whether some bin of the map would hold no token."""
    return any(max(cells) < 0 for length in grid_hw for cells in bin_cells(length, centres, layout))


def fitting_layout(grid_hw: tuple[int, int], centres: int) -> Layout:
    """``tile``, which the author described, where every tile holds a token; else ``map``."""
    return "map" if has_empty_bin(grid_hw, centres, "tile") else "tile"


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
        fused_sum: take weighted sums as matrix products. ``False`` multiplies and adds, as the author's code does: the
            same output, slower, at a cost that the papers' counter does not see.

    Raises:
        ValueError: a bin would hold no token.
    """

    def __init__(
        self, dim: int, grid_hw: tuple[int, int], centres: int, layout: Layout, fused_sum: bool = True
    ) -> None:
        super().__init__()
        self.fused_sum = fused_sum
        if has_empty_bin(grid_hw, centres, layout):
            raise ValueError(f"layout {layout!r} leaves some of the {centres}x{centres} bins of a {grid_hw} map empty")
        rows, columns = (torch.tensor(bin_cells(length, centres, layout)) for length in grid_hw)
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
        provisional = weighted_sum(scores, tiles, self.fused_sum)
        offsets = self.inter(provisional.view(B, self.centres, self.centres, C)).view(B, *self.cells.shape)
        return weighted_sum(scores + offsets, tiles, self.fused_sum)


def weighted_sum(scores: Tensor, tiles: Tensor, fused: bool = True) -> Tensor:
    """Softmax (B, M, k) scores over the k cells of every tile and sum the (B, M, k, C) tokens: (B, M, C)."""
    weights = scores.softmax(dim=-1)
    if fused:
        return (weights.unsqueeze(-2) @ tiles).squeeze(-2)
    return (weights.unsqueeze(-1) * tiles).sum(dim=-2)


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
