"""Semantic token generation module (STGM): image tokens -> semantic tokens (paper, 3.1, Eq. 1 to 3; frames: 4.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import CrossAttentionLayer, Rotary
from .windows import gather_neighbourhoods, scatter_neighbourhoods, window_partition, window_reverse


class WholeMapSTGMLayer(CrossAttentionLayer):
    """First layer of a network with global attention (Eq. 1): the centres attend all image tokens, and these only.

    Args:
        dim: channels C.
        num_heads: attention heads.
        pooling: maps the image tokens (B, H, W, C) to the initial centres (B, M, C).
        layer: arguments of :class:`CrossAttentionLayer`.

    Attributes:
        num_prefix_tokens: P, tokens before the image tokens that are queries and keys beside the others, as they are in
            a layer of a full-token network.
    """

    kind = "stgm"
    num_prefix_tokens = 0

    def __init__(self, dim: int, num_heads: int, pooling: nn.Module, **layer: Any) -> None:
        super().__init__(dim, num_heads, **layer)
        self.pooling = pooling

    def forward(
        self,
        tokens: Tensor,
        grid_hw: tuple[int, int],
        return_attention: bool = False,
        rotary: Rotary | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """(B, P + N, C), image tokens in raster order of ``grid_hw`` -> (B, P + M, C), semantic tokens last, and, if
        asked for, the softmax weights (B, h, P + M, P + N)."""
        centres = self.pooling(tokens[:, self.num_prefix_tokens :].unflatten(1, grid_hw))
        if self.num_prefix_tokens:
            centres = torch.cat([tokens[:, : self.num_prefix_tokens], centres], dim=1)
        keys_values = self.keys_values(self.norm1(tokens))
        tokens, weights = self.attend_from(centres, self.norm1(centres), keys_values, return_attention, rotary=rotary)
        return self.feed_forward(tokens), weights


class SpatialSTGMLayer(CrossAttentionLayer):
    """First layer (Eq. 1): every window's pooled centres attend the image tokens around the window.

    Args:
        dim: channels C.
        num_heads: attention heads.
        pooling: maps a window (B, w, w, C) to its centres (B, m * m, C).
        window_size: w, side of a window in image tokens.
        centres: m, centres per window side.
        neighbourhood: w_k, side of the key window.
        residual: add the centres to what they attend, as Eq. 1 has it; the released STViT-R classifiers do not.
        project_once: project every image token once and then gather the neighbourhoods. ``False`` gathers first and
            projects each copy, as the released code does: the same output at the published, higher cost.
        layer: arguments of :class:`CrossAttentionLayer`.
    """

    kind = "stgm"

    def __init__(
        self,
        dim: int,
        num_heads: int,
        pooling: nn.Module,
        *,
        window_size: int,
        centres: int,
        neighbourhood: int,
        residual: bool = True,
        project_once: bool = True,
        **layer: Any,
    ) -> None:
        super().__init__(dim, num_heads, **layer)
        self.pooling = pooling
        self.window_size, self.centres, self.neighbourhood = window_size, centres, neighbourhood
        self.residual, self.project_once = residual, project_once

    def forward(self, image_tokens: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Generate semantic tokens.

        Args:
            image_tokens: (B, H, W, C); H and W multiples of the window size.

        Returns:
            Semantic tokens (B, H/w*m, W/w*m, C) as a raster map and, if asked for, the softmax weights
            (B*nW, h, m*m, K) of each window's centres on its own m*m centres followed by its neighbourhood.
        """
        B, H, W, C = image_tokens.shape
        w, m = self.window_size, self.centres
        windows = window_partition(image_tokens, w)
        nW = windows.shape[1]
        centres = self.pooling(windows.view(B * nW, w, w, C))
        queries = self.norm1(centres)
        tokens, weights = self.attend_from(
            centres if self.residual else None,
            queries,
            self._keys_values(image_tokens, centres, queries),
            return_attention,
        )
        tokens = window_reverse(tokens.view(B, nW, m * m, C), m, (H // w * m, W // w * m))
        return self.feed_forward(tokens), weights

    def _keys_values(self, image_tokens: Tensor, centres: Tensor, queries: Tensor) -> Tensor:
        """(B*nW, m*m + T, 2C): keys and values of every window's centres, then of its neighbourhood."""
        if self.project_once:
            own = self.keys_values(queries)
            around = gather_neighbourhoods(
                self.keys_values(self.norm1(image_tokens)), self.window_size, self.neighbourhood
            )
            return torch.cat([own, around.flatten(0, 1)], dim=1)
        around = gather_neighbourhoods(image_tokens, self.window_size, self.neighbourhood)
        return self.keys_values(self.norm1(torch.cat([centres, around.flatten(0, 1)], dim=1)))

    def image_attention(self, weights: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        """Lay the weights that :meth:`forward` returned over the map: (B, h, M, H*W), tokens in raster order."""
        H, W = grid_hw
        m, h = self.centres, weights.shape[1]
        nW = (H // self.window_size) * (W // self.window_size)
        around = weights[..., m * m :].unflatten(0, (-1, nW))
        whole = scatter_neighbourhoods(around, self.window_size, self.neighbourhood, grid_hw)
        rows = whole.permute(0, 1, 3, 2, 4).flatten(3)  # (B, nW, m*m, h*H*W): one row a centre, to sort like tokens
        raster = window_reverse(rows, m, (H // self.window_size * m, W // self.window_size * m))
        return raster.flatten(1, 2).unflatten(-1, (h, H * W)).transpose(1, 2)


class GlobalSTGMLayer(CrossAttentionLayer):
    """Later layers (Eq. 2): semantic tokens attend themselves and the whole image, ``Concat(S, X)``.

    Args:
        num_global_centres: number of learned global cluster centres G that are added to the queries; 0 for none, as in
            the released STViT-R weights.
        centres_in_keys: add G to the keys too, which makes it a learned position (the last row of Table 7). Values are
            projected together with the keys, so they see it as well.
        layer: arguments of :class:`CrossAttentionLayer`.
    """

    kind = "stgm"

    def __init__(
        self, dim: int, num_heads: int, *, num_global_centres: int = 0, centres_in_keys: bool = False, **layer: Any
    ) -> None:
        super().__init__(dim, num_heads, **layer)
        self.centres_in_keys = centres_in_keys
        self.global_centres = None
        if num_global_centres:
            self.global_centres = nn.Parameter(torch.empty(1, num_global_centres, dim))
            nn.init.trunc_normal_(self.global_centres, std=0.02)

    def forward(
        self,
        semantic_tokens: Tensor,
        image_tokens: Tensor,
        return_attention: bool = False,
        bias: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Update the semantic tokens (B, M, C) from themselves and the image tokens (B, N, C).

        Args:
            semantic_tokens: may begin with others that G is not added to.
            bias: added to the scaled logits; broadcasts to (B, h, M, M + N).
            rotary: positions of the semantic tokens, and of the semantic and image tokens.

        Returns:
            (B, M, C) and, if asked for, the softmax weights (B, h, M, M + N), semantic keys first.
        """
        guided = semantic_tokens
        if self.global_centres is not None:
            others = semantic_tokens.shape[1] - self.global_centres.shape[1]
            guided = semantic_tokens + F.pad(self.global_centres, (0, 0, others, 0))
        own_keys = guided if self.centres_in_keys else semantic_tokens
        keys = self.norm1(torch.cat([own_keys, image_tokens], dim=1))
        queries = keys[:, : guided.shape[1]] if own_keys is guided else self.norm1(guided)
        tokens, weights = self.attend_from(
            semantic_tokens, queries, self.keys_values(keys), return_attention, bias, rotary
        )
        return self.feed_forward(tokens), weights

    @staticmethod
    def image_attention(weights: Tensor) -> Tensor:
        """The part of the weights that lies on image tokens: (B, h, M, N)."""
        return weights[..., weights.shape[-2] :]


class FrameSTGMLayer(SpatialSTGMLayer):
    """First layer (Eq. 1) on maps of any size from one window on: every window's pooled centres attend the image tokens
    around it, and these only.

    Where the map is no multiple of the window, the last windows are moved to lie inside it and overlap their
    neighbours, as the neighbourhoods do at every border: no centre is made of padding, and none attends any.
    """

    def forward(self, image_tokens: Tensor, return_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """Image tokens (B, H, W, C) of single frames -> semantic tokens (B, ceil(H/w)*m, ceil(W/w)*m, C) and, if asked
        for, the softmax weights (B*nW, h, m*m, K) of each window's centres on its neighbourhood.

        Raises:
            ValueError: the map is smaller than a window.
        """
        B, H, W, C = image_tokens.shape
        w, m = self.window_size, self.centres
        if min(H, W) < w:
            raise ValueError(f"a map of {H}x{W} tokens is smaller than a window of {w}x{w}: take larger images")
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
