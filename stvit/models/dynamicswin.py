"""DynamicSwin (Rao et al., TPAMI 2023, arXiv 2207.01580): in Swin's third stage most tokens take a linear fast path.

Written after the paper and the behaviour of the released models; the authors' checkpoints load under their own names.
"""

from __future__ import annotations

from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.swin_transformer import (
    SwinTransformer,
    SwinTransformerBlock,
    SwinTransformerStage,
    checkpoint_filter_fn,
)
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.layers.reducing_vit import check_share
from stvit.layers.timm_training import RecomputedLayers
from stvit.pretrained.build import build_model
from stvit.pretrained.records import DRIVE_PAGE, ModelRecord
from stvit.trace import LayerTrace, TokenTrace

from .dynamicvit import KEEP, TokenPredictor, moved_by_keeping

DYNAMIC_STAGE = 2
RATE_STEP = 0.2  # each decision keeps this much less than the one before


class FastPath(nn.Module):
    """What a fast token gets in place of the feed-forward network: LayerNorm and one linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.fc1 = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T, C) -> (B, T, C)."""
        return self.fc1(tokens)


class TwoPathBlock(SwinTransformerBlock):
    """timm's Swin layer whose feed-forward network only some tokens pass; the others take a fast path.

    Args:
        block: of timm's Swin, whose parts it takes.
    """

    def __init__(self, block: SwinTransformerBlock) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(block.__dict__)
        self.fastmlp = FastPath(self.norm1.normalized_shape[0])

    def forward(self, maps: Tensor, order: Tensor, num_slow: int, decision: Tensor | None = None) -> Tensor:
        """(B, H, W, C) -> (B, H, W, C).

        Args:
            order: (B, H * W), the best tokens first; the first ``num_slow`` are slow.
            decision: (B, H * W), drawn in training, one for slow tokens; then both paths run for all, so that
                gradients reach both.
        """
        B, H, W, C = maps.shape
        tokens = (maps + self.drop_path1(self._attn(self.norm1(maps)))).flatten(1, 2)
        if decision is not None:
            mixed = torch.lerp(self.fastmlp(tokens), self.mlp(self.norm2(tokens)), decision[..., None])
            return (tokens + self.drop_path2(mixed)).view(B, H, W, C)
        index = order[..., None].expand(-1, -1, C)
        slow, fast = tokens.gather(1, index).tensor_split([num_slow], dim=1)
        slow = slow + self.drop_path2(self.mlp(self.norm2(slow)))
        fast = fast + self.drop_path2(self.fastmlp(fast))
        return tokens.scatter(1, index, torch.cat([slow, fast], dim=1)).view(B, H, W, C)  # all are written


class DynamicStage(RecomputedLayers, SwinTransformerStage):
    """Swin's third stage with predictors, and two paths in every block from the first decision on.

    Args:
        stage: of timm's Swin, whose layers it takes.
        keep_rate: share of slow tokens at the first decision.
        decisions: the blocks at whose entrance tokens are scored, counted from 0.

    Raises:
        ValueError: the stage has no such blocks, or they are not in order.
    """

    def __init__(self, stage: SwinTransformerStage, keep_rate: float, decisions: tuple[int, ...]) -> None:
        nn.Module.__init__(self)
        self.__dict__.update(stage.__dict__)
        if not decisions or sorted(set(decisions) & set(range(len(self.blocks)))) != list(decisions):
            raise ValueError(
                f"decisions={decisions!r}: choose blocks of the third stage, from 0 to {len(self.blocks) - 1} and in "
                "ascending order"
            )
        self.keep_rate, self.decisions = keep_rate, decisions
        for i in range(decisions[0], len(self.blocks)):
            self.blocks[i] = TwoPathBlock(self.blocks[i])
        width = self.blocks[0].norm1.normalized_shape[0]
        self.score_predictor = nn.ModuleList(TokenPredictor(width) for _ in decisions)

    def slow_counts(self, num_tokens: int) -> tuple[int, ...]:
        """Tokens that take the full feed-forward network after each decision, rounded down."""
        rates = (self.keep_rate - RATE_STEP * k for k in range(len(self.score_predictor)))
        return tuple(int(num_tokens * rate) for rate in rates)

    def forward(self, maps: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, H / 2, W / 2, 2C)."""
        return self.run(maps)[0]

    def run(self, maps: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """The same, and if asked for which tokens took the full feed-forward network in every block."""
        maps = self.downsample(maps)
        B, H, W, C = maps.shape
        counts, trace = self.slow_counts(H * W), []
        order = torch.arange(H * W, device=maps.device).expand(B, -1)
        num_slow, decision = H * W, None
        for i, block in enumerate(self.blocks):
            if i in self.decisions:
                scores = self.score_predictor[self.decisions.index(i)](maps.flatten(1, 2))
                order = scores[..., KEEP].argsort(dim=1, descending=True)
                num_slow = counts[self.decisions.index(i)]
                decision = F.gumbel_softmax(scores, hard=True)[..., KEEP] if self.training else None
            chosen = () if i < self.decisions[0] else (order, num_slow, decision)
            maps = self.run_layer(block, maps, *chosen)
            if return_trace:
                kind, slow = "image" if num_slow == H * W else "reduction", order[:, :num_slow]
                going = maps.flatten(1, 2).gather(1, slow[..., None].expand(-1, -1, C))
                moved = {"assignment": moved_by_keeping(slow, H * W), "fate": "fast"}
                trace.append(LayerTrace(f"Layer {i + 1}", kind, going, (H, W), **moved))
        return maps, tuple(trace)


class DynamicSwin(SwinTransformer):
    """Swin whose third stage gives the full feed-forward network only to the tokens with the highest scores.

    No token is dropped: all take part in window attention and stay on the map, so a token may be slow again later. The
    three decisions keep ``keep_rate``, ``keep_rate - 0.2`` and ``keep_rate - 0.4`` of the tokens; the last one holds
    for the rest of the stage. In training the decisions are drawn with straight-through Gumbel noise, and both paths
    run for all tokens.

    Args:
        keep_rate: share of slow tokens at the first decision, in (0.4, 1].
        decisions: the blocks of the third stage at whose entrance tokens are scored, counted from 0; the released
            models' of 18 blocks, and 1, 2 and 3 of 6 blocks.
        swin: arguments of timm's ``SwinTransformer``.

    Raises:
        ValueError: the rate is no such share, or the third stage has no such blocks.
    """

    def __init__(self, *, keep_rate: float = 0.7, decisions: tuple[int, ...] = (2, 4, 6), **swin: Any) -> None:
        check_share("keep_rate", keep_rate, "0.7", above=RATE_STEP * (len(decisions) - 1))
        super().__init__(**swin)
        self.layers[DYNAMIC_STAGE] = DynamicStage(self.layers[DYNAMIC_STAGE], keep_rate, tuple(decisions))

    def forward(self, images: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """Classify normalised images.

        Args:
            images: (B, 3, H, W) of the size that the model was made for.
            return_trace: also return which tokens took the full feed-forward network in the third stage.

        Returns:
            Logits (B, num_classes), and the :class:`TokenTrace` if asked for.
        """
        if not return_trace:
            return super().forward(images)
        maps, layers = self.patch_embed(images), ()
        for i, stage in enumerate(self.layers):
            if i == DYNAMIC_STAGE:
                maps, layers = stage.run(maps, return_trace=True)
            else:
                maps = stage(maps)
        return self.forward_head(self.norm(maps)), TokenTrace(layers)

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """The authors' names -> timm's; patch merging comes before its stage there."""
        return checkpoint_filter_fn(state_dict, self)


SIZES = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24), "decisions": (1, 2, 3)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}
_cfg = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "pool_size": (7, 7),
    "crop_pct": 0.875,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "patch_embed.proj",
    "classifier": "head.fc",
    "license": "mit",
    "paper_ids": "arXiv:2207.01580",
    "paper_name": "Dynamic Spatial Sparsification for Efficient Vision Transformers and CNNs",
    "origin_url": "https://github.com/raoyongming/DynamicViT",
}
WEIGHTS = {
    "tiny": "1BFlCvXedgttyj8n9smcNphE7NLOy99ig",
    "small": "1gveNkt5aCzjb5CX_DaGq_XJRvvxruxmy",
    "base": "1sJctKZxdIH0zHwTekWmmCns_1AOeFzeN",
}
PUBLISHED = {  # the authors' own figures
    "tiny": {"top1": 80.91, "gmacs": 4.0},
    "small": {"top1": 83.21, "gmacs": 6.9},
    "base": {"top1": 83.43, "gmacs": 12.1},
}
default_cfgs = generate_default_cfgs(
    {
        f"dynamicswin_{size}_224": ModelRecord(
            **_cfg,
            weights_page=DRIVE_PAGE.format(WEIGHTS[size]),
            published=PUBLISHED[size],
            published_note="keep rate 0.7",
        )
        for size in SIZES
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> DynamicSwin:
    return build_model(
        DynamicSwin,
        f"dynamicswin_{size}_224",
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"flatten_sequential": True, "out_indices": (0, 1, 2, 3)},
        **{**SIZES[size], **kwargs},
    )


@register_model
def dynamicswin_tiny_224(pretrained: bool = False, **kwargs: Any) -> DynamicSwin:
    """DynamicSwin-T: published 80.9 % top-1 at keep rate 0.7, 4.0 G multiply-adds."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def dynamicswin_small_224(pretrained: bool = False, **kwargs: Any) -> DynamicSwin:
    """DynamicSwin-S: published 83.2 % top-1 at keep rate 0.7, 6.9 G multiply-adds."""
    return _create("small", pretrained, **kwargs)


@register_model
def dynamicswin_base_224(pretrained: bool = False, **kwargs: Any) -> DynamicSwin:
    """DynamicSwin-B: published 83.4 % top-1 at keep rate 0.7, 12.1 G multiply-adds."""
    return _create("base", pretrained, **kwargs)
