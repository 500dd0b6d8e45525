"""STViT-R-Swin: semantic tokens inside dumbbell units, full resolution between them (paper, section 3.3, Table 3).

The default options are those of the released weights, which differ from the paper's text: max pooling instead of intra-
and inter-window pooling, no residual in the first STGM layer, no global cluster centres.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from stvit.init_weights import init_from_swin
from stvit.layers.attention import SemanticLayer, init_weights
from stvit.layers.pooling import PoolingName, initial_centres
from stvit.layers.recovery import DumbbellUnit, RecoveryLayer
from stvit.layers.stgm import GlobalSTGMLayer, SpatialSTGMLayer
from stvit.layers.swin_layers import (
    ConvStem,
    PatchMerging,
    SwinLayer,
    SwinStage,
    TokenMapClassifier,
    check_swin_input,
    swin_layers,
)
from stvit.layers.timm_training import LayerGroups, RecomputedLayers, stage_groups, swin_groups
from stvit.pretrained.build import build_model
from stvit.pretrained.records import PUBLISHED_CROP, STVIT_R_LICENCE, ModelRecord, classifier_figures
from stvit.trace import LayerTrace

WINDOW = 7
CENTRES = 3  # semantic tokens per window side, w_s
NEIGHBOURHOOD = 10  # side of a window's keys in the first STGM layer, w_k
LAYERS_PER_UNIT = 6


@dataclass(frozen=True)
class UnitOptions:
    """What the paper and the released weights disagree on; defaults fit the released weights.

    Attributes:
        pooling: initial cluster centres: ``max`` (released), ``average``, or ``intra_inter`` (paper, Eq. 4 and 5).
        stgm_residual: add the initial centres in the first STGM layer (paper, Eq. 1).
        global_centres: learned centres G on the queries of the first unit's second STGM layer (paper, Eq. 2); their
            number belongs to one image size.
        layer_scale: initial LayerScale of the layers that touch semantic tokens; ``None`` for none.
        project_once: see :class:`stvit.layers.stgm.SpatialSTGMLayer`.
    """

    pooling: PoolingName = "max"
    stgm_residual: bool = False
    global_centres: bool = False
    layer_scale: float | None = 1e-5
    project_once: bool = True


class DumbbellStage(RecomputedLayers, nn.Module):
    """Stage 3: dumbbell units, then patch merging."""

    def __init__(self, units: list[DumbbellUnit], downsample: nn.Module) -> None:
        super().__init__()
        self.units = nn.ModuleList(units)
        self.downsample = downsample

    def forward(self, token_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        token_map, trace = self.run_layers(token_map, return_trace)
        return self.downsample(token_map), trace

    def run_layers(self, token_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """All but the merging: (B, H, W, C) -> (B, H, W, C) and, if asked for, what the units did."""
        trace: list[LayerTrace] = []
        for number, unit in enumerate(self.units, start=1):
            token_map, layers = self.run_layer(unit, token_map, number, return_trace)
            trace.extend(layers)
        return token_map, tuple(trace)


class STViTRSwin(TokenMapClassifier):
    """STViT-R on Swin: conv stem, Swin stages 1, 2 and 4, a third stage of dumbbell units.

    Args:
        embed_dim: channels of the first stage.
        depths: layers per stage; the third is a multiple of 6.
        num_heads: attention heads per stage.
        num_classes: classes; 0 returns pooled features.
        in_chans: channels of the input.
        img_size: side of the input in pixels that ``global_centres`` is made for; otherwise any multiple of 224 runs.
        drop_rate: dropout before the head.
        attn_drop_rate: dropout of attention weights.
        proj_drop_rate: dropout after the projections of attention and feed-forward networks.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0.
        options: see :class:`UnitOptions`; each may also be given by name.

    Raises:
        ValueError: the third stage's depth is not a multiple of 6.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        img_size: int = 224,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
        **options: Any,
    ) -> None:
        super().__init__()
        if depths[2] % LAYERS_PER_UNIT:
            raise ValueError(f"stage 3 has {depths[2]} layers, not a multiple of the {LAYERS_PER_UNIT} of a unit")
        dims = [embed_dim * 2**i for i in range(4)]
        self.num_features = self.head_hidden_size = dims[-1]
        self.in_chans = in_chans
        self.feature_info = [
            {"num_chs": dims[min(i + 1, 3)], "reduction": 4 * 2 ** min(i + 1, 3), "module": f"stages.{i}"}
            for i in range(4)
        ]
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        unit_options = UnitOptions(**options)
        drop = {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate}
        semantic_tokens = (img_size // 16 // WINDOW * CENTRES) ** 2

        self.stem = ConvStem(in_chans, embed_dim)
        stages = []
        for i, (dim, depth, heads) in enumerate(zip(dims, depths, num_heads, strict=True)):
            downsample = PatchMerging(dim) if i < 3 else None
            rates = [next(drop_paths) for _ in range(depth)]
            if i == 2:
                units = [
                    build_unit(
                        dim, heads, rates[j : j + LAYERS_PER_UNIT], unit_options, 0 if j else semantic_tokens, drop
                    )
                    for j in range(0, depth, LAYERS_PER_UNIT)
                ]
                stages.append(DumbbellStage(units, downsample))
            else:
                stages.append(SwinStage(swin_layers(dim, heads, rates, **drop), downsample))
        self.stages = nn.ModuleList(stages)
        self.norm = nn.LayerNorm(dims[-1])
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)
        self.apply(init_weights)

    def _run_stages(self, images: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Images, height and width multiples of 224 -> (B, H/32, W/32, C), and what the dumbbell units did."""
        check_swin_input(tuple(images.shape[-2:]), WINDOW)
        token_map = self.stem(images)
        token_map = self.stages[1](self.stages[0](token_map))
        token_map, trace = self.stages[2](token_map, return_trace)
        return self.stages[3](token_map), trace

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """timm's interface to the stages' outputs (after patch merging); parameters as in timm's Swin."""
        wanted, last = feature_take_indices(len(self.stages), indices)
        check_swin_input(tuple(x.shape[-2:]), WINDOW)
        token_map, taken = self.stem(x), []
        for i, stage in enumerate(self.stages[: last + 1] if stop_early else self.stages):
            token_map = stage(token_map)[0] if isinstance(stage, DumbbellStage) else stage(token_map)
            if i in wanted:
                feature = self.norm(token_map) if norm and i == len(self.stages) - 1 else token_map
                taken.append(feature.permute(0, 3, 1, 2).contiguous() if output_fmt == "NCHW" else feature)
        return taken if intermediates_only else (self.norm(token_map), taken)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """As for every Swin; each layer of a dumbbell unit counts."""
        return stage_groups() if coarse else swin_groups(UNIT_LAYERS)

    def init_from(self, full_token: Mapping[str, Tensor]) -> list[str]:
        """Initialise from timm's trained Swin; see :func:`stvit.init_weights.init_from_swin`.

        At its initial 1e-5, LayerScale holds back what the layers of semantic tokens take over: use
        ``layer_scale=None`` and ``stgm_residual=True`` for it to count at once.
        """
        units = [f"stages.2.units.{i}.{layer}" for i in range(len(self.stages[2].units)) for layer in UNIT_LAYERS]
        plain = {i: [f"stages.{i}.layers.{j}" for j in range(len(self.stages[i].layers))] for i in (0, 1, 3)}
        return init_from_swin(self, full_token, [plain[0], plain[1], units, plain[3]])

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the authors' parameters to ours; a dict that has our names already is returned as it is."""
        if not any(name.startswith("patch_embed.") for name in state_dict):
            return state_dict
        return {rename_released(n): t for n, t in state_dict.items() if n.rsplit(".", 1)[-1] not in RECOMPUTED}

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """timm's hook for weight files of a custom format: the authors' published ``.pth``."""
        from stvit.checkpoint import load_checkpoint

        load_checkpoint(self, checkpoint_path)


def build_unit(
    dim: int,
    num_heads: int,
    drop_paths: list[float],
    options: UnitOptions,
    num_global_centres: int,
    drop: Mapping[str, float],
) -> DumbbellUnit:
    """One dumbbell unit of six layers, with the stochastic depth of each and the dropout of all."""
    common = {"layer_scale": options.layer_scale, **drop}
    return DumbbellUnit(
        SwinLayer(dim, num_heads, window_size=WINDOW, drop_path=drop_paths[0], **drop),
        SpatialSTGMLayer(
            dim,
            num_heads,
            initial_centres(options.pooling, dim, (WINDOW, WINDOW), CENTRES),
            window_size=WINDOW,
            centres=CENTRES,
            neighbourhood=NEIGHBOURHOOD,
            residual=options.stgm_residual,
            project_once=options.project_once,
            drop_path=drop_paths[1],
            **common,
        ),
        GlobalSTGMLayer(
            dim,
            num_heads,
            num_global_centres=num_global_centres if options.global_centres else 0,
            drop_path=drop_paths[2],
            **common,
        ),
        SemanticLayer(dim, num_heads, drop_path=drop_paths[3], **common),
        SemanticLayer(dim, num_heads, drop_path=drop_paths[4], **common),
        RecoveryLayer(dim, num_heads, drop_path=drop_paths[5], **common),
    )


#: buffers of the released files that are functions of the input size
RECOMPUTED = ("relative_position_index", "attn_mask")
UNIT_LAYERS = ("image_layer", "stgm_spatial", "stgm_global", "semantic_local", "semantic_global", "recovery")


def rename_released(name: str, dumbbell_units: bool = True) -> str:
    """The name here of a parameter of the authors' ``layers.{stage}.blocks.{layer}`` tree; without dumbbell units, of
    Swin's, which is named alike."""
    name = name.replace("patch_embed.proj.0.c.", "stem.conv1.").replace("patch_embed.proj.0.bn.", "stem.bn1.")
    name = name.replace("patch_embed.proj.2.c.", "stem.conv2.").replace("patch_embed.proj.2.bn.", "stem.bn2.")
    name = re.sub(r"\.layer_scale_([12])$", r".ls\1.gamma", name)
    if dumbbell_units and (match := re.match(r"layers\.2\.blocks\.(\d+)\.(.*)", name)):
        unit, layer = divmod(int(match[1]), LAYERS_PER_UNIT)
        return f"stages.2.units.{unit}.{UNIT_LAYERS[layer]}.{match[2]}"
    name = re.sub(r"^layers\.(\d)\.blocks\.", r"stages.\1.layers.", name)
    return re.sub(r"^layers\.", "stages.", name)


def _record(letter: str, *figures: float) -> ModelRecord:
    """The published weights, evaluated as published: 256-pixel bicubic resize, 224-pixel centre crop."""
    return ModelRecord(
        hf_hub_id="csncsn/STViT-R",
        hf_hub_filename=f"STViT-R-Swin-{letter}.pth",
        custom_load=True,
        crop_pct=PUBLISHED_CROP,
        pool_size=(7, 7),
        first_conv="stem.conv1",
        classifier="head",
        license=STVIT_R_LICENCE,
        paper_ids="arXiv:2303.08685",
        paper_name="Making Vision Transformers Efficient from A Token Sparsification View",
        origin_url="https://github.com/changsn/STViT-R",
        published=classifier_figures(*figures),
    )


default_cfgs = generate_default_cfgs(
    {
        "stvit_r_swin_small_224.in1k": _record("S", 82.7, 5.83, 717),
        "stvit_r_swin_base_224.in1k": _record("B", 83.2, 10.26, 539),
    }
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> STViTRSwin:
    feature_cfg = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
    return build_model(STViTRSwin, variant, pretrained, feature_cfg=feature_cfg, **kwargs)


@register_model
def stvit_r_swin_small_224(pretrained: bool = False, **kwargs: Any) -> STViTRSwin:
    """STViT-R-Swin-S: 49,625,518 parameters; published 82.7 % top-1 at 5.83 G multiply-adds (Table 3)."""
    sizes = {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)}
    return _create("stvit_r_swin_small_224", pretrained, **sizes | kwargs)


@register_model
def stvit_r_swin_base_224(pretrained: bool = False, **kwargs: Any) -> STViTRSwin:
    """STViT-R-Swin-B: 87,812,336 parameters; published 83.2 % top-1 at 10.26 G multiply-adds (Table 3)."""
    sizes = {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)}
    return _create("stvit_r_swin_base_224", pretrained, **sizes | kwargs)
