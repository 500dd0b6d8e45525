"""Evo-ViT (Xu et al., AAAI 2022, arXiv 2108.01390): half of the image tokens take the slow path, the others wait.

Written after the paper and the behaviour of the released models, whose waiting tokens are not updated; the authors'
checkpoints load by their own names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import trunc_normal_
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, checkpoint_filter_fn
from torch import Tensor, nn

from stvit.init_weights import init_from_state_dict
from stvit.layers.reducing_vit import (
    ReducingVisionTransformer,
    TrainingOutputs,
    attend_and_score,
    build_reducing_model,
    check_share,
)
from stvit.pretrained.records import DRIVE_PAGE, ModelRecord
from stvit.trace import LayerTrace

from .dynamicvit import keep_tokens, moved_by_keeping
from .stvit_deit import DEIT_PREPROCESSING, DEIT_SIZES

SCORE_MEMORY = 0.5  # of a slow token's earlier scores, from the first selection on


class ScoredBlock(Block):
    """timm's transformer layer, which can also say how strongly the class token attends to the others."""

    def forward(self, tokens: Tensor, scored: bool = False) -> tuple[Tensor, Tensor | None]:
        """(B, 1 + T, C) -> (B, 1 + T, C), and if asked for the class token's weights (B, T), summed over the heads."""
        if not scored:
            return super().forward(tokens), None
        attended, scores = attend_and_score(self.attn, self.norm1(tokens))
        tokens = tokens + self.drop_path1(self.ls1(attended))
        tokens = tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens))))
        return tokens, scores * self.attn.num_heads


class EvoViT(ReducingVisionTransformer):
    """A vision transformer with class token whose image tokens with low class attention skip some layers and return.

    The scores are the class token's attention, summed over the heads and carried on from layer to layer. The tokens are
    sorted by them at the entrance of some layers: the best take the next layers, the others wait unchanged. All image
    tokens are averaged for the classifier.

    Args:
        slow_rate: share of the image tokens that takes the layers from the first selection on, in (0, 1].
        selection_layers: where tokens are selected, counted from 0; the paper's for 12 layers.
        auxiliary_head: keep the class token's classifier, which the released checkpoints hold for their training.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: the rate is no such share.
    """

    def __init__(
        self,
        *,
        slow_rate: float = 0.5,
        selection_layers: tuple[int, ...] = (4, 8),
        auxiliary_head: bool = False,
        **vit: Any,
    ) -> None:
        check_share("slow_rate", slow_rate, "0.5")
        super().__init__(block_fn=ScoredBlock, **vit)
        self.slow_rate, self.selection_layers = slow_rate, selection_layers
        if auxiliary_head:
            self.norm_cls = nn.LayerNorm(self.embed_dim, eps=self.blocks[0].norm1.eps)
            self.head_cls = nn.Linear(self.embed_dim, self.num_classes)
            trunc_normal_(self.head_cls.weight, std=0.02)
            nn.init.zeros_(self.head_cls.bias)

    def forward_training(self, images: Tensor) -> TrainingOutputs:
        """Logits of the averaged image tokens, and those of the class token where the model has its auxiliary head;
        images as of :meth:`forward`."""
        tokens, _ = self.run_layers(self.embed(images), self._grid_of(images))
        own = self.head_cls(self.norm_cls(tokens[:, 0])) if hasattr(self, "head_cls") else None
        return TrainingOutputs(self.forward_head(tokens), auxiliary_logits=own)

    def init_from(self, full_token: Mapping[str, Tensor]) -> list[str]:
        """Initialise from a trained full-token model of the same sizes with a class token, e.g. timm's DeiT. Both heads
        and their norms take the weights of the one that it has.

        Returns:
            Names of the parameters that keep their initial values: none.

        Raises:
            ValueError: the names or shapes are not those of such a model; nothing is changed.
        """
        state = {re.sub(r"^norm\.", "fc_norm.", name): tensor for name, tensor in full_token.items()}
        if hasattr(self, "head_cls"):
            heads = [name for name in full_token if name.startswith(("norm.", "head."))]
            state |= {name.replace(".", "_cls.", 1): full_token[name] for name in heads}
        init_from_state_dict(self, state, (), f"the full-token model of {type(self).__name__}")
        return []

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> all tokens in raster order, and what every layer did if asked for.

        In the trace, waiting tokens have no number: no layer reads them until the next selection.
        """
        B, N = tokens.shape[0], tokens.shape[1] - 1
        num_slow, trace = max(1, int(N * self.slow_rate)), []
        places = torch.arange(N, device=tokens.device).expand(B, -1)  # on the image, of the tokens as they are sorted
        scores = waiting = None
        for i, block in enumerate(self.blocks):
            if i in self.selection_layers:
                everyone = tokens if waiting is None else torch.cat([tokens, waiting], dim=1)
                order = scores.argsort(dim=1, descending=True)
                places, scores = places.gather(1, order), scores.gather(1, order)
                everyone = keep_tokens(everyone, order)
                tokens, waiting = everyone[:, : 1 + num_slow], everyone[:, 1 + num_slow :]
            tokens, latest = self.run_layer(block, tokens, i >= self.selection_layers[0] - 1)
            if latest is not None:
                scores = latest if waiting is None else carry_on(scores, latest)
            if return_trace:
                slow = places if waiting is None else places[:, :num_slow]
                kind = "image" if waiting is None else "reduction"
                moved = {"assignment": moved_by_keeping(slow, N), "fate": "waiting"}
                trace.append(LayerTrace(f"Layer {i + 1}", kind, tokens[:, 1:], grid_hw, **moved))
        everyone = tokens if waiting is None else torch.cat([tokens, waiting], dim=1)
        return keep_tokens(everyone, places.argsort(dim=1)), tuple(trace)

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Put the authors' lists of split layers into timm's blocks, without an auxiliary head that the model lacks."""
        state_dict = fused_names(state_dict)
        if not hasattr(self, "head_cls"):
            state_dict = {n: t for n, t in state_dict.items() if n.partition(".")[0] not in ("norm_cls", "head_cls")}
        return checkpoint_filter_fn(state_dict, self)


def carry_on(scores: Tensor, latest: Tensor) -> Tensor:
    """(B, N) scores of which the first K take up the latest ones (B, K); those of waiting tokens stay."""
    num_slow = latest.shape[1]
    mixed = SCORE_MEMORY * scores[:, :num_slow] + (1 - SCORE_MEMORY) * latest
    return torch.cat([mixed, scores[:, num_slow:]], dim=1)


def fused_names(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The released names -> timm's: ``norms.i``, ``qks.i.qk``, ``vs.i.v`` and ``projs.i`` move into ``blocks.i``."""
    fused = {}
    for name, tensor in state_dict.items():
        owner, _, rest = name.partition(".")
        if owner == "qks":
            layer, _, last = rest.split(".")
            fused[f"blocks.{layer}.attn.qkv.{last}"] = torch.cat([tensor, state_dict[f"vs.{layer}.v.{last}"]])
        elif owner in ("norms", "projs"):
            layer, last = rest.split(".")
            fused[f"blocks.{layer}.{'norm1' if owner == 'norms' else 'attn.proj'}.{last}"] = tensor
        elif owner == "norm" and "qks.0.qk.weight" in state_dict:
            fused[f"fc_norm.{rest}"] = tensor
        elif owner != "vs":
            fused[name] = tensor
    return fused


PAPER = {
    "paper_ids": "arXiv:2108.01390",
    "paper_name": "Evo-ViT: Slow-Fast Token Evolution for Dynamic Vision Transformer",
    "origin_url": "https://github.com/YifanXu74/Evo-ViT",
    "license": "mit",
}
WEIGHTS = {
    "tiny": "1AL4uHGHvCoFXkrtHRgf4XmurgRs5-qab",
    "small": "1AiD1J-z9klr72-zczkJzX1HHVlxO7iin",
    "base": "15EmMKb4L5IjHqnMYQHVNYZGRRGdByTsz",
}
PUBLISHED = {  # the authors' repository, which states no costs, and Table 4 of the STViT paper
    "tiny": {"top1": 72.0},
    "small": {"top1": 79.4, "gmacs": 3.0},
    "base": {"top1": 81.3, "gmacs": 10.2},
}
NOTES = {"base": "the paper's cost; with the released code's slow rate it is 11.7 G"}
default_cfgs = generate_default_cfgs(
    {
        f"evo_vit_deit_{size}_patch16_224": ModelRecord(
            **DEIT_PREPROCESSING,
            **PAPER,
            weights_page=DRIVE_PAGE.format(WEIGHTS[size]),
            published=PUBLISHED[size],
            published_note=NOTES.get(size, ""),
        )
        for size in DEIT_SIZES
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> EvoViT:
    arguments = {"global_pool": "avg", **DEIT_SIZES[size], **kwargs}
    return build_reducing_model(EvoViT, f"evo_vit_deit_{size}_patch16_224", pretrained, **arguments)


@register_model
def evo_vit_deit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> EvoViT:
    """Evo-ViT on DeiT-T: published 72.0 % top-1."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def evo_vit_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> EvoViT:
    """Evo-ViT on DeiT-S: published 79.4 % top-1, 3.0 G multiply-adds."""
    return _create("small", pretrained, **kwargs)


@register_model
def evo_vit_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> EvoViT:
    """Evo-ViT on DeiT-B: published 81.3 % top-1 at 10.2 G multiply-adds; with this slow rate it computes 11.7 G."""
    return _create("base", pretrained, **kwargs)
