"""A-ViT (Yin et al., CVPR 2022, arXiv 2112.07658): every token decides for itself after which layer it halts.

Written after the paper and the behaviour of the released models. Where the released code masks halted tokens and
computes them all the same, here they are really dropped. It adds no parameters: DeiT's names and shapes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Real
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import Tensor

from stvit.layers.attention import attend, merge_heads, split_heads
from stvit.layers.reducing_vit import (
    FullTokenWeights,
    ReducingVisionTransformer,
    build_reducing_model,
    self_attention,
)
from stvit.pretrained.records import DRIVE_PAGE, ModelRecord
from stvit.trace import LayerTrace

from .stvit_deit import DEIT_PREPROCESSING, DEIT_SIZES

EPS = 0.01  # a token halts when its scores add up to more than one minus this
HALTED_KEY = -1000.0  # added to the logits of halted keys where they are masked and not dropped


@dataclass(frozen=True)
class Halting:
    """When the tokens of a batch halted, the class token first.

    Attributes:
        scores: (B, layers, 1 + N) in [0, 1], the gate after every layer; 0 for halted tokens, 1 in the last layer.
        alive: (B, layers, 1 + N) bool, the tokens that enter each layer.
        remainders: (B, 1 + N), one minus the scores before the layer at which a token halted.
    """

    scores: Tensor
    alive: Tensor
    remainders: Tensor

    @property
    def depths(self) -> Tensor:
        """(B, 1 + N) int64, the number of layers that each token goes through."""
        return self.alive.sum(dim=1)


class HaltingBlock(Block):
    """timm's transformer layer where halted tokens are not attended to, or not there."""

    def forward(self, tokens: Tensor, alive: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C); nothing attends to tokens that are not alive (B, T)."""
        bias = torch.zeros_like(tokens[..., 0]).masked_fill(~alive, HALTED_KEY)[:, None, None]
        attended, _, _ = self_attention(self.attn, self.norm1(tokens), bias)
        tokens = tokens + self.drop_path1(self.ls1(attended))
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))

    def forward_packed(self, packed: Tensor, pictures: Tensor, batch: int) -> Tensor:
        """(P, C) -> (P, C): the tokens of several pictures, of different numbers, one picture after the other.

        Args:
            pictures: (P,) int64, ascending: which picture each token belongs to.
            batch: number of pictures.
        """
        counts = torch.bincount(pictures, minlength=batch)
        slots = torch.arange(len(packed), device=packed.device) - (counts.cumsum(0) - counts)[pictures]
        qkv = self.attn.qkv(self.norm1(packed))
        padded = qkv.new_zeros(batch, int(counts.max()), qkv.shape[-1]).index_put((pictures, slots), qkv)
        filled = torch.arange(padded.shape[1], device=counts.device) < counts[:, None]
        bias = None
        if not filled.all():
            bias = torch.zeros_like(filled, dtype=qkv.dtype).masked_fill(~filled, HALTED_KEY)[:, None, None]
        q, k, v = split_heads(padded, self.attn.num_heads, parts=3)
        attended, _ = attend(q, k, v, bias=bias, fused=self.attn.fused_attn)
        packed = packed + self.ls1(self.attn.proj(merge_heads(attended)[pictures, slots]))
        return packed + self.ls2(self.mlp(self.norm2(packed)))


class AViT(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token whose tokens halt by a gate on their first channel (paper, Eq. 4 to 9).

    A token's output is the sum of its states after the layers that it went through, weighted by their scores. Tokens
    that go on are packed over the whole batch, so a picture costs what its own tokens need; attention alone is padded
    to the picture with the most. In training, on the meta device and in graphs, where shapes may not depend on values,
    halted tokens are masked instead: the same outputs to rounding, at full cost.

    Args:
        gate_scale, gate_centre: the score is ``sigmoid(gate_scale * channel - gate_centre)``, finite numbers.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: scale or centre is no finite number.
    """

    def __init__(self, *, gate_scale: float = 10.0, gate_centre: float = 75.0, **vit: Any) -> None:
        for name, value in (("gate_scale", gate_scale), ("gate_centre", gate_centre)):
            if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
                raise ValueError(f"{name}={value!r}: choose a finite number; for DeiT-S the authors use 10 and 75")
        super().__init__(block_fn=HaltingBlock, **vit)
        self.gate_scale, self.gate_centre = gate_scale, gate_centre

    def halting(self, images: Tensor) -> Halting:
        """When every token of the images (B, 3, H, W) halts; differentiable in the scores, for a ponder loss."""
        return self.run_masked(self.embed(images))[1]

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> the tokens' weighted states (B, 1 + N, C), and what every layer did if asked for."""
        if return_trace:
            output, halting, states = self.run_masked(tokens)
            return output, self._trace(halting, states, grid_hw)
        if self.training or fixed_shapes(tokens):
            return self.run_masked(tokens)[0], ()
        return self.run_packed(tokens), ()

    def run_packed(self, tokens: Tensor) -> Tensor:
        """(B, 1 + N, C) -> weighted states (B, 1 + N, C); layers run on the tokens that have not halted."""
        B, T, C = tokens.shape
        exact = _exact(tokens.dtype)
        output, total = tokens.new_zeros(B * T, C, dtype=exact), tokens.new_zeros(B * T, dtype=exact)
        packed, places = tokens.flatten(0, 1), torch.arange(B * T, device=tokens.device)
        for i, block in enumerate(self.blocks):
            packed = block.forward_packed(packed, places // T, B)
            score = self._score(packed, last=i == len(self.blocks) - 1)
            halts = total + score > 1 - EPS
            output[places] += torch.where(halts, 1 - total, score)[:, None] * packed
            packed, places, total = packed[~halts], places[~halts], (total + score)[~halts]
            if not len(places):
                break
        return output.view(B, T, C).to(tokens.dtype)

    def run_masked(self, tokens: Tensor) -> tuple[Tensor, Halting, tuple[Tensor, ...]]:
        """The same with shapes that do not depend on values; also when tokens halt, and all states of each layer."""
        alive = torch.ones_like(tokens[..., 0], dtype=torch.bool)
        total = torch.zeros_like(tokens[..., 0], dtype=_exact(tokens.dtype))
        remainders, output = torch.zeros_like(total), 0.0
        scores, entering, states = [], [], []
        for i, block in enumerate(self.blocks):
            entering.append(alive)
            tokens = self.run_layer(block, tokens, alive)
            score = self._score(tokens, last=i == len(self.blocks) - 1) * alive
            halts = alive & (total + score > 1 - EPS)
            remainders = torch.where(halts, 1 - total, remainders)
            output = output + torch.where(halts, 1 - total, score)[..., None] * tokens
            total, alive = total + score, alive & ~halts
            scores.append(score)
            states.append(tokens)
        halting = Halting(torch.stack(scores, 1), torch.stack(entering, 1), remainders)
        return output.to(tokens.dtype), halting, tuple(states)

    def _score(self, tokens: Tensor, last: bool) -> Tensor:
        channel = tokens[..., 0].to(_exact(tokens.dtype))
        return torch.ones_like(channel) if last else torch.sigmoid(channel * self.gate_scale - self.gate_centre)

    def _trace(self, halting: Halting, states: tuple[Tensor, ...], grid_hw: tuple[int, int]) -> tuple[LayerTrace, ...]:
        """Halted tokens count as dropped from the next layer on; tokens that go on come first, others fill up."""
        layers = []
        for i, tokens in enumerate(states):
            alive = halting.alive[:, i, 1:]
            longest = alive.shape[1] if fixed_shapes(alive) else int(alive.sum(dim=1).max())
            order = (~alive).long().argsort(dim=1, stable=True)[:, :longest]
            going_on = tokens[:, 1:].gather(1, order[..., None].expand(-1, -1, tokens.shape[2]))
            assignment = torch.where(alive, alive.cumsum(dim=1) - 1, -1)
            name, moved = f"Layer {i + 1}", {"assignment": assignment, "fate": "halted"}
            layers.append(LayerTrace(name, "reduction", going_on, grid_hw, **moved))
        return tuple(layers)


def _exact(dtype: torch.dtype) -> torch.dtype:
    """Of scores and their sums: around a centre of 75, bfloat16 tells no more than halves apart."""
    return torch.promote_types(dtype, torch.float32)


def fixed_shapes(tensor: Tensor) -> bool:
    """Whether no shape may depend on values: on the meta device and in graphs that are exported, compiled or
    captured."""
    captured = tensor.is_cuda and torch.cuda.is_current_stream_capturing()
    return tensor.is_meta or torch.compiler.is_compiling() or captured


PAPER = {
    "paper_ids": "arXiv:2112.07658",
    "paper_name": "A-ViT: Adaptive Tokens for Efficient Vision Transformer",
    "origin_url": "https://github.com/NVlabs/A-ViT",
    "license": "cc-by-nc-sa-4.0",
}
GATE_CENTRES = {"tiny": 30.0, "small": 75.0}
WEIGHTS = DRIVE_PAGE.format("1Fk_PzkEVs21Fv2ofCkmRL-CQRiGmPmxV")  # one archive with a file of each size
PUBLISHED = {  # the authors' repository; STViT paper, Table 4
    "tiny": {"top1": 71.4, "gmacs": 0.8},
    "small": {"top1": 78.6, "gmacs": 3.6},
}
default_cfgs = generate_default_cfgs(
    {
        f"avit_{size}_patch16_224": ModelRecord(
            **DEIT_PREPROCESSING,
            **PAPER,
            weights_page=WEIGHTS,
            published=PUBLISHED[size],
            published_note="multiply-adds of an average picture; halting is what the weights learned",
        )
        for size in GATE_CENTRES
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> AViT:
    arguments = {"gate_centre": GATE_CENTRES[size], **DEIT_SIZES[size], **kwargs}
    return build_reducing_model(AViT, f"avit_{size}_patch16_224", pretrained, **arguments)


@register_model
def avit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> AViT:
    """A-ViT on DeiT-T: published 71.4 % top-1 at 0.8 G multiply-adds on average."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def avit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> AViT:
    """A-ViT on DeiT-S: published 78.6 % top-1 at 3.6 G multiply-adds on average."""
    return _create("small", pretrained, **kwargs)
