"""DynamicViT (Rao et al., NeurIPS 2021, arXiv 2106.02034): drop the image tokens to which small networks give least.

Written after the paper and the behaviour of the released models; the authors' checkpoints load under their own names.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Attention, Block
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.init_weights import init_from_state_dict
from stvit.layers.attention import merge_heads, split_heads
from stvit.layers.reducing_vit import (
    FullTokenWeights,
    ReducingVisionTransformer,
    TrainingOutputs,
    build_reducing_model,
    check_share,
)
from stvit.pretrained.records import DRIVE_PAGE, ModelRecord
from stvit.trace import LayerTrace, follow

from .stvit_deit import DEIT_PREPROCESSING, DEIT_SIZES

KEEP, DROP = 0, 1  # outputs of the predictor
RATIO_WEIGHT = 2.0  # of the loss that makes the model sparse (paper, Section 3.4)
MASK_EPS = 1e-6  # of the masked softmax, so that a fully masked row stays finite


class TokenPredictor(nn.Module):
    """Score tokens by themselves and by the mean of all (paper, Section 3.2): half of the channels stay per token, the
    other half becomes the mean over the tokens that are still there."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.in_conv = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim), nn.GELU())
        self.out_conv = nn.Sequential(
            nn.Linear(dim, dim // 2),
            nn.GELU(),
            nn.Linear(dim // 2, dim // 4),
            nn.GELU(),
            nn.Linear(dim // 4, 2),
            nn.LogSoftmax(dim=-1),
        )

    def forward(self, tokens: Tensor, alive: Tensor | None = None) -> Tensor:
        """(B, T, C) image tokens -> (B, T, 2) log-probabilities of keeping and of dropping each.

        Args:
            tokens: as they are in the residual stream.
            alive: (B, T), weights of the mean; all ones by default.
        """
        own, shared = self.in_conv(tokens).chunk(2, dim=-1)
        if alive is None:
            mean = shared.mean(dim=1, keepdim=True)
        else:
            mean = (shared * alive[..., None]).sum(dim=1, keepdim=True) / alive.sum(dim=1)[:, None, None]
        return self.out_conv(torch.cat([own, mean.expand_as(shared)], dim=-1))


def keep_counts(num_tokens: int, keep_rate: float, stages: int) -> tuple[int, ...]:
    """Tokens that are left after each stage: the k-th keeps ``keep_rate ** k`` of the original number, rounded down."""
    return tuple(max(1, int(num_tokens * keep_rate**k)) for k in range(1, stages + 1))


class DynamicViT(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token that drops the image tokens with the lowest scores at the entrance of some
    layers.

    In training mode all tokens stay: decisions drawn with straight-through Gumbel noise mask the attention instead
    (paper, Section 3.3), so that the predictors learn.

    Args:
        keep_rate: share of the image tokens that each stage keeps, in (0, 1].
        reduction_layers: these layers, counted from 0; the paper's for 12 layers.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: the keep rate is no such share.
    """

    def __init__(self, *, keep_rate: float = 0.7, reduction_layers: tuple[int, ...] = (3, 6, 9), **vit: Any) -> None:
        check_share("keep_rate", keep_rate, "0.7")
        super().__init__(**vit)
        self.keep_rate, self.reduction_layers = keep_rate, reduction_layers
        self.score_predictor = nn.ModuleList(TokenPredictor(self.embed_dim) for _ in reduction_layers)

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> the tokens that are left, and what every layer did if asked for."""
        if self.training and not return_trace:
            return self.run_masked(tokens)[0], ()
        trace = []
        counts = keep_counts(tokens.shape[1] - 1, self.keep_rate, len(self.reduction_layers))
        assignment = torch.arange(tokens.shape[1] - 1, device=tokens.device).expand(tokens.shape[0], -1)
        for i, block in enumerate(self.blocks):
            kind = "image"
            if i in self.reduction_layers:
                kind, stage = "reduction", self.reduction_layers.index(i)
                scores = self.score_predictor[stage](tokens[:, 1:])[..., KEEP]
                kept = scores.topk(counts[stage], dim=1).indices
                assignment = follow(assignment, moved_by_keeping(kept, scores.shape[1]))
                tokens = keep_tokens(tokens, kept)
            tokens = self.run_layer(block, tokens)
            if return_trace:
                trace.append(LayerTrace(f"Layer {i + 1}", kind, tokens[:, 1:], grid_hw, assignment=assignment))
        return tokens, tuple(trace)

    def forward_training(self, images: Tensor) -> TrainingOutputs:
        """Logits with decisions that are drawn, and the loss ``ratio``, which holds the share of the tokens that the
        k-th stage keeps at ``keep_rate ** k`` (paper, Eq. 14); images as of :meth:`forward`."""
        tokens, decisions = self.run_masked(self.embed(images))
        shares = [alive.float().mean(dim=1) - self.keep_rate**k for k, alive in enumerate(decisions, start=1)]
        ratio = RATIO_WEIGHT * torch.stack(shares).square().mean()
        return TrainingOutputs(self.forward_head(self.norm(tokens)), losses={"ratio": ratio})

    def init_from(self, full_token: Mapping[str, Tensor]) -> list[str]:
        """Initialise from a trained full-token model of the same sizes with a class token, e.g. timm's DeiT.

        Returns:
            Names of the predictors' parameters, which keep their initial values.

        Raises:
            ValueError: the names or shapes are not those of such a model; nothing is changed.
        """
        new = [name for name in self.state_dict() if name.startswith("score_predictor.")]
        init_from_state_dict(self, full_token, new, f"the full-token model of {type(self).__name__}")
        return new

    def run_masked(self, tokens: Tensor) -> tuple[Tensor, tuple[Tensor, ...]]:
        """All tokens (B, 1 + N, C) after the last layer, and the decisions (B, N) of every stage, 1 for keeping."""
        alive, decisions = tokens.new_ones(tokens.shape[0], tokens.shape[1] - 1), []
        for i, block in enumerate(self.blocks):
            if i in self.reduction_layers:
                logits = self.score_predictor[self.reduction_layers.index(i)](tokens[:, 1:], alive)
                alive = alive * F.gumbel_softmax(logits, hard=True)[..., KEEP]
                decisions.append(alive)
            masked = (masked_block, block, tokens, alive)
            tokens = self.run_layer(*masked) if decisions else self.run_layer(block, tokens)
        return tokens, tuple(decisions)


def keep_tokens(tokens: Tensor, kept: Tensor) -> Tensor:
    """(B, 1 + T, C) -> (B, 1 + K, C): the class token, then the kept tokens in the order of ``kept`` (B, K)."""
    chosen = tokens[:, 1:].gather(1, kept.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))
    return torch.cat([tokens[:, :1], chosen], dim=1)


def moved_by_keeping(kept: Tensor, num_tokens: int) -> Tensor:
    """(B, T) int64: position of each of the T tokens among those kept (B, K), -1 for dropped ones."""
    moved = kept.new_full((kept.shape[0], num_tokens), -1)
    return moved.scatter(1, kept, torch.arange(kept.shape[1], device=kept.device).expand_as(kept))


def masked_block(block: Block, tokens: Tensor, alive: Tensor) -> Tensor:
    """timm's transformer layer on (B, 1 + T, C), where tokens attend to those alive (B, T) and to themselves."""
    attended = masked_attention(block.attn, block.norm1(tokens), F.pad(alive, (1, 0), value=1.0))
    tokens = tokens + block.drop_path1(block.ls1(attended))
    return tokens + block.drop_path2(block.ls2(block.mlp(block.norm2(tokens))))


def masked_attention(attention: Attention, normalised: Tensor, alive: Tensor) -> Tensor:
    """Self-attention (B, T, C) whose softmax weighs keys by ``alive`` (B, T), the own key by one (paper, Eq. 10)."""
    q, k, v = split_heads(attention.qkv(normalised), attention.num_heads, parts=3)
    logits = (q * attention.scale) @ k.transpose(-2, -1)
    mask = torch.maximum(alive[:, None, None], torch.eye(alive.shape[1], device=alive.device, dtype=alive.dtype))
    weights = (logits - logits.amax(dim=-1, keepdim=True)).exp() * mask
    weights = (weights + MASK_EPS / alive.shape[1]) / (weights.sum(dim=-1, keepdim=True) + MASK_EPS)
    return attention.proj_drop(attention.proj(merge_heads(attention.attn_drop(weights) @ v)))


PAPER = {
    "paper_ids": "arXiv:2106.02034",
    "paper_name": "DynamicViT: Efficient Vision Transformers with Dynamic Token Sparsification",
    "origin_url": "https://github.com/raoyongming/DynamicViT",
    "license": "mit",
}
WEIGHTS = {"small": "1H5kHHagdqo4emk9CgjfA7DA62XJr8Yc1", "base": "1J9PCPiOSHmzRiWw370GDYJPEZ8r4uU3M"}
PUBLISHED = {"small": {"top1": 79.3, "gmacs": 2.9}, "base": {"top1": 81.3, "gmacs": 11.2}}  # STViT paper, Table 4
default_cfgs = generate_default_cfgs(
    {
        f"dynamicvit_deit_{size}_patch16_224": ModelRecord(
            **DEIT_PREPROCESSING,
            **PAPER,
            weights_page=DRIVE_PAGE.format(WEIGHTS[size]),
            published=figures,
            published_note="keep rate 0.7",
        )
        for size, figures in PUBLISHED.items()
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> DynamicViT:
    variant = f"dynamicvit_deit_{size}_patch16_224"
    return build_reducing_model(DynamicViT, variant, pretrained, **{**DEIT_SIZES[size], **kwargs})


@register_model
def dynamicvit_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> DynamicViT:
    """DynamicViT on DeiT-S: published 79.3 % top-1 at keep rate 0.7, 2.9 G multiply-adds."""
    return _create("small", pretrained, **kwargs)


@register_model
def dynamicvit_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> DynamicViT:
    """DynamicViT on DeiT-B: published 81.3 % top-1 at keep rate 0.7, 11.2 G multiply-adds."""
    return _create("base", pretrained, **kwargs)
