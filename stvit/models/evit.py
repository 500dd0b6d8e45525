"""EViT (Liang et al., ICLR 2022, arXiv 2202.07800): keep the image tokens that the class token attends to most.

It adds no parameters: weights of timm's or Meta's DeiT run as they are, without retraining (at some loss, see the
authors' first table), and the authors' checkpoints load under the same names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, checkpoint_filter_fn
from torch import Tensor

from stvit.layers.reducing_vit import (
    FullTokenWeights,
    ReducingVisionTransformer,
    attend_and_score,
    build_reducing_model,
    check_share,
)
from stvit.pretrained.records import ModelRecord
from stvit.trace import LayerTrace, follow

from .stvit_deit import DEIT_PREPROCESSING, DEIT_SIZES


@dataclass(frozen=True)
class Selection:
    """Which tokens one layer kept; positions do not count the class token.

    Attributes:
        kept: (B, K) int64, positions among the T tokens that came in, most attended first.
        scores: (B, T), head-averaged attention of the class token, the criterion.
        fused: whether the others live on in one token, appended last.
    """

    kept: Tensor
    scores: Tensor
    fused: bool

    def moved_to(self) -> Tensor:
        """(B, T) int64: position after the layer of each token that came in, -1 for dropped ones."""
        B, K = self.kept.shape
        moved = torch.full(self.scores.shape, K if self.fused else -1, device=self.kept.device)
        return moved.scatter(1, self.kept, torch.arange(K, device=self.kept.device).expand(B, K))


class EViTBlock(Block):
    """timm's transformer layer; between attention and feed-forward network it can let tokens go."""

    def forward(self, tokens: Tensor, keep_rate: float = 1.0, fuse: bool = True) -> tuple[Tensor, Selection | None]:
        """Run the layer.

        Args:
            tokens: (B, 1 + T, C), class token first.
            keep_rate: share of the T tokens that goes on, rounded up; an earlier fused token competes like any other.
            fuse: add the others up, weighted by their scores, to one more token.

        Returns:
            (B, 1 + K [+ 1], C) and what was selected, ``None`` if nothing had to go.
        """
        num_kept = math.ceil(keep_rate * (tokens.shape[1] - 1))
        if num_kept == tokens.shape[1] - 1:
            return super().forward(tokens), None
        attended, scores = attend_and_score(self.attn, self.norm1(tokens))
        tokens = tokens + self.drop_path1(self.ls1(attended))
        selection = Selection(scores.topk(num_kept, dim=1).indices, scores, fuse)
        tokens = reorganise(tokens, selection)
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens)))), selection


def reorganise(tokens: Tensor, selection: Selection) -> Tensor:
    """(B, 1 + T, C) -> (B, 1 + K [+ 1], C): class token, kept tokens, and the fused token if there is one."""
    others = tokens[:, 1:]
    parts = [tokens[:, :1], others.gather(1, selection.kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))]
    if selection.fused:
        inattentive = selection.scores.scatter(1, selection.kept, 0.0)
        parts.append(inattentive.unsqueeze(1).to(others.dtype) @ others)
    return torch.cat(parts, dim=1)


class EViT(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token that lets inattentive image tokens go in some of its layers.

    Args:
        keep_rate: share of the image tokens that each of these layers keeps, in (0, 1]; 1 is the full-token model.
        fuse_inattentive: keep one token that sums up the others.
        reduction_layers: these layers, counted from 0; the paper's for 12 layers.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: the keep rate is no such share.
    """

    def __init__(
        self,
        *,
        keep_rate: float = 0.7,
        fuse_inattentive: bool = True,
        reduction_layers: tuple[int, ...] = (3, 6, 9),
        **vit: Any,
    ) -> None:
        check_share("keep_rate", keep_rate, "0.5 to 0.9")
        super().__init__(block_fn=EViTBlock, **vit)
        self.keep_rate, self.fuse_inattentive, self.reduction_layers = keep_rate, fuse_inattentive, reduction_layers

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> the tokens that are left, and what every layer did if asked for."""
        trace = []
        assignment = torch.arange(tokens.shape[1] - 1, device=tokens.device).expand(tokens.shape[0], -1)
        for i, block in enumerate(self.blocks):
            keep_rate = self.keep_rate if i in self.reduction_layers else 1.0
            tokens, selection = self.run_layer(block, tokens, keep_rate, self.fuse_inattentive)
            if return_trace:
                kind = "reduction" if selection else "image"
                assignment = follow(assignment, selection.moved_to()) if selection else assignment
                name, left = f"Layer {i + 1}", tokens[:, 1:]
                trace.append(LayerTrace(name, kind, left, grid_hw, assignment=assignment, fuses=True))
        return tokens, tuple(trace)


def full_token_cfg(size: str, paper_id: str, paper_name: str) -> dict[str, Any]:
    """timm's trained full-token DeiT of that size, for a method that runs it with fewer tokens."""
    return {
        **DEIT_PREPROCESSING,
        "hf_hub_id": f"timm/deit_{size}_patch16_224.fb_in1k",
        "license": "apache-2.0",
        "paper_ids": paper_id,
        "paper_name": paper_name,
    }


TITLE = "Not All Patches are What You Need: Expediting Vision Transformers via Token Reorganizations"
PUBLISHED = {"small": {"top1": 78.5, "gmacs": 3.0}}  # EViT's first table
NOTES = {"small": "keep rate 0.7, DeiT's weights, not retrained; 79.5 % retrained"}
default_cfgs = generate_default_cfgs(
    {
        f"evit_deit_{size}_patch16_224.fb_in1k": ModelRecord(
            **full_token_cfg(size, "arXiv:2202.07800", TITLE),
            published=PUBLISHED.get(size, {}),
            published_note=NOTES.get(size, ""),
        )
        for size in DEIT_SIZES
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> EViT:
    arguments = {"pretrained_filter_fn": checkpoint_filter_fn, **DEIT_SIZES[size], **kwargs}
    return build_reducing_model(EViT, f"evit_deit_{size}_patch16_224", pretrained, **arguments)


@register_model
def evit_deit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> EViT:
    """EViT on DeiT-T; ``pretrained`` takes the trained full-token DeiT-T."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def evit_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> EViT:
    """EViT on DeiT-S: published 79.5 % top-1 trained at keep rate 0.7, 78.5 % untrained; 3.0 G multiply-adds."""
    return _create("small", pretrained, **kwargs)


@register_model
def evit_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> EViT:
    """EViT on DeiT-B; ``pretrained`` takes the trained full-token DeiT-B."""
    return _create("base", pretrained, **kwargs)
