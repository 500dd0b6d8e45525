"""timm's ``SwinTransformer`` with semantic tokens in its third stage: STViT, or STViT-R, which keeps full resolution.

Layers of semantic tokens have no position bias and no shift, as in the released STViT-R, so no number of tokens makes
these models equal to the original.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any, NoReturn

import torch
from timm.models._manipulate import MATCH_PREV_GROUP
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.layers.attention import SemanticLayer
from stvit.layers.pooling import PoolingName, initial_centres
from stvit.layers.recovery import DumbbellUnit, RecoveryLayer
from stvit.layers.reducing_vit import NO_FEATURE_MAPS
from stvit.layers.stgm import FrameSTGMLayer, GlobalSTGMLayer
from stvit.layers.timm_training import NORM, LayerGroups, RecomputedLayers
from stvit.models.stvit_r_swin import LAYERS_PER_UNIT, NEIGHBOURHOOD, UNIT_LAYERS, WINDOW, DumbbellStage
from stvit.models.stvit_swin import SemanticStage
from stvit.trace import LayerTrace

from .adopt import adopt


class ExpandTokens(nn.Module):
    """What patch merging does to four equal tokens, as one linear layer of half its cost: (..., C) -> (..., 2C).

    Args:
        merging: timm's ``PatchMerging``, whose weights it begins with.
    """

    def __init__(self, merging: nn.Module) -> None:
        super().__init__()
        weight, norm = merging.reduction.weight.detach(), merging.norm
        quarters = weight.unflatten(1, (4, -1))  # (2C, 4, C)
        self.eps = norm.eps
        self.linear = nn.Linear(quarters.shape[2], quarters.shape[0], device=weight.device, dtype=weight.dtype)
        with torch.no_grad():
            self.linear.weight.copy_((quarters * norm.weight.unflatten(0, (4, -1))).sum(1))
            self.linear.bias.copy_(weight @ norm.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.linear(F.layer_norm(tokens, tokens.shape[-1:], eps=self.eps))


class SparseStage(nn.Module):
    """Stage 3: timm's patch merging before it, then a stage of this project.

    Args:
        downsample: to the size of the stage.
        stage: (B, H, W, C) -> token map and what its layers did.
    """

    def __init__(self, downsample: nn.Module, stage: SemanticStage | DumbbellStage) -> None:
        super().__init__()
        self.downsample, self.stage = downsample, stage

    def forward(self, token_map: Tensor, return_trace: bool = False) -> Any:
        """Token map; with its trace if that is asked for."""
        token_map, trace = self.stage(self.downsample(token_map), return_trace)
        return (token_map, trace) if return_trace else token_map


class SemanticOnlyStage(RecomputedLayers, nn.Module):
    """Stage 4 of semantic tokens alone, each of which attends all.

    Args:
        blocks: the layers of Swin's stage 4.
    """

    def __init__(self, blocks: Iterable[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(adopt(SemanticLayer, block) for block in blocks)

    def forward(self, token_map: Tensor, return_trace: bool = False) -> Any:
        """(B, H, W, C) -> (B, H, W, C); with its trace if that is asked for."""
        tokens, semantic_hw, trace = token_map.flatten(1, 2), tuple(token_map.shape[1:3]), []
        for i, layer in enumerate(self.layers, start=1):
            tokens = self.run_layer(layer, tokens)
            if return_trace:  # of a map that is known to the model alone
                trace.append((f"Stage 4, layer {i}", tokens, semantic_hw))
        token_map = tokens.unflatten(1, semantic_hw)
        return (token_map, trace) if return_trace else token_map


class SparseSwin(RecomputedLayers):
    """timm's ``SwinTransformer`` whose third stage has semantic tokens.

    Attributes:
        frozen_start: whether the first two stages learn nothing.
    """

    frozen_start = False

    def forward_features(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> the normalised last token map (B, h, w, C)."""
        return self.norm(self.run_layers(x)[0])

    def run_layers(self, images: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Images -> the last token map and, if asked for, what the layers from stage 3 on did."""
        with torch.no_grad() if self.frozen_start else nullcontext():
            token_map = self.layers[1](self.layers[0](self.patch_embed(images)))
        if not return_trace:
            return self.layers[3](self.layers[2](token_map)), ()
        token_map, trace = self.layers[2](token_map, return_trace)
        if not isinstance(self.layers[3], SemanticOnlyStage):
            return self.layers[3](token_map), trace
        token_map, last = self.layers[3](token_map, return_trace)
        image_hw = trace[-1].image_grid_hw
        return token_map, (*trace, *(LayerTrace(name, "semantic", t, image_hw, hw) for name, t, hw in last))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing of all layers on or off."""
        RecomputedLayers.set_grad_checkpointing(self, enable)
        for stage in self.layers:
            stage.grad_checkpointing = enable

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> Any:
        """The maps of the stages, as of timm, with ``stvit_r``.

        Raises:
            ValueError: the tokens do not stay a map.
        """
        self._check_maps()
        return super().forward_intermediates(*args, **kwargs)

    def prune_intermediate_layers(self, *args: Any, **kwargs: Any) -> Any:
        """As :meth:`forward_intermediates`."""
        self._check_maps()
        return super().prune_intermediate_layers(*args, **kwargs)

    def _check_maps(self) -> None:
        if any(isinstance(stage, SemanticOnlyStage) for stage in self.layers):
            raise ValueError(NO_FEATURE_MAPS.format("a Swin with method 'stvit'"))

    def set_input_size(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not available.

        Raises:
            ValueError: always.
        """
        raise ValueError("the windows of a sparsified Swin belong to one size: resize the original, then sparsify it")

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """timm's, with the layers of the third stage in order."""
        if coarse:
            return super().group_matcher(coarse)
        third = r"layers\.2\.stage\."
        units = [(rf"{third}units\.(\d+)\.{name}\.", (float(i),)) for i, name in enumerate(UNIT_LAYERS)]
        return {
            "stem": [(r"patch_embed\.", None)],
            "early_stages": [(r"layers\.([012])\.downsample\.", (0.0,)), (r"layers\.([01])\.blocks\.(\d+)\.", None)],
            "image_layers": [(third + r"image_layers\.(\d+)\.", None)],
            "stgm": [(third + r"stgm_spatial\.", (0.0,)), (third + r"stgm_global\.", (1.0,))],
            "semantic_layers": [(third + r"semantic_layers\.(\d+)\.", None), (third + r"expand\.", MATCH_PREV_GROUP)],
            "units": units,
            "last_stage": [(r"layers\.3\.downsample\.", (0.0,)), (r"layers\.3\.\w+\.(\d+)\.", None), NORM],
        }


def semantic_stage(blocks: list[nn.Module], merging: nn.Module, position: int, m: int, pooling: PoolingName) -> Any:
    """Stage 3 of STViT from the layers of Swin's, and its linear layer from the patch merging after it."""
    spatial, clustering, *later = blocks[position:]
    return SemanticStage(
        blocks[:position],
        spatial_stgm(spatial, m, pooling),
        adopt(GlobalSTGMLayer, clustering, global_centres=None, centres_in_keys=False),
        [adopt(SemanticLayer, block) for block in later],
        ExpandTokens(merging),
    )


def dumbbell_stage(blocks: list[nn.Module], m: int, pooling: PoolingName) -> DumbbellStage:
    """Stage 3 of STViT-R from the layers of Swin's, six a dumbbell unit."""
    units = []
    for start in range(0, len(blocks), LAYERS_PER_UNIT):
        image, spatial, clustering, local, refining, recovery = blocks[start : start + LAYERS_PER_UNIT]
        units.append(
            DumbbellUnit(
                image,
                spatial_stgm(spatial, m, pooling),
                adopt(GlobalSTGMLayer, clustering, global_centres=None, centres_in_keys=False),
                adopt(SemanticLayer, local),
                adopt(SemanticLayer, refining),
                adopt(RecoveryLayer, recovery),
            )
        )
    return DumbbellStage(units, nn.Identity())


def spatial_stgm(block: nn.Module, m: int, pooling: PoolingName) -> FrameSTGMLayer:
    """First layer of the STGM with the window of the layer that it replaces; its keys reach as far beyond the window as
    in the paper, 10 tokens of 7."""
    window, like = block.window_size[0], next(block.parameters())
    centres = initial_centres(pooling, block.attn.dim, (window, window), m).to(like.device, like.dtype)
    reach = round(window * NEIGHBOURHOOD / WINDOW)
    sizes = {"window_size": window, "centres": m, "neighbourhood": reach}
    return adopt(FrameSTGMLayer, block, pooling=centres, residual=True, project_once=True, **sizes)
