"""STViT on Video Swin: semantic tokens in every window of every frame (paper, section 4.2, Table 6).

The paper says only that semantic tokens are generated from each frame as in the image model, and the authors released
neither code nor weights. What else it takes was chosen so that the published FLOPs come out: 64.4 G for one view of
Video Swin-T to the digit; for -S they give 120.56 G where 120.5 is printed. Certain, because they cost too much to be
otherwise: no attention across frames once there are semantic tokens, the position of the STGM, the stem. Less certain,
and made up of readings that cost nearly the same: keys of the first STGM layer are image tokens alone (Eq. 1), those of
the second all semantic and all image tokens of the frame (Eq. 2); later layers take turns, inside the windows and over
the frame; those of stage 4 attend the whole frame; a linear layer without norm doubles the channels before it. Free of
cost and hence open: the centres G are shared by all frames, and there is no LayerScale.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from stvit.init_weights import init_stvit_video_swin
from stvit.layers.attention import SemanticLayer, init_weights
from stvit.layers.clip_windows import Size3d
from stvit.layers.pooling import initial_centres
from stvit.layers.stgm import FrameGlobalSTGMLayer, FrameSTGMLayer
from stvit.layers.swin_layers import SwinStage
from stvit.layers.timm_training import LayerGroups, semantic_swin_groups, stage_groups
from stvit.pretrained.records import ModelRecord
from stvit.trace import LayerTrace

from .stvit_deit import STVIT_PAPER
from .stvit_swin import SemanticOptions, SemanticStage
from .video_swin import (
    KINETICS400_CFG,
    SIZES,
    ClipClassifier,
    ClipStem,
    FrameMerging,
    build_clip_model,
    clip_figures,
    stage_rates,
    video_swin_layers,
)


class ClipSemanticStage(SemanticStage):
    """Stage 3: layers of Video Swin on all tokens of the clip, then, frame by frame, the two layers of the STGM,
    semantic-token layers inside the windows and over the frame in turn, and twice the channels."""

    def forward(self, clip_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Image tokens (B, T, H, W, C) -> semantic tokens (B, T, Hs, Ws, 2C) and, if asked for, what layers did."""
        frames, image_hw = clip_map.shape[1], tuple(clip_map.shape[2:4])
        trace: list[LayerTrace] = []
        traced = partial(LayerTrace, image_grid_hw=image_hw, frames=frames)
        for i, layer in enumerate(self.image_layers, start=1):
            clip_map = self.run_layer(layer, clip_map)
            if return_trace:
                trace.append(traced(f"Stage 3, layer {i}", "image", clip_map.flatten(0, 1).flatten(1, 2)))

        frame_maps = clip_map.flatten(0, 1)
        semantic_map, spatial_weights = self.run_layer(self.stgm_spatial, frame_maps, return_trace)
        map_shape, semantic_hw = semantic_map.shape, tuple(semantic_map.shape[1:3])
        image_tokens = frame_maps.flatten(1, 2)
        tokens, global_weights = self.run_layer(self.stgm_global, semantic_map, image_tokens, return_trace)
        traced = partial(traced, semantic_grid_hw=semantic_hw)
        if return_trace:
            on_image = self.stgm_spatial.image_attention(spatial_weights, image_hw)
            trace.append(traced("STGM 1", "stgm", semantic_map.flatten(1, 2), attention=on_image))
            on_image = self.stgm_global.image_attention(global_weights)
            trace.append(traced("STGM 2", "stgm", tokens, attention=on_image))

        for i, layer in enumerate(self.semantic_layers):
            if i % 2 == 0:
                in_map = self.run_layer(layer.in_windows, tokens.view(map_shape), self.stgm_spatial.centres)
                tokens = in_map.flatten(1, 2)
            else:
                tokens = self.run_layer(layer, tokens)
            if return_trace:
                trace.append(traced(f"Stage 3, layer {len(self.image_layers) + 3 + i}", "semantic", tokens))
        return self.expand(tokens).unflatten(0, (-1, frames)).unflatten(2, semantic_hw), tuple(trace)


class STViTVideoSwin(ClipClassifier):
    """STViT on Video Swin; the module's docstring says what is published and what was chosen. No weights are public.

    Clips of any length run, and frames from one window in stage 3 on: 97 pixels a side with windows of 7 and patches of
    4. The semantic part has no padding, see :class:`stvit.layers.stgm.FrameSTGMLayer`.

    Args:
        embed_dim: channels of the first stage.
        depths: layers per stage.
        num_heads: attention heads per stage.
        stgm_position: number of image-token layers before the STGM in stage 3.
        img_size: side of the frames in pixels that the learned centres G are laid out for; other sizes resample them.
        patch_size: frames, rows and columns of the clip in one token of the first stage.
        window_size: token frames, rows and columns of a window; as many rows as columns.
        num_classes: classes; 0 returns pooled features.
        in_chans: channels of the input.
        drop_rate: dropout before the head.
        attn_drop_rate: dropout of attention weights.
        proj_drop_rate: dropout after the projections of attention and feed-forward networks.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0.
        options: see :class:`stvit.models.stvit_swin.SemanticOptions`; each may also be given by name.

    Raises:
        ValueError: the STGM does not fit stage 3, or the windows are not square.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        *,
        stgm_position: int,
        img_size: int = 224,
        patch_size: Size3d = (2, 4, 4),
        window_size: Size3d = (8, 7, 7),
        num_classes: int = 400,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        **options: Any,
    ) -> None:
        dims = [embed_dim * 2**i for i in range(4)]
        super().__init__(dims[-1], in_chans, num_classes, drop_rate, global_pool)
        drop = {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate}
        semantic = SemanticOptions(**options)
        check_semantic_sizes(stgm_position, depths[2], window_size, semantic.semantic_window)
        self.stride_hw, self.window = (4 * patch_size[1], 4 * patch_size[2]), window_size[1]
        rates = stage_rates(drop_path_rate, depths)

        self.stem = ClipStem(in_chans, embed_dim, patch_size)
        early = [
            SwinStage(video_swin_layers(dims[i], num_heads[i], rates[i], window_size, **drop), FrameMerging(dims[i]))
            for i in range(2)
        ]
        centres_hw = tuple(
            -(-img_size // (stride * self.window)) * semantic.semantic_window for stride in self.stride_hw
        )
        third = build_stage(dims[2], num_heads[2], rates[2], stgm_position, window_size, centres_hw, semantic, drop)
        sizes = {"layer_scale": semantic.layer_scale, **drop}
        fourth = [SemanticLayer(dims[3], num_heads[3], drop_path=rate, **sizes) for rate in rates[3]]
        self.stages = nn.ModuleList([*early, third, nn.ModuleList(fourth)])
        self.apply(init_weights)

    def _run_stages(self, clips: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 3, T, H, W) -> semantic tokens (B, T/2, Hs, Ws, C), and what stages 3 and 4 did."""
        self._check_frames(tuple(clips.shape[3:]))
        clip_map = self.stages[1](self.stages[0](self.stem(clips)))
        frames, image_hw = clip_map.shape[1], tuple(clip_map.shape[2:4])
        clip_map, trace = self.stages[2](clip_map, return_trace)
        map_shape, semantic_hw = clip_map.shape, tuple(clip_map.shape[2:4])
        tokens = clip_map.flatten(0, 1).flatten(1, 2)
        for i, layer in enumerate(self.stages[3], start=1):
            tokens = self.run_layer(layer, tokens)
            if return_trace:
                name = f"Stage 4, layer {i}"
                trace = (*trace, LayerTrace(name, "semantic", tokens, image_hw, semantic_hw, frames=frames))
        return tokens.view(map_shape), trace

    def init_from(self, full_token: Mapping[str, Tensor]) -> list[str]:
        """Initialise from a trained Video Swin or image Swin; see :func:`stvit.init_weights.init_stvit_video_swin`."""
        return init_stvit_video_swin(self, full_token)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """As for every Swin, with the layers of the semantic stages."""
        return stage_groups() if coarse else semantic_swin_groups()

    def _check_frames(self, frames_hw: tuple[int, int]) -> None:
        smallest = [(self.window - 1) * stride + 1 for stride in self.stride_hw]
        if any(side < least for side, least in zip(frames_hw, smallest, strict=True)):
            raise ValueError(
                f"frames of {frames_hw[0]}x{frames_hw[1]} pixels do not fill one {self.window}x{self.window} window of "
                f"stage 3: give frames of at least {smallest[0]}x{smallest[1]}, or create the model with a smaller "
                "window_size= or patch_size="
            )


def check_semantic_sizes(stgm_position: int, depth: int, window_size: Size3d, semantic_window: int) -> None:
    """Refuse sizes of stage 3 that cannot be built.

    Raises:
        ValueError: see above.
    """
    if not 0 <= stgm_position <= depth - 2:
        raise ValueError(f"stgm_position={stgm_position} does not fit stage 3: choose 0 to {depth - 2}")
    if window_size[1] != window_size[2]:
        raise ValueError(f"semantic tokens need windows of as many rows as columns, got window_size={window_size}")
    if not 1 <= semantic_window <= window_size[1]:
        raise ValueError(
            f"semantic_window={semantic_window} does not fit a window: choose 1 to {window_size[1]} (window_size)"
        )


def build_stage(
    dim: int,
    num_heads: int,
    drop_paths: list[float],
    stgm_position: int,
    window_size: Size3d,
    centres_hw: tuple[int, int],
    options: SemanticOptions,
    drop: Mapping[str, float],
) -> ClipSemanticStage:
    """Stage 3, with the stochastic depth of each of its layers and the dropout of all.

    The keys of the first STGM layer lie in a square of 10 tokens for windows of 7, and in proportion for others.
    """
    common = {"layer_scale": options.layer_scale, **drop}
    w, m, first = window_size[1], options.semantic_window, stgm_position
    return ClipSemanticStage(
        video_swin_layers(dim, num_heads, drop_paths[:first], window_size, **drop),
        FrameSTGMLayer(
            dim,
            num_heads,
            initial_centres(options.pooling, dim, (w, w), m),
            window_size=w,
            centres=m,
            neighbourhood=w * 10 // 7,
            project_once=options.project_once,
            drop_path=drop_paths[first],
            **common,
        ),
        FrameGlobalSTGMLayer(
            dim,
            num_heads,
            centres_hw=centres_hw if options.global_centres else None,
            drop_path=drop_paths[first + 1],
            **common,
        ),
        [SemanticLayer(dim, num_heads, drop_path=rate, **common) for rate in drop_paths[first + 2 :]],
        nn.Linear(dim, 2 * dim),
    )


#: image-token layers of stage 3 before the STGM
STGM_POSITIONS = {"tiny": 2, "small": 10}
# no trained weights were ever published
default_cfgs = generate_default_cfgs(
    {
        f"stvit_video_swin_{size}": ModelRecord(**KINETICS400_CFG, **STVIT_PAPER, **clip_figures(*figures))
        for size, figures in {"tiny": (78.5, 64.4), "small": (80.3, 120.5)}.items()
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> STViTVideoSwin:
    sizes = {**SIZES[size], "stgm_position": STGM_POSITIONS[size]}
    return build_clip_model(STViTVideoSwin, f"stvit_video_swin_{size}", pretrained, **{**sizes, **kwargs})


@register_model
def stvit_video_swin_tiny(pretrained: bool = False, **kwargs: Any) -> STViTVideoSwin:
    """STViT on Video Swin-T: published 78.5 % top-1 on Kinetics-400 with 4x3 views at 64.4 G multiply-adds a view
    (Table 6). No weights are public."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def stvit_video_swin_small(pretrained: bool = False, **kwargs: Any) -> STViTVideoSwin:
    """STViT on Video Swin-S: published 80.3 % top-1 on Kinetics-400 with 4x3 views at 120.5 G multiply-adds a view
    (Table 6). No weights are public."""
    return _create("small", pretrained, **kwargs)
