"""STViT-Swin: semantic tokens in every window of a Swin Transformer's third stage (paper, section 3.2, Table 2).

The authors released no code for it, but that of STViT-R-Swin, whose details (conv stem, key windows, order of local and
global layers) are used here. What else the paper leaves open is chosen so that the published FLOPs come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from stvit.init_weights import init_from_swin
from stvit.layers.attention import SemanticLayer, init_weights
from stvit.layers.pooling import PoolingName, initial_centres
from stvit.layers.reducing_vit import build_reducing_model, check_image_size
from stvit.layers.stgm import GlobalSTGMLayer, SpatialSTGMLayer
from stvit.layers.swin_layers import (
    ConvStem,
    PatchMerging,
    SwinStage,
    TokenMapClassifier,
    check_swin_input,
    swin_layers,
)
from stvit.layers.timm_training import LayerGroups, RecomputedLayers, semantic_swin_groups, stage_groups
from stvit.pretrained.records import PUBLISHED_CROP, ModelRecord, classifier_figures
from stvit.trace import LayerTrace

from .stvit_deit import STVIT_PAPER

WINDOW = 7
NEIGHBOURHOOD = 10  # side of a window's keys in the first STGM layer, w_k


@dataclass(frozen=True)
class SemanticOptions:
    """How semantic tokens are made; the defaults are the paper's.

    Attributes:
        semantic_window: m, semantic tokens per side of a 7x7 window.
        pooling: initial centres: ``intra_inter`` (Eq. 4 and 5), or parameter-free ``average`` or ``max``.
        global_centres: learned centres G on the queries of the second STGM layer (Eq. 2).
        layer_scale: initial LayerScale of the layers that touch semantic tokens; ``None`` for none.
        project_once: see :class:`stvit.layers.stgm.SpatialSTGMLayer`; ``False`` computes what the paper's FLOPs count.
    """

    semantic_window: int = 3
    pooling: PoolingName = "intra_inter"
    global_centres: bool = True
    layer_scale: float | None = None
    project_once: bool = True


class SemanticStage(RecomputedLayers, nn.Module):
    """Stage 3: image-token layers, the two layers of the STGM, semantic-token layers, twice the channels.

    Semantic-token layers take turns: inside the windows, then over the whole map. They have no shift and no position
    bias, as in the released STViT-R.
    """

    def __init__(
        self,
        image_layers: list[nn.Module],
        stgm_spatial: SpatialSTGMLayer,
        stgm_global: GlobalSTGMLayer,
        semantic_layers: list[SemanticLayer],
        expand: nn.Linear,
    ) -> None:
        super().__init__()
        self.image_layers = nn.ModuleList(image_layers)
        self.stgm_spatial = stgm_spatial
        self.stgm_global = stgm_global
        self.semantic_layers = nn.ModuleList(semantic_layers)
        self.expand = expand

    def forward(self, token_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Image tokens (B, H, W, C) -> semantic tokens (B, H/w*m, W/w*m, 2C) and, if asked for, what layers did."""
        image_hw, trace = tuple(token_map.shape[1:3]), []
        for i, layer in enumerate(self.image_layers, start=1):
            token_map = self.run_layer(layer, token_map)
            if return_trace:
                trace.append(LayerTrace(f"Stage 3, layer {i}", "image", token_map.flatten(1, 2), image_hw))

        semantic_map, spatial_weights = self.run_layer(self.stgm_spatial, token_map, return_trace)
        map_shape, semantic_hw = semantic_map.shape, tuple(semantic_map.shape[1:3])
        spatial = semantic_map.flatten(1, 2)
        image_tokens = token_map.flatten(1, 2)
        tokens, global_weights = self.run_layer(self.stgm_global, spatial, image_tokens, return_trace)
        if return_trace:
            on_image = self.stgm_spatial.image_attention(spatial_weights, image_hw)
            trace.append(LayerTrace("STGM 1", "stgm", spatial, image_hw, semantic_hw, on_image))
            on_image = self.stgm_global.image_attention(global_weights)
            trace.append(LayerTrace("STGM 2", "stgm", tokens, image_hw, semantic_hw, on_image))

        for i, layer in enumerate(self.semantic_layers):
            if i % 2 == 0:
                in_map = self.run_layer(layer.in_windows, tokens.view(map_shape), self.stgm_spatial.centres)
                tokens = in_map.flatten(1, 2)
            else:
                tokens = self.run_layer(layer, tokens)
            if return_trace:
                name = f"Stage 3, layer {len(self.image_layers) + 3 + i}"
                trace.append(LayerTrace(name, "semantic", tokens, image_hw, semantic_hw))
        return self.expand(tokens).unflatten(1, semantic_hw), tuple(trace)


class STViTSwin(TokenMapClassifier):
    """STViT on Swin: conv stem, two Swin stages, a :class:`SemanticStage`, a fourth stage of semantic tokens only.

    Choices where the paper is silent: keys of the first STGM layer are its centres and a 10x10 neighbourhood of image
    tokens, those of the second all semantic and all image tokens; a linear layer without norm doubles the channels
    before stage 4; the layers of stage 4 attend over all semantic tokens; no LayerScale.

    Args:
        embed_dim: channels of the first stage.
        depths: layers per stage.
        num_heads: attention heads per stage.
        stgm_position: number of image-token layers before the STGM in stage 3.
        img_size: side of the input in pixels, a multiple of 224.
        num_classes: classes; 0 returns pooled features.
        in_chans: channels of the input.
        drop_rate: dropout before the head.
        attn_drop_rate: dropout of attention weights.
        proj_drop_rate: dropout after the projections of attention and feed-forward networks.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0.
        options: see :class:`SemanticOptions`; each may also be given by name.

    Raises:
        ValueError: the STGM does not fit stage 3, or a size does not fit the windows.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        *,
        stgm_position: int,
        img_size: int = 224,
        num_classes: int = 1000,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        **options: Any,
    ) -> None:
        super().__init__()
        semantic = SemanticOptions(**options)
        check_swin_input((img_size, img_size), WINDOW)
        if not 0 <= stgm_position <= depths[2] - 2:
            raise ValueError(f"stgm_position={stgm_position} does not fit stage 3: choose 0 to {depths[2] - 2}")
        if not 1 <= semantic.semantic_window <= WINDOW:
            raise ValueError(f"semantic_window={semantic.semantic_window} does not fit a window: choose 1 to {WINDOW}")
        self.img_hw, self.in_chans = (img_size, img_size), in_chans
        drop = {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate}
        dims = [embed_dim * 2**i for i in range(4)]
        self.num_features = self.head_hidden_size = dims[-1]
        rates = [part.tolist() for part in torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(depths)]

        self.stem = ConvStem(in_chans, embed_dim)
        early = [
            SwinStage(swin_layers(dims[i], num_heads[i], rates[i], **drop), PatchMerging(dims[i])) for i in range(2)
        ]
        windows = (img_size // 16 // WINDOW) ** 2
        third = build_semantic_stage(dims[2], num_heads[2], rates[2], stgm_position, windows, semantic, drop)
        sizes = {"layer_scale": semantic.layer_scale, **drop}
        fourth = [SemanticLayer(dims[3], num_heads[3], drop_path=rate, **sizes) for rate in rates[3]]
        self.stages = nn.ModuleList([*early, third, nn.ModuleList(fourth)])
        self.norm = nn.LayerNorm(dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.apply(init_weights)

    def _run_stages(self, images: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Images of the model's own size -> semantic tokens (B, H/112*m, W/112*m, C), and what stages 3 and 4 did."""
        check_image_size(images, self.img_hw)
        token_map = self.stages[1](self.stages[0](self.stem(images)))
        image_hw = tuple(token_map.shape[1:3])
        token_map, trace = self.stages[2](token_map, return_trace)
        semantic_hw, tokens = tuple(token_map.shape[1:3]), token_map.flatten(1, 2)
        for i, layer in enumerate(self.stages[3], start=1):
            tokens = self.run_layer(layer, tokens)
            if return_trace:
                trace = (*trace, LayerTrace(f"Stage 4, layer {i}", "semantic", tokens, image_hw, semantic_hw))
        return tokens.unflatten(1, semantic_hw), trace

    def init_from(self, full_token: Mapping[str, Tensor]) -> list[str]:
        """Initialise from timm's trained Swin; see :func:`stvit.init_weights.init_from_swin`."""
        third = self.stages[2]
        layers = [
            *([f"stages.{i}.layers.{j}" for j in range(len(self.stages[i].layers))] for i in range(2)),
            [
                *(f"stages.2.image_layers.{j}" for j in range(len(third.image_layers))),
                "stages.2.stgm_spatial",
                "stages.2.stgm_global",
                *(f"stages.2.semantic_layers.{j}" for j in range(len(third.semantic_layers))),
            ],
            [f"stages.3.{j}" for j in range(len(self.stages[3]))],
        ]
        return init_from_swin(self, full_token, layers)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """As for every Swin, with the layers of the semantic stages."""
        return stage_groups() if coarse else semantic_swin_groups()


def build_semantic_stage(
    dim: int,
    num_heads: int,
    drop_paths: list[float],
    stgm_position: int,
    windows: int,
    options: SemanticOptions,
    drop: Mapping[str, float],
) -> SemanticStage:
    """Stage 3 for maps of that many 7x7 windows, with the stochastic depth of each layer and the dropout of all."""
    common = {"layer_scale": options.layer_scale, **drop}
    m, first = options.semantic_window, stgm_position
    return SemanticStage(
        swin_layers(dim, num_heads, drop_paths[:first], **drop),
        SpatialSTGMLayer(
            dim,
            num_heads,
            initial_centres(options.pooling, dim, (WINDOW, WINDOW), m),
            window_size=WINDOW,
            centres=m,
            neighbourhood=NEIGHBOURHOOD,
            project_once=options.project_once,
            drop_path=drop_paths[first],
            **common,
        ),
        GlobalSTGMLayer(
            dim,
            num_heads,
            num_global_centres=windows * m**2 if options.global_centres else 0,
            drop_path=drop_paths[first + 1],
            **common,
        ),
        [SemanticLayer(dim, num_heads, drop_path=rate, **common) for rate in drop_paths[first + 2 :]],
        nn.Linear(dim, 2 * dim),
    )


#: arguments of :class:`STViTSwin`, and the positions of the STGM in Table 2
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}
STGM_POSITIONS = {
    "tiny": {"default": 2, "moved": 1},
    "small": {"default": 10, "moved": 8},
    "base": {"default": 10, "moved": 8},
}
_cfg = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "crop_pct": PUBLISHED_CROP,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "pool_size": (6, 6),  # semantic tokens; of 9 in each of 2x2 windows
    "first_conv": "stem.conv1",
    "classifier": "head",
}
_PUBLISHED = {"tiny": (81.5, 3.43, 1061), "small": (83.0, 6.53, 691), "base": (83.4, 11.51, 521)}


def _record(size: str) -> ModelRecord:
    """Figures without weights: no trained ones were ever published."""
    figures = {"published": classifier_figures(*_PUBLISHED[size]), "published_note": "9 tokens a window, Table 2"}
    return ModelRecord(**_cfg, **STVIT_PAPER, **figures)


default_cfgs = generate_default_cfgs({f"stvit_swin_{size}_224": _record(size) for size in SIZES})


def _create(
    size: str, pretrained: bool, stgm_position: int | Literal["default", "moved"] = "default", **kwargs: Any
) -> STViTSwin:
    position = STGM_POSITIONS[size].get(stgm_position, stgm_position)
    sizes = {**SIZES[size], "stgm_position": position}
    return build_reducing_model(STViTSwin, f"stvit_swin_{size}_224", pretrained, **{**sizes, **kwargs})


@register_model
def stvit_swin_tiny_224(pretrained: bool = False, **kwargs: Any) -> STViTSwin:
    """STViT-Swin-T: published 81.5 % top-1 with 9 tokens a window at 3.43 G multiply-adds; 81.0 % and 3.14 G with
    ``stgm_position="moved"`` (Table 2)."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def stvit_swin_small_224(pretrained: bool = False, **kwargs: Any) -> STViTSwin:
    """STViT-Swin-S: published 83.0 % top-1 with 9 tokens a window at 6.53 G multiply-adds; 82.8 % and 5.95 G with
    ``stgm_position="moved"`` (Table 2)."""
    return _create("small", pretrained, **kwargs)


@register_model
def stvit_swin_base_224(pretrained: bool = False, **kwargs: Any) -> STViTSwin:
    """STViT-Swin-B: published 83.4 % top-1 with 9 tokens a window at 11.51 G multiply-adds; 83.2 % and 10.48 G with
    ``stgm_position="moved"`` (Table 2)."""
    return _create("base", pretrained, **kwargs)
