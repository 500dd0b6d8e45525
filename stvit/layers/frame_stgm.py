"""The two layers of the STGM for frames of a clip, which come in any size (paper, sections 3.1 and 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from .stgm import GlobalSTGMLayer, SpatialSTGMLayer
from .windows import gather_neighbourhoods, scatter_neighbourhoods, window_reverse


class FrameSTGMLayer(SpatialSTGMLayer):
    """First layer (Eq. 1) on maps of any size from one window on: every window's pooled centres attend the image tokens
    around it, and these only.

    Where the map is no multiple of the window, the last windows are moved to lie inside it and overlap their
    neighbours, as the neighbourhoods do at every border: no centre is made of padding, and none attends any.
    """

    def forward(self, image_tokens: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Image tokens (B, H, W, C) of single frames -> semantic tokens (B, ceil(H/w)*m, ceil(W/w)*m, C) and, if asked
        for, the softmax weights (B*nW, h, m*m, K) of each window's centres on its neighbourhood."""
        B, H, W, C = image_tokens.shape
        w, m = self.window_size, self.centres
        rows, columns = self._windows_hw((H, W))
        windows = gather_neighbourhoods(image_tokens, w, w).flatten(0, 1)
        centres = self.pooling(windows.unflatten(1, (w, w)))
        keys_values = self._neighbourhoods(image_tokens)
        tokens, weights = self.attend_from(centres, self.norm1(centres), keys_values, return_attention)
        semantic_map = window_reverse(tokens.view(B, rows * columns, m * m, C), m, (rows * m, columns * m))
        return self.feed_forward(semantic_map), weights

    def _neighbourhoods(self, image_tokens: Tensor) -> Tensor:
        """(B*nW, T, 2C): keys and values of every window's neighbourhood."""
        if self.project_once:
            image_tokens = self.keys_values(self.norm1(image_tokens))
        around = gather_neighbourhoods(image_tokens, self.window_size, self.neighbourhood).flatten(0, 1)
        return around if self.project_once else self.keys_values(self.norm1(around))

    def image_attention(self, weights: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Lay the weights that :meth:`forward` returned over the map: (B, h, M, H*W), tokens in raster order."""
        m, (rows, columns) = self.centres, self._windows_hw(grid_hw)
        of_windows = weights.unflatten(0, (-1, rows * columns))
        whole = scatter_neighbourhoods(of_windows, self.window_size, self.neighbourhood, grid_hw)
        whole = whole.unflatten(3, (m, m)).unflatten(1, (rows, columns))  # (B, rows, columns, h, m, m, H*W)
        return whole.permute(0, 3, 1, 4, 2, 5, 6).flatten(2, 5)

    def _windows_hw(self, grid_hw: tuple[int, int]) -> tuple[int, int]:
        rows, columns = (-(-side // self.window_size) for side in grid_hw)
        return rows, columns


class FrameGlobalSTGMLayer(GlobalSTGMLayer):
    """Second layer (Eq. 2): the semantic tokens of a frame attend themselves and the frame's image tokens.

    Args:
        dim: channels C.
        num_heads: attention heads.
        centres_hw: size of the map of learned centres G; they are resampled for semantic maps of another size, like a
            position table. ``None`` for no centres.
        layer: arguments of :class:`stvit.layers.attention.CrossAttentionLayer`.
    """

    def __init__(self, dim: int, num_heads: int, *, centres_hw: tuple[int, int] | None, **layer: Any) -> None:
        super().__init__(dim, num_heads, num_global_centres=centres_hw[0] * centres_hw[1] if centres_hw else 0, **layer)
        self.centres_hw = centres_hw

    def forward(
        self, semantic_map: Tensor, image_tokens: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Update the semantic tokens (B, Hs, Ws, C) from themselves and the image tokens (B, N, C).

        Returns:
            (B, M, C) and, if asked for, the softmax weights (B, h, M, M + N), semantic keys first.
        """
        semantic_tokens = semantic_map.flatten(1, 2)
        normalised = self.norm1(torch.cat([semantic_tokens, image_tokens], dim=1))
        queries = normalised[:, : semantic_tokens.shape[1]]
        if self.global_centres is not None:
            queries = self.norm1(semantic_tokens + self._centres_for(tuple(semantic_map.shape[1:3])))
        tokens, weights = self.attend_from(semantic_tokens, queries, self.keys_values(normalised), return_attention)
        return self.feed_forward(tokens), weights

    def _centres_for(self, semantic_hw: tuple[int, int]) -> Tensor:
        """(1, M, C): G for a semantic map of that size."""
        if semantic_hw == self.centres_hw:
            return self.global_centres
        centres = self.global_centres.unflatten(1, self.centres_hw).permute(0, 3, 1, 2)
        resized = F.interpolate(centres, size=semantic_hw, mode="bilinear", align_corners=False)
        return resized.flatten(2).transpose(1, 2)
