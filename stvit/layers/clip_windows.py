"""Windows in three dimensions: cutting clip maps into them, putting them together again, attention inside them.

A clip map is (B, T, H, W, C): T token frames of H rows and W columns. Sizes are (frames, rows, columns).
"""

from __future__ import annotations

import math

import torch
from timm.layers import trunc_normal_, use_fused_attn
from torch import Tensor, nn
from torch.nn import functional as F

from .attention import attend, merge_heads, split_heads
from .swin_layers import SHIFT_MASK

Size3d = tuple[int, int, int]

#: tokens of a window from which the fused kernel is the faster one everywhere: for bfloat16 on CPUs, where it is slower
#: on small windows, a clip of Video Swin-T with its windows of 392 tokens takes 1.25 s with it and 1.58 s without
FUSED_FROM = 256


def pad_clip(clip: Tensor, multiples: Size3d) -> Tensor:
    """(B, T, H, W, C) -> (B, T', H', W', C): zeros at the far ends, up to multiples of these."""
    frames, below, right = (-side % multiple for side, multiple in zip(clip.shape[1:4], multiples, strict=True))
    return F.pad(clip, (0, 0, 0, right, 0, below, 0, frames)) if frames or below or right else clip


def clip_partition(clip_map: Tensor, window: Size3d) -> Tensor:
    """(B, T, H, W, C) -> (B, T/t, H/h, W/w, t*h*w, C), disjoint windows; sides are multiples of the window's."""
    B, T, H, W, C = clip_map.shape
    t, h, w = window
    windows = clip_map.reshape(B, T // t, t, H // h, h, W // w, w, C).permute(0, 1, 3, 5, 2, 4, 6, 7)
    return windows.reshape(B, T // t, H // h, W // w, t * h * w, C)


def clip_reverse(windows: Tensor, window: Size3d) -> Tensor:
    """(B, T/t, H/h, W/w, t*h*w, C) -> (B, T, H, W, C), the inverse of :func:`clip_partition`."""
    B, frames, rows, columns, _, C = windows.shape
    t, h, w = window
    clip_map = windows.view(B, frames, rows, columns, t, h, w, C).permute(0, 1, 4, 2, 5, 3, 6, 7)
    return clip_map.reshape(B, frames * t, rows * h, columns * w, C)


def fit_window(grid: Size3d, window_size: Size3d, shifted: bool) -> tuple[Size3d, Size3d]:
    """The window on a map of that size, and how far it is shifted: along an axis that a window covers, the window
    shrinks to the map and is not shifted."""
    sides = list(zip(grid, window_size, strict=True))
    window = tuple(min(length, side) for length, side in sides)
    shift = tuple(side // 2 if shifted and length > side else 0 for length, side in sides)
    return window, shift


def position_codes(window_size: Size3d) -> Tensor:
    """(t*h*w,) int64: one number a token, such that differences tell all relative positions apart."""
    t, h, w = (torch.arange(side) for side in window_size)
    height, width = (2 * side - 1 for side in window_size[1:])
    return (t[:, None, None] * height * width + h[:, None] * width + w).flatten()


class ClipWindowAttention(nn.Module):
    """Multi-head self-attention inside 3D windows, with relative position bias.

    Where a window is smaller than ``window_size``, the bias is that of the first tokens of the full window, as in the
    published code. For fewer frames these are the same positions; for fewer rows or columns they are not.
    """

    def __init__(
        self, dim: int, num_heads: int, window_size: Size3d, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.fused = use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        offsets = math.prod(2 * side - 1 for side in window_size)
        self.relative_position_bias_table = nn.Parameter(torch.zeros(offsets, num_heads))
        self.register_buffer("position_codes", position_codes(window_size), persistent=False)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, window: Size3d, shift: Size3d) -> Tensor:
        """Attend within each window.

        Args:
            windows: (B, T/t, H/h, W/w, t*h*w, C), cut out of a map that was rolled back by ``shift``.
            window: t, h, w.
            shift: 0 along the axes that were not rolled.
        """
        attended = self._attend_rolled(self.qkv(windows), self._bias(windows.shape[4]), window, shift)
        return self.proj_drop(self.proj(attended))

    def _attend_rolled(
        self, qkv: Tensor, bias: Tensor, window: Size3d, shift: Size3d, crossing: tuple[int, ...] = ()
    ) -> Tensor:
        """Set the last windows of every rolled axis apart, one axis after the other: only they hold tokens of both ends
        of the map. So each of at most eight kinds of windows needs one mask, and most windows none.

        Args:
            crossing: for the axes done so far, the shift if these are the last windows along them, else 0.
        """
        axis = len(crossing)
        if axis == len(shift):
            mask = wrap_mask(window, crossing, qkv.device).to(bias.dtype) if any(crossing) else 0
            return self._attend(qkv, bias + mask)
        if not shift[axis]:
            return self._attend_rolled(qkv, bias, window, shift, (*crossing, 0))
        inner, last = qkv.tensor_split((qkv.shape[axis + 1] - 1,), dim=axis + 1)
        parts = (
            self._attend_rolled(inner, bias, window, shift, (*crossing, 0)),
            self._attend_rolled(last, bias, window, shift, (*crossing, shift[axis])),
        )
        return torch.cat(parts, dim=axis + 1)

    def _attend(self, qkv: Tensor, bias: Tensor) -> Tensor:
        """(B, ..., t*h*w, 3C) and (1, h, t*h*w, t*h*w) -> (B, ..., t*h*w, C)."""
        q, k, v = split_heads(qkv.flatten(0, 3), self.num_heads, parts=3)
        dropout = self.attn_drop if self.training else 0.0
        if self.fused and q.shape[2] >= FUSED_FROM:
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=dropout)
        else:
            attended, _ = attend(q, k, v, bias=bias, dropout=dropout, fused=self.fused)
        return merge_heads(attended).view(*qkv.shape[:-1], -1)

    def _bias(self, tokens: int) -> Tensor:
        """(1, h, tokens, tokens): the position bias of the first tokens of a window."""
        codes = self.position_codes[:tokens]
        index = codes[:, None] - codes + self.position_codes[-1]
        return self.relative_position_bias_table.t()[:, index.flatten()].view(1, -1, tokens, tokens)


def wrap_mask(window: Size3d, crossing: tuple[int, ...], device: torch.device) -> Tensor:
    """(t*h*w, t*h*w): ``SHIFT_MASK`` between tokens that only the roll made neighbours, else 0.

    Args:
        window: t, h, w.
        crossing: how many tokens at the far end of each axis come from the other end of the map.
    """
    t, h, w = (torch.arange(side, device=device) >= side - step for side, step in zip(window, crossing, strict=True))
    region = (t[:, None, None] * 4 + h[:, None] * 2 + w).flatten()
    return (region[:, None] != region) * SHIFT_MASK
