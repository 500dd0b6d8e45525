"""Swin Transformer parts (Liu et al., 2021) on channels-last token maps of any size that fits the window grid."""

from __future__ import annotations

from typing import Any

import torch
from timm.layers import DropPath, Mlp, trunc_normal_, use_fused_attn
from torch import Tensor, nn

from stvit.trace import LayerTrace, TokenTrace

from .attention import attend, merge_heads, split_heads
from .timm_training import LayerGroups, RecomputedLayers, stage_groups, swin_groups
from .windows import pad_to_multiple, window_partition, window_reverse

#: added to the logits of token pairs that a cyclic shift brings together though they are not neighbours
SHIFT_MASK = -100.0


class ConvStem(nn.Module):
    """Two 3x3 stride-2 convolutions with BatchNorm and Hardswish: (B, 3, 4H, 4W) -> (B, H, W, C).

    The stem of every Swin model of the paper; the patch stem would miss the published FLOPs by 2 to 4 %.
    """

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(dim // 2)
        self.conv2 = nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(dim)
        self.act = nn.Hardswish()

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)  # so that the tokens come out contiguous
        features = self.act(self.bn1(self.conv1(images)))
        return self.act(self.bn2(self.conv2(features))).permute(0, 2, 3, 1).contiguous()


class PatchStem(nn.Module):
    """Swin's own stem, a projection of 4x4-pixel patches with LayerNorm: (B, 3, 4H, 4W) -> (B, H, W, C)."""

    def __init__(self, in_chans: int, dim: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(in_chans, dim, 4, stride=4)
        self.norm = nn.LayerNorm(dim)

    def forward(self, images: Tensor) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)  # so that the tokens come out contiguous
        return self.norm(self.proj(images).permute(0, 2, 3, 1))


def relative_position_index(window_size: int) -> Tensor:
    """(w*w, w*w) int64: row of the bias table for each pair of tokens of one window."""
    rows, columns = torch.meshgrid(torch.arange(window_size), torch.arange(window_size), indexing="ij")
    position = torch.stack([rows.flatten(), columns.flatten()])
    offset = position[:, :, None] - position[:, None, :] + window_size - 1
    return offset[0] * (2 * window_size - 1) + offset[1]


def shifted_window_mask(grid_hw: tuple[int, int], window_size: int, shift: int, device: torch.device) -> Tensor:
    """(nW, w*w, w*w), ``SHIFT_MASK`` between tokens that only the cyclic shift made neighbours, else 0."""

    def region(length: int) -> Tensor:
        """0, 1 or 2: before, in, or wrapped around at the end of the axis after the shift."""
        position = torch.arange(length, device=device)
        return (position >= length - window_size).long() + (position >= length - shift).long()

    regions = region(grid_hw[0])[:, None] * 3 + region(grid_hw[1])[None, :]
    windows = window_partition(regions[None, :, :, None], window_size)[0, :, :, 0]
    return (windows[:, None, :] != windows[:, :, None]) * SHIFT_MASK


class WindowAttention(nn.Module):
    """Multi-head self-attention inside w x w windows, with relative position bias."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        window_size: int,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
    ) -> None:
        super().__init__()
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.fused = use_fused_attn()
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)
        self.relative_position_bias_table = nn.Parameter(torch.zeros((2 * window_size - 1) ** 2, num_heads))
        self.register_buffer("relative_position_index", relative_position_index(window_size), persistent=False)
        trunc_normal_(self.relative_position_bias_table, std=0.02)

    def forward(self, windows: Tensor, mask: Tensor | None = None) -> Tensor:
        """(B, nW, w*w, C) -> (B, nW, w*w, C); ``mask`` (nW, w*w, w*w) is added to the logits."""
        B, nW, T, _ = windows.shape
        q, k, v = split_heads(self.qkv(windows).flatten(0, 1), self.num_heads, parts=3)
        dropout = self.attn_drop if self.training else 0.0
        attended, _ = attend(q, k, v, bias=self._bias(B, mask), dropout=dropout, fused=self.fused)
        return self.proj_drop(self.proj(merge_heads(attended))).view(B, nW, T, -1)

    def _bias(self, batch: int, mask: Tensor | None) -> Tensor:
        """Position bias, plus the mask if any: broadcasts to (B * nW, h, w*w, w*w)."""
        T = self.relative_position_index.shape[0]
        bias = self.relative_position_bias_table[self.relative_position_index.flatten()].view(T, T, -1)
        bias = bias.permute(2, 0, 1).unsqueeze(0)
        if mask is None:
            return bias
        per_window = bias + mask.unsqueeze(1).to(bias.dtype)
        return per_window.expand(batch, *per_window.shape).flatten(0, 1)


class SwinLayer(nn.Module):
    """Pre-norm Swin layer; maps that do not fit the window grid are padded with zeros, which take part as they are.

    Args:
        shifted: shift the windows by half a window, if the map is larger than one.
        shift_any: shift on a map of a single window too, as Swin's code for dense tasks does.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window_size: int = 7,
        shifted: bool = False,
        shift_any: bool = False,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size, self.shifted, self.shift_any = window_size, shifted, shift_any
        self.norm1 = nn.LayerNorm(dim)
        self.attn = WindowAttention(dim, num_heads, window_size, qkv_bias, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, token_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C)."""
        token_map = token_map + self.drop_path(self._attention(self.norm1(token_map)))
        return token_map + self.drop_path(self.mlp(self.norm2(token_map)))

    def _attention(self, token_map: Tensor) -> Tensor:
        H, W = token_map.shape[1:3]
        token_map = pad_to_multiple(token_map, self.window_size)
        grid_hw = tuple(token_map.shape[1:3])
        shifts = self.shifted and (self.shift_any or min(grid_hw) > self.window_size)
        shift = self.window_size // 2 if shifts else 0
        mask = None
        if shift:
            token_map = token_map.roll((-shift, -shift), dims=(1, 2))
            mask = shifted_window_mask(grid_hw, self.window_size, shift, token_map.device)
        windows = self.attn(window_partition(token_map, self.window_size), mask)
        token_map = window_reverse(windows, self.window_size, grid_hw)
        token_map = token_map.roll((shift, shift), dims=(1, 2)) if shift else token_map
        return token_map[:, :H, :W]


def swin_layers(dim: int, num_heads: int, drop_paths: list[float], **layer: Any) -> list[SwinLayer]:
    """The layers of one stage, one for each rate of stochastic depth; every second one shifts its windows."""
    return [SwinLayer(dim, num_heads, shifted=i % 2 == 1, drop_path=rate, **layer) for i, rate in enumerate(drop_paths)]


class PatchMerging(nn.Module):
    """Halve the map and double the channels: (B, H, W, C) -> (B, H/2, W/2, 2C), odd sides rounded up."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(4 * dim)
        self.reduction = nn.Linear(4 * dim, 2 * dim, bias=False)

    def forward(self, token_map: Tensor) -> Tensor:
        token_map = pad_to_multiple(token_map, 2)
        B, H, W, C = token_map.shape
        # neighbours in the order (row, column) = (0, 0), (1, 0), (0, 1), (1, 1), as Swin's weights expect
        merged = token_map.reshape(B, H // 2, 2, W // 2, 2, C).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return self.reduction(self.norm(merged))


class SwinStage(RecomputedLayers, nn.Module):
    """Swin layers, then an optional :class:`PatchMerging`."""

    def __init__(self, layers: list[SwinLayer], downsample: nn.Module | None = None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.downsample = downsample or nn.Identity()

    def forward(self, token_map: Tensor) -> Tensor:
        return self.downsample(self.run_layers(token_map)[0])

    def run_layers(self, token_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """All but the merging, (B, H, W, C) -> (B, H, W, C); nothing here deals with semantic tokens."""
        if not self.grad_checkpointing:
            return self.layers(token_map), ()
        for layer in self.layers:
            token_map = self.run_layer(layer, token_map)
        return token_map, ()


class TokenMapClassifier(RecomputedLayers, nn.Module):
    """A network that ends in ``norm`` over a token map, the mean of the map and a linear ``head``; timm's interface."""

    output_fmt = "NHWC"
    in_chans: int
    norm: nn.LayerNorm
    head_drop: nn.Dropout
    head: nn.Module
    num_features: int
    num_classes: int
    global_pool: str

    def _run_stages(self, images: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Images (B, 3, H, W) -> the last token map (B, h, w, C) and, if asked for, what the layers did."""
        raise NotImplementedError

    def forward(self, images: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """Classify normalised images.

        Args:
            images: (B, 3, H, W) with ImageNet mean and deviation, of a size that fits the model's windows.
            return_trace: also return what every layer did that deals with semantic tokens.

        Returns:
            Logits (B, num_classes), and the :class:`TokenTrace` if asked for.

        Raises:
            ValueError: images of a size that does not fit.
        """
        token_map, trace = self._run_stages(images, return_trace)
        logits = self.forward_head(self.norm(token_map))
        return (logits, TokenTrace(trace)) if return_trace else logits

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the normalised last token map (B, h, w, C)."""
        return self.norm(self._run_stages(images)[0])

    def forward_head(self, token_map: Tensor, pre_logits: bool = False) -> Tensor:
        """Pool a (B, ..., C) map over its tokens and classify it."""
        every_token = tuple(range(1, token_map.ndim - 1))
        pooled = self.head_drop(token_map.mean(dim=every_token) if self.global_pool else token_map)
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the head by a fresh one for ``num_classes`` classes; 0 removes it."""
        self.num_classes = num_classes
        self.global_pool = self.global_pool if global_pool is None else global_pool
        like = {"device": self.norm.weight.device, "dtype": self.norm.weight.dtype}
        self.head = nn.Linear(self.num_features, num_classes, **like) if num_classes else nn.Identity()
        self.head.train(self.training)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """timm's grouping of parameters for layer-wise learning rates: every layer, or the stages."""
        return stage_groups() if coarse else swin_groups()

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        return {n for n, _ in self.named_parameters() if "relative_position_bias_table" in n or "global_centres" in n}


def check_swin_input(images_hw: tuple[int, int], window_size: int = 7) -> None:
    """Refuse sizes whose stages do not fit the window grid.

    Raises:
        ValueError: a side is not a multiple of 32 times the window size.
    """
    multiple = 32 * window_size
    if any(side % multiple or not side for side in images_hw):
        raise ValueError(
            f"input of {images_hw[0]}x{images_hw[1]} pixels does not fit the {window_size}x{window_size} windows of "
            f"stages at strides 4 to 32: height and width must be multiples of {multiple}"
        )
