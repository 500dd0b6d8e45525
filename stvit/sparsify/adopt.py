"""Layers of semantic tokens made of the layers that they replace: the same modules, under the same names."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.layers.attention import CrossAttention, CrossAttentionLayer, merge_heads
from stvit.layers.stgm import GlobalSTGMLayer, WholeMapSTGMLayer

#: of a layer, what a layer of semantic tokens has in another form
REPLACED = ("attn", "drop_path1", "drop_path2")
#: of an attention, what attention of semantic tokens has in another form or, as they are in no window, not at all
NOT_TAKEN = ("attn_drop", "softmax", "relative_position_bias_table", "relative_position_index")

Layer = TypeVar("Layer", bound=CrossAttentionLayer)


class AdoptedAttention(CrossAttention):
    """Attention between two sets of tokens with the modules of timm's self-attention: fused or separate projections,
    norms of queries, keys and output, a gate.

    Args:
        attention: timm's ``Attention``, ``AttentionRope``, ``EvaAttention`` or ``WindowAttention`` of Swin.
    """

    def __init__(self, attention: nn.Module) -> None:
        nn.Module.__init__(self)
        take_over(self, attention, NOT_TAKEN)
        self.num_heads, self.fused = attention.num_heads, attention.fused_attn
        self.attn_drop = attention.attn_drop.p
        self.rotate_half = getattr(attention, "rotate_half", False)  # how the network pairs rotary channels

    def q(self, normalised: Tensor) -> Tensor:
        """(B, Q, C) -> (B, Q, h * d)."""
        if self._modules.get("qkv") is None:
            return self.q_proj(normalised)
        weight, bias = self._fused()
        end = len(weight) // 3
        return F.linear(normalised, weight[:end], None if bias is None else bias[:end])

    def kv(self, normalised: Tensor) -> Tensor:
        """(B, K, C) -> (B, K, 2 * h * d)."""
        if self._modules.get("qkv") is None:
            return torch.cat([self.k_proj(normalised), self.v_proj(normalised)], dim=-1)
        weight, bias = self._fused()
        start = len(weight) // 3
        return F.linear(normalised, weight[start:], None if bias is None else bias[start:])

    def _fused(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of queries, keys and values together."""
        if self._parameters.get("q_bias") is not None:
            return self.qkv.weight, torch.cat([self.q_bias, self.k_bias, self.v_bias])
        return self.qkv.weight, self.qkv.bias

    def split(self, queries: Tensor, keys_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As for every attention, with the norms of queries and keys."""
        q, k, v = super().split(queries, keys_values)
        q_norm, k_norm = self._modules.get("q_norm"), self._modules.get("k_norm")
        return q_norm(q) if q_norm else q, k_norm(k) if k_norm else k, v

    def merge(self, attended: Tensor, queries: Tensor) -> Tensor:
        """As for every attention, with the norm of the output and the gate."""
        merged, norm, gate = merge_heads(attended), self._modules.get("norm"), self._modules.get("gate")
        merged = norm(merged) if norm else merged
        return merged * gate(queries).sigmoid() if gate else merged


class _OwnScales:
    """LayerScale as timm's Eva has it: parameters of the layer itself."""

    def ls1(self, attended: Tensor) -> Tensor:
        return self._scaled(attended, "gamma_1")

    def ls2(self, processed: Tensor) -> Tensor:
        return self._scaled(processed, "gamma_2")

    def _scaled(self, tokens: Tensor, name: str) -> Tensor:
        scale = self._parameters.get(name)
        return tokens if scale is None else tokens * scale


class EvaWholeMapSTGMLayer(_OwnScales, WholeMapSTGMLayer):
    """First layer of the STGM in place of a layer of timm's Eva."""


class EvaGlobalSTGMLayer(_OwnScales, GlobalSTGMLayer):
    """Later layer of the STGM in place of a layer of timm's Eva."""


def adopt(kind: type[Layer], block: nn.Module, **attributes: Any) -> Layer:
    """Make a layer of semantic tokens of one of timm's pre-norm layers; the two share all modules.

    Args:
        kind: the layer's class.
        block: timm's ``Block``, ``EvaBlock`` or ``SwinTransformerBlock``.
        attributes: what the class has beyond a :class:`CrossAttentionLayer`, e.g. ``pooling``.
    """
    layer = kind.__new__(kind)
    nn.Module.__init__(layer)
    take_over(layer, block, REPLACED)
    layer.attn, layer.drop_path = AdoptedAttention(block.attn), block.drop_path1
    if not hasattr(layer, "ls1"):  # Swin has no LayerScale
        layer.ls1, layer.ls2 = nn.Identity(), nn.Identity()
    for name, value in attributes.items():
        setattr(layer, name, value)
    return layer.train(block.training)


def take_over(module: nn.Module, source: nn.Module, left_out: tuple[str, ...]) -> None:
    """Give a module the children, parameters and buffers of another, under their names."""
    for own, theirs in (
        (module._modules, source._modules),
        (module._parameters, source._parameters),
        (module._buffers, source._buffers),
    ):
        own.update({name: value for name, value in theirs.items() if name not in left_out})
    module._non_persistent_buffers_set.update(source._non_persistent_buffers_set & module._buffers.keys())
