"""ToMe (Bolya et al., ICLR 2023, arXiv 2210.09461): in every layer, merge the r most similar pairs of tokens.

Written after the paper, because its code is no installable package and its licence forbids commercial use. It adds no
parameters: weights of timm's or Meta's DeiT run as they are.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, checkpoint_filter_fn
from torch import Tensor
from torch.nn import functional as F

from stvit.layers.reducing_vit import FullTokenWeights, ReducingVisionTransformer, build_reducing_model, self_attention
from stvit.trace import LayerTrace, follow

from .evit import full_token_cfg
from .stvit_deit import DEIT_SIZES


@dataclass(frozen=True)
class Matching:
    """A bipartite matching of T tokens, those at even positions (A) with those at odd positions (B).

    After merging come the tokens of A that are left, in order, then those of B.

    Attributes:
        unmerged: (B, U) int64, positions within A of the tokens that stay.
        merged: (B, r) int64, positions within A of the tokens that are merged away.
        destination: (B, r) int64, positions within B of what they are merged into; several may go to one.
    """

    unmerged: Tensor
    merged: Tensor
    destination: Tensor

    def moved_to(self, num_tokens: int) -> Tensor:
        """(B, T) int64: position after merging of each of the T tokens before it."""
        B, U = self.unmerged.shape
        moved = torch.empty(B, num_tokens, dtype=torch.int64, device=self.unmerged.device)
        in_a = moved[:, ::2]
        in_a.scatter_(1, self.unmerged, torch.arange(U, device=moved.device).expand(B, U))
        in_a.scatter_(1, self.merged, U + self.destination)
        moved[:, 1::2] = torch.arange(U, U + num_tokens // 2, device=moved.device)
        return moved


def match_tokens(metric: Tensor, r: int) -> Matching:
    """Bipartite soft matching by cosine similarity: each token of A finds its closest in B, the r closest pairs merge.

    Args:
        metric: (B, T, d), what the similarity is taken of; the first token is the class token and is never merged.
        r: pairs to merge, at most (T - 1) // 2.
    """
    metric = F.normalize(metric, dim=-1)
    similarity = metric[:, ::2] @ metric[:, 1::2].transpose(-2, -1)
    closest, partner = similarity.max(dim=-1)
    class_token = torch.arange(closest.shape[1], device=closest.device) == 0
    by_closeness = closest.masked_fill(class_token, -torch.inf).argsort(dim=-1, descending=True)
    merged = by_closeness[:, :r]
    return Matching(by_closeness[:, r:].sort(dim=-1).values, merged, partner.gather(1, merged))


def merge_sum(tokens: Tensor, matching: Matching) -> Tensor:
    """(B, T, C) -> (B, T - r, C), adding up what is merged."""

    def taken(index: Tensor) -> Tensor:
        return tokens[:, ::2].gather(1, index.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))

    destination = matching.destination.unsqueeze(-1).expand(-1, -1, tokens.shape[-1])
    return torch.cat([taken(matching.unmerged), tokens[:, 1::2].scatter_add(1, destination, taken(matching.merged))], 1)


class ToMeBlock(Block):
    """timm's transformer layer; between attention and feed-forward network it merges r pairs of tokens."""

    def forward(self, tokens: Tensor, sizes: Tensor | None, r: int) -> tuple[Tensor, Tensor | None, Matching | None]:
        """Run the layer.

        Args:
            tokens: (B, T, C), class token first.
            sizes: (B, T, 1), how many image tokens each stands for; ``None`` while all are single.
            r: pairs to merge; as many as there are, if fewer.

        Returns:
            (B, T - r, C) tokens, their sizes, and the matching, ``None`` if nothing was merged.
        """
        r = min(r, (tokens.shape[1] - 1) // 2)
        if r <= 0 and sizes is None:
            return super().forward(tokens), None, None
        bias = (
            None if sizes is None else sizes.log().to(tokens.dtype)[:, None, None, :, 0]
        )  # a token counts by its size
        attended, _, keys = self_attention(self.attn, self.norm1(tokens), bias)
        tokens = tokens + self.drop_path1(self.ls1(attended))
        matching = None
        if r > 0:
            matching = match_tokens(keys.mean(dim=1), r)
            sizes = tokens.new_ones(*tokens.shape[:2], 1) if sizes is None else sizes
            summed, sizes = merge_sum(tokens * sizes, matching), merge_sum(sizes, matching)
            tokens = summed / sizes
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens)))), sizes, matching


class ToMe(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token that merges similar image tokens in every layer.

    Args:
        r: tokens fewer after each layer; 0 is the full-token model.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: r is no whole number from 0 on.
    """

    def __init__(self, *, r: int = 13, **vit: Any) -> None:
        if not isinstance(r, int) or r < 0:
            raise ValueError(f"r={r!r}: choose the number of tokens to merge in each layer, a whole one from 0 on")
        super().__init__(block_fn=ToMeBlock, **vit)
        self.r = r

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> the tokens that are left, and what every layer did if asked for."""
        trace, sizes = [], None
        represented = torch.arange(1, tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        for i, block in enumerate(self.blocks):
            num_before = tokens.shape[1]
            tokens, sizes, matching = self.run_layer(block, tokens, sizes, self.r)
            if return_trace:
                kind = "reduction" if matching else "image"
                represented = follow(represented, matching.moved_to(num_before)) if matching else represented
                trace.append(LayerTrace(f"Layer {i + 1}", kind, tokens[:, 1:], grid_hw, assignment=represented - 1))
        return tokens, tuple(trace)


TITLE = "Token Merging: Your ViT But Faster"
default_cfgs = generate_default_cfgs(
    {f"tome_deit_{size}_patch16_224.fb_in1k": full_token_cfg(size, "arXiv:2210.09461", TITLE) for size in DEIT_SIZES}
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> ToMe:
    arguments = {"pretrained_filter_fn": checkpoint_filter_fn, **DEIT_SIZES[size], **kwargs}
    return build_reducing_model(ToMe, f"tome_deit_{size}_patch16_224", pretrained, **arguments)


@register_model
def tome_deit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> ToMe:
    """ToMe on DeiT-T; ``pretrained`` takes the trained full-token DeiT-T."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def tome_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> ToMe:
    """ToMe on DeiT-S; ``pretrained`` takes the trained full-token DeiT-S."""
    return _create("small", pretrained, **kwargs)


@register_model
def tome_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> ToMe:
    """ToMe on DeiT-B; ``pretrained`` takes the trained full-token DeiT-B."""
    return _create("base", pretrained, **kwargs)
