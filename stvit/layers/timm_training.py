"""Serve timm's training: gradient checkpointing, and layers in order for layer-wise learning rates.

A table of layer groups maps kinds of layers, in order, to patterns of parameter names; the numbers that a pattern
captures order the layers of its kind. What no pattern matches comes last: heads, and what stands between a backbone and
them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch
from timm.models import checkpoint
from timm.models._manipulate import MATCH_PREV_GROUP


class RecomputedLayers:
    """Mixin for modules that run layers. With gradient checkpointing, activations inside a layer are computed again in
    the backward pass instead of being kept; :meth:`set_grad_checkpointing` reaches all such modules below.

    Attributes:
        grad_checkpointing: whether the layers that this module runs are recomputed.
    """

    grad_checkpointing: bool = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing on or off; timm's interface."""
        for module in self.modules():
            if isinstance(module, RecomputedLayers):
                module.grad_checkpointing = enable

    def run_layer(self, layer: Callable[..., Any], *arguments: Any) -> Any:
        """``layer(*arguments)``; with gradient checkpointing, only the arguments are kept for the backward pass."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *arguments)
        return layer(*arguments)


LayerGroups = dict[str, list[tuple[str, tuple[float, ...] | None]]]

STEM = [(r"stem\.", None)]
NORM = (r"norm\.", MATCH_PREV_GROUP)  # belongs to the last layer
NORM_OF_MAP = (r"norms\.(\d+)\.", MATCH_PREV_GROUP)  # of a dense backbone: to the last layer of its stage
MERGING = (r"stages\.(\d+)\.downsample\.", MATCH_PREV_GROUP)


def stage_groups() -> LayerGroups:
    """Stem and stages of every Swin model: timm's coarse groups."""
    return {"stem": STEM, "stages": [(r"stages\.(\d+)\.", None), NORM_OF_MAP, NORM]}


def swin_groups(unit_layers: Sequence[str] = ()) -> LayerGroups:
    """Every layer of a Swin; merging and norms go with the layer before them.

    Args:
        unit_layers: names of the layers of a dumbbell unit, in order, if the model has units.
    """
    units = [(rf"stages\.(\d+)\.units\.(\d+)\.{name}\.", (float(i),)) for i, name in enumerate(unit_layers)]
    return {"stem": STEM, "layers": [(r"stages\.(\d+)\.layers\.(\d+)\.", None), *units, MERGING, NORM_OF_MAP, NORM]}


def semantic_swin_groups() -> LayerGroups:
    """Every layer of an STViT-Swin, on images or clips; the linear layer after stage 3 goes with the layer before."""
    return {
        "stem": STEM,
        "early_stages": [(r"stages\.(\d+)\.layers\.(\d+)\.", None), MERGING],
        "image_layers": [(r"stages\.2\.image_layers\.(\d+)\.", None)],
        "stgm": [(r"stages\.2\.stgm_spatial\.", (0.0,)), (r"stages\.2\.stgm_global\.", (1.0,))],
        "semantic_layers": [
            (r"stages\.2\.semantic_layers\.(\d+)\.", None),
            (r"stages\.2\.expand\.", MATCH_PREV_GROUP),
        ],
        "last_stage": [(r"stages\.3\.(\d+)\.", None), NORM],
    }


def groups_within(part: str, groups: LayerGroups) -> LayerGroups:
    """The same layers as parts of a larger model, whose other parameters come last."""
    prefix = re.escape(part) + r"\."
    return {kind: [(prefix + pattern, order) for pattern, order in layers] for kind, layers in groups.items()}
