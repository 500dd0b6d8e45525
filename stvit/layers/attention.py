"""Attention between any two sets of tokens, and the pre-norm transformer layer around it.

Shapes: B batch, Q queries, K keys, C channels, h heads.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from timm.layers import DropPath, LayerScale, Mlp, apply_rot_embed_cat, trunc_normal_, use_fused_attn
from torch import Tensor, nn
from torch.nn import functional as F

from .windows import window_partition, window_reverse


def attend(
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    *,
    bias: Tensor | None = None,
    dropout: float = 0.0,
    fused: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """Scaled dot-product attention of (B, h, Q, d) queries over (B, h, K, d) keys.

    Args:
        bias: added to the scaled logits; broadcasts to (B, h, Q, K).
        dropout: share of the weights that is set to zero.
        fused: allow PyTorch's fused kernel, which yields no weights.

    Returns:
        (B, h, Q, d) and the softmax weights (B, h, Q, K), or ``None`` when the kernel was fused.
    """
    if fused and fused_is_faster(queries):
        return F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias, dropout_p=dropout), None
    logits = (queries * queries.shape[-1] ** -0.5) @ keys.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias
    weights = logits.softmax(dim=-1)
    return (F.dropout(weights, dropout) if dropout else weights) @ values, weights


def fused_is_faster(queries: Tensor) -> bool:
    """Whether the fused kernel beats two matrix products; for bfloat16 on CPUs it takes 1.2 to 1.6 times as long on
    windows of 9 to 109 tokens."""
    return queries.device.type != "cpu" or queries.dtype != torch.bfloat16


def split_heads(tokens: Tensor, num_heads: int, parts: int = 1) -> tuple[Tensor, ...]:
    """(B, T, parts * C) -> ``parts`` tensors (B, h, T, C / h), all views of the input."""
    B, T, width = tokens.shape
    return tokens.view(B, T, parts, num_heads, width // (parts * num_heads)).permute(2, 0, 3, 1, 4).unbind(0)


def merge_heads(tokens: Tensor) -> Tensor:
    """(B, h, T, d) -> (B, T, h * d), the inverse of :func:`split_heads` with one part."""
    return tokens.transpose(1, 2).flatten(2)


class Rotary(NamedTuple):
    """Rotary position embeddings of the two sides of an attention.

    Attributes:
        queries: (Q, 2d) or (h, Q, 2d), sines and cosines side by side as timm's are; sines of 0 and cosines of 1 leave
            a token as it is.
        keys: (K, 2d) or (h, K, 2d).
        half: whether channels are paired half against half, not neighbour with neighbour.
    """

    queries: Tensor
    keys: Tensor
    half: bool = False

    def rotate(self, queries: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        """Rotate (B, h, Q, d) queries and (B, h, K, d) keys by their positions."""
        return (
            apply_rot_embed_cat(queries, self.queries, half=self.half).type_as(queries),
            apply_rot_embed_cat(keys, self.keys, half=self.half).type_as(keys),
        )


class CrossAttention(nn.Module):
    """Multi-head attention whose queries and keys are projected apart, so that shared keys are projected only once."""

    def __init__(
        self, dim: int, num_heads: int, qkv_bias: bool = True, attn_drop: float = 0.0, proj_drop: float = 0.0
    ) -> None:
        super().__init__()
        self.num_heads, self.attn_drop = num_heads, attn_drop
        self.fused = use_fused_attn()
        self.q = nn.Linear(dim, dim, bias=qkv_bias)
        self.kv = nn.Linear(dim, 2 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(
        self,
        queries: Tensor,
        keys_values: Tensor,
        return_attention: bool = False,
        bias: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend projected keys and values.

        Args:
            queries: (B, Q, C), normalised tokens, not yet projected.
            keys_values: (B, K, 2C), what :attr:`kv` made of the normalised key tokens.
            return_attention: also return the softmax weights (B, h, Q, K).
            bias: added to the scaled logits; broadcasts to (B, h, Q, K).
            rotary: positions of queries and keys.
        """
        q, k, v = self.split(self.q(queries), keys_values)
        if rotary is not None:
            q, k = rotary.rotate(q, k)
        dropout = self.attn_drop if self.training else 0.0
        attended, weights = attend(q, k, v, bias=bias, dropout=dropout, fused=self.fused and not return_attention)
        return self.proj_drop(self.proj(self.merge(attended, queries))), weights if return_attention else None

    def split(self, queries: Tensor, keys_values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Projected (B, Q, C) and (B, K, 2C) -> queries (B, h, Q, d), keys and values (B, h, K, d)."""
        (q,) = split_heads(queries, self.num_heads)
        k, v = split_heads(keys_values, self.num_heads, parts=2)
        return q, k, v

    def merge(self, attended: Tensor, queries: Tensor) -> Tensor:
        """(B, h, Q, d), and the normalised queries (B, Q, C) that attended -> (B, Q, C)."""
        return merge_heads(attended)


class CrossAttentionLayer(nn.Module):
    """The pre-norm layer that all semantic-token layers share: one ``norm1`` serves queries and keys, and only the
    queries pass the feed-forward network (paper Eq. 1, 2 and 6)."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        layer_scale: float | None = 1e-5,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
        norm_eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = CrossAttention(dim, num_heads, qkv_bias, attn_drop, proj_drop)
        self.ls1 = LayerScale(dim, layer_scale) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, int(dim * mlp_ratio), drop=proj_drop)
        self.ls2 = LayerScale(dim, layer_scale) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def keys_values(self, normalised: Tensor) -> Tensor:
        """Project normalised tokens (..., C) to keys and values (..., 2C)."""
        return self.attn.kv(normalised)

    def attend_from(
        self,
        shortcut: Tensor | None,
        queries: Tensor,
        keys_values: Tensor,
        return_attention: bool = False,
        bias: Tensor | None = None,
        rotary: Rotary | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Attention with its residual: ``shortcut + MHA(queries, keys_values)``.

        Args:
            shortcut: (B, Q, C) residual input, or ``None`` for no residual (and hence no stochastic depth).
            queries: (B, Q, C), already normalised.
            keys_values: (B, K, 2C) from :meth:`keys_values`.
            bias: added to the scaled logits; broadcasts to (B, h, Q, K).
            rotary: positions of queries and keys.
        """
        attended, weights = self.attn(queries, keys_values, return_attention, bias, rotary)
        attended = self.ls1(attended)
        return attended if shortcut is None else shortcut + self.drop_path(attended), weights

    def feed_forward(self, tokens: Tensor) -> Tensor:
        """``tokens + FFN(tokens)``, any shape (..., C)."""
        return tokens + self.drop_path(self.ls2(self.mlp(self.norm2(tokens))))


class SemanticLayer(CrossAttentionLayer):
    """Self-attention among semantic tokens, with the layout of the cross-attention layers around it."""

    kind = "semantic"

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, M, C) -> (B, M, C)."""
        normalised = self.norm1(tokens)
        tokens, _ = self.attend_from(tokens, normalised, self.keys_values(normalised))
        return self.feed_forward(tokens)

    def in_windows(self, semantic_map: Tensor, window_size: int) -> Tensor:
        """The same inside disjoint windows of a map (B, H, W, C) of semantic tokens."""
        windows = window_partition(semantic_map, window_size)
        attended = self(windows.flatten(0, 1)).view(windows.shape)
        return window_reverse(attended, window_size, tuple(semantic_map.shape[1:3]))


def init_weights(module: nn.Module) -> None:
    """Initialisation of every transformer here: truncated normal of deviation 0.02, zero biases."""
    if isinstance(module, nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def wake_layer_scale(network: nn.Module) -> None:
    """Set LayerScale to 1: at its initial 1e-5, the tokens of an untrained network cannot be told apart."""
    for module in network.modules():
        if isinstance(module, LayerScale):
            nn.init.ones_(module.gamma)
