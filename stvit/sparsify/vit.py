"""Vision transformers with global attention, timm's ``VisionTransformer`` and ``Eva``, with semantic tokens.

The classes here come before timm's in the method resolution order of a sparsified model. All parameters keep their
names; new ones are those of the pooling and the learned centres G.
"""

from __future__ import annotations

import math
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from stvit.layers.attention import Rotary
from stvit.layers.pooling import IntraInterPooling, Layout, bin_cells
from stvit.layers.reducing_vit import NO_FEATURE_MAPS
from stvit.layers.timm_training import RecomputedLayers
from stvit.trace import LayerTrace, TokenTrace


class Traced:
    """``return_trace`` for models whose output is ``forward_head(norm(tokens))``."""

    def forward(self, images: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """As of the original, and what every layer did if it is asked for."""
        if not return_trace:
            return super().forward(images)
        tokens, layers = self.run_layers(images, return_trace)
        return self.forward_head(self.norm(tokens)), TokenTrace(layers)


class SparseViT(RecomputedLayers):
    """timm's ``VisionTransformer`` whose layers from ``stgm_position`` on process semantic tokens.

    Prefix tokens (class, registers) go on beside them, attending and attended. What the keys of a layer weigh together
    is what the image tokens weighed: a semantic token counts N / M of them in the softmax (as a merged token does in
    ToMe), and in later layers of the STGM the image tokens have the share of 1 - M / N that the semantic ones leave.
    With M = N and G at zero, where it starts, the model computes exactly what the original does.

    Attributes:
        stgm_position: layers before the STGM.
        stgm_layers: layers of the STGM.
        semantic_grid_hw: rows and columns of the semantic tokens.
        frozen_start: whether what comes before the STGM learns nothing.
    """

    stgm_position: int
    stgm_layers: int
    semantic_grid_hw: tuple[int, int]
    frozen_start = False
    prefix_tokens_stay = True

    def forward_features(self, x: Tensor, attn_mask: Tensor | None = None, is_causal: bool = False) -> Tensor:
        """(B, 3, H, W) -> the normalised tokens (B, P + M, C), prefix tokens first."""
        if attn_mask is not None or is_causal:
            raise ValueError("a sparsified model takes no attention mask: its later layers have other tokens")
        return self.norm(self.run_layers(x)[0])

    def run_layers(self, images: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Images -> prefix and semantic tokens after the last layer and, if asked for, what every layer did."""
        trace: list[LayerTrace] = []
        grid_hw = self.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))
        prefix, (first, end) = self.num_prefix_tokens, (self.stgm_position, self.stgm_position + self.stgm_layers)
        num_semantic, num_image = math.prod(self.semantic_grid_hw), math.prod(grid_hw)
        with torch.no_grad() if self.frozen_start else nullcontext():
            tokens, ropes = self.embed(images)
            for i, layer in enumerate(self.blocks[:first]):
                tokens = self.run_layer(self.run_block, layer, tokens, ropes[i] if ropes else None)
                if return_trace:
                    trace.append(self._trace_layer(i, tokens[:, prefix:], None, grid_hw))
        image_tokens, weights = tokens, None
        for i, layer in enumerate(self.blocks[first:], start=first):
            rope = ropes[i] if ropes else None
            if i == first:
                image_tokens = tokens[:, prefix:] if num_semantic < num_image else tokens[:, :0]
                rotary = self._rotary(rope, grid_hw, ((0, prefix), (1, num_image)))
                tokens, weights = self.run_layer(layer, tokens, grid_hw, return_trace, rotary)
            elif i < end:
                rotary = self._rotary(rope, grid_hw, ((0, prefix), (2, num_semantic), (1, image_tokens.shape[1])))
                share = math.log(1 - num_semantic / num_image) if num_semantic < num_image else 0.0
                bias = key_bias(tokens, (prefix + num_semantic, 0.0), (image_tokens.shape[1], share))
                tokens, weights = self.run_layer(layer, tokens, image_tokens, return_trace, bias, rotary)
            else:
                at_bins = self._at_bins(rope, grid_hw) if rope is not None else None
                bias = key_bias(tokens, (prefix, 0.0), (num_semantic, math.log(num_image / num_semantic)))
                tokens = self.run_layer(self.run_block, layer, tokens, at_bins, bias if prefix else None)
            if return_trace:
                trace.append(self._trace_layer(i, tokens[:, prefix:], weights, grid_hw))
        return tokens, tuple(trace)

    def embed(self, images: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """Images -> (B, P + N, C), prefix tokens first, and the rotary embeddings of every layer, if it has any."""
        return self.norm_pre(self._pos_embed(self.patch_embed(images))), None

    def run_block(self, layer: nn.Module, tokens: Tensor, rope: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """One of timm's layers."""
        return layer(tokens) if bias is None else layer(tokens, attn_mask=bias)

    def _rotary(
        self, rope: Tensor | None, grid_hw: tuple[int, int], keys: tuple[tuple[int, int], ...]
    ) -> Rotary | None:
        """Positions of an STGM layer: queries are prefix and semantic tokens; keys are numbers of prefix (0), image (1)
        or semantic (2) tokens."""
        if rope is None:
            return None
        sine = rope[..., :1, : rope.shape[-1] // 2].expand(*rope.shape[:-2], self.num_prefix_tokens, -1)
        still = torch.cat([torch.zeros_like(sine), torch.ones_like(sine)], dim=-1)
        semantic = self._at_bins(rope, grid_hw)
        kinds = (still, rope, semantic)
        sides = torch.cat([kinds[kind] for kind, count in keys if count], dim=-2)
        return Rotary(torch.cat([still, semantic], dim=-2), sides, self.blocks[0].attn.rotate_half)

    def _at_bins(self, rope: Tensor, grid_hw: tuple[int, int]) -> Tensor:
        pooling = self.blocks[self.stgm_position].pooling
        layout = pooling.layout if isinstance(pooling, IntraInterPooling) else "map"
        return rope_at_bins(rope, grid_hw, self.semantic_grid_hw, layout)

    def _trace_layer(self, i: int, tokens: Tensor, weights: Tensor | None, grid_hw: tuple[int, int]) -> LayerTrace:
        """What layer ``i`` (from 0) did; prefix tokens are left out of ``tokens``."""
        if i < self.stgm_position:
            return LayerTrace(f"Layer {i + 1}", "image", tokens, grid_hw)
        number = i - self.stgm_position + 1
        if number > self.stgm_layers:
            return LayerTrace(f"Layer {i + 1}", "semantic", tokens, grid_hw, self.semantic_grid_hw)
        last = weights.shape[-1] - math.prod(grid_hw)
        on_image = weights[:, :, self.num_prefix_tokens :, max(last, 0) :]
        return LayerTrace(f"STGM {number}", "stgm", tokens, grid_hw, self.semantic_grid_hw, on_image)

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not available: the tokens do not stay a map.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_FEATURE_MAPS.format("a sparsified model"))

    prune_intermediate_layers = forward_intermediates

    def set_input_size(self, img_size: Any = None, patch_size: Any = None) -> None:
        """As of timm.

        Raises:
            ValueError: the pooling of the STGM belongs to one size.
        """
        if isinstance(self.blocks[self.stgm_position].pooling, IntraInterPooling):
            raise ValueError("pooling 'intra_inter' belongs to one image size: resize the original, then sparsify it")
        super().set_input_size(img_size, patch_size)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        centres = {name for name, _ in self.named_parameters() if name.endswith("global_centres")}
        return super().no_weight_decay() | centres


class SparseEva(SparseViT):
    """The same for timm's ``Eva``; rotary positions of semantic tokens are those of the middles of their bins."""

    def embed(self, images: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        """See the base class."""
        tokens, rope = self._pos_embed(self.patch_embed(images))
        if rope is None:
            return self.norm_pre(tokens), None
        return self.norm_pre(tokens), list(rope) if self.rope_mixed else [rope] * len(self.blocks)

    def run_block(self, layer: nn.Module, tokens: Tensor, rope: Tensor | None, bias: Tensor | None = None) -> Tensor:
        """See the base class."""
        return layer(tokens, rope=rope, attn_mask=bias)


def key_bias(like: Tensor, *groups: tuple[int, float]) -> Tensor | None:
    """(1, 1, 1, K): one bias for each group of keys; ``None`` where all are zero.

    Args:
        like: of the bias's type and device.
        groups: number of keys and their bias.
    """
    if not any(bias for count, bias in groups if count):
        return None
    return torch.cat([like.new_full((1, 1, 1, count), bias) for count, bias in groups], dim=-1)


def rope_at_bins(rope: Tensor, grid_hw: tuple[int, int], bins_hw: tuple[int, int], layout: Layout) -> Tensor:
    """Rotary embeddings of the cells of a grid (..., N, 2d) -> of the middles of its bins (..., M, 2d).

    The middle of an even number of cells lies half-way between two: the angle there is that of the sum of their sines
    and cosines, as neighbours are less than half a turn apart.
    """
    grid = rope.unflatten(-2, grid_hw)
    for axis, length, bins in ((-3, grid_hw[0], bins_hw[0]), (-2, grid_hw[1], bins_hw[1])):
        cells = [[cell for cell in one if cell >= 0] for one in bin_cells(length, bins, layout)]
        ends = [((one[0] + one[-1]) // 2, (one[0] + one[-1] + 1) // 2) for one in cells]
        middles = [(grid.select(axis, low) + grid.select(axis, high)) / 2 for low, high in ends]
        grid = torch.stack(middles, dim=axis)
    sine, cosine = grid.flatten(-3, -2).chunk(2, dim=-1)
    length = torch.hypot(sine, cosine)
    return torch.cat([sine / length, cosine / length], dim=-1)
