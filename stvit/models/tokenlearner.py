"""TokenLearner (Ryoo et al., NeurIPS 2021, arXiv 2106.11297): attention maps pool the image into a few tokens half-way.

Written after the paper (Section 2, and the second version's module with a bottleneck and a softmax over space). No
weights for DeiT were published: structure and cost.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from stvit.layers.reducing_vit import FullTokenWeights, ReducingVisionTransformer, build_reducing_model
from stvit.pretrained.records import ModelRecord
from stvit.trace import LayerTrace

from .stvit_deit import DEIT_PREPROCESSING, DEIT_SIZES

BOTTLENECK = 64  # channels between the two layers that draw the maps


class TokenLearner(nn.Module):
    """Draw a map over the image tokens for every learned token, and take the mean under each map (paper, Eq. 2)."""

    def __init__(self, dim: int, num_tokens: int, norm_eps: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=norm_eps)
        self.maps = nn.Sequential(nn.Linear(dim, BOTTLENECK), nn.GELU(), nn.Linear(BOTTLENECK, num_tokens))

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """(B, N, C) image tokens -> (B, M, C) learned tokens, and their maps (B, M, N), whose rows sum to one."""
        maps = self.maps(self.norm(tokens)).transpose(1, 2).softmax(dim=-1)
        return maps @ tokens, maps


class TokenLearnerViT(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token whose later layers run on learned tokens.

    Args:
        num_tokens: learned tokens, the paper's 8.
        position: the layer that they are made before, counted from 0; the paper's half of the layers by default.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: fewer than one token, or a position outside of the layers.
    """

    def __init__(self, *, num_tokens: int = 8, position: int | None = None, **vit: Any) -> None:
        super().__init__(**vit)
        self.position = len(self.blocks) // 2 if position is None else position
        whole = isinstance(num_tokens, int) and isinstance(self.position, int)
        if not whole or num_tokens < 1 or not 0 <= self.position < len(self.blocks):
            raise ValueError(
                f"num_tokens={num_tokens!r}, position={self.position!r}: choose a whole number of tokens from 1 on, "
                f"and a layer from 0 to {len(self.blocks) - 1}"
            )
        self.token_learner = TokenLearner(self.embed_dim, num_tokens, self.blocks[0].norm1.eps)

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> (B, 1 + M, C), and what every layer did if asked for."""
        trace, maps = [], None
        for i, block in enumerate(self.blocks):
            if i == self.position:
                learned, maps = self.token_learner(tokens[:, 1:])
                tokens = torch.cat([tokens[:, :1], learned], dim=1)
            tokens = self.run_layer(block, tokens)
            if return_trace:
                name, made_here = f"Layer {i + 1}", i == self.position
                learned_hw = None if maps is None else (1, maps.shape[1])
                kind = "image" if maps is None else "stgm" if made_here else "semantic"
                attention = maps[:, None] if made_here else None
                trace.append(LayerTrace(name, kind, tokens[:, 1:], grid_hw, learned_hw, attention))
        return tokens, tuple(trace)


PAPER = {
    "paper_ids": "arXiv:2106.11297",
    "paper_name": "TokenLearner: Adaptive Space-Time Tokenization for Videos",
}
PUBLISHED = {"small": {"top1": 76.1, "gmacs": 1.9}, "base": {"top1": 83.7, "gmacs": 28.7}}  # STViT paper, Table 4
default_cfgs = generate_default_cfgs(
    {
        f"tokenlearner_deit_{size}_patch16_224": ModelRecord(
            **DEIT_PREPROCESSING, **PAPER, published=figures, published_note="on its authors' own networks, not DeiT"
        )
        for size, figures in PUBLISHED.items()
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> TokenLearnerViT:
    variant = f"tokenlearner_deit_{size}_patch16_224"
    return build_reducing_model(TokenLearnerViT, variant, pretrained, **{**DEIT_SIZES[size], **kwargs})


@register_model
def tokenlearner_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> TokenLearnerViT:
    """TokenLearner in DeiT-S: 8 learned tokens from the seventh layer on; never trained by its authors."""
    return _create("small", pretrained, **kwargs)


@register_model
def tokenlearner_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> TokenLearnerViT:
    """TokenLearner in DeiT-B: 8 learned tokens from the seventh layer on; never trained by its authors."""
    return _create("base", pretrained, **kwargs)
