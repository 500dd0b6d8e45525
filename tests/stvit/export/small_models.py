"""One model of every family, of as few layers as it has with all its parts, so that exporting it takes a moment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import timm
import torch
from torch import nn

import stvit
from stvit.export.graph import example_images
from stvit.models.dense_backbone import dense_backbone
from tests.stvit.models import clip_models
from tests.stvit.models.families import narrow

SWIN: dict[str, Any] = {"embed_dim": 8, "depths": (1, 1, 2, 1), "num_heads": (1, 1, 2, 2)}
UNITS = {**SWIN, "depths": (1, 1, 6, 1)}  # one dumbbell unit
DETECTOR = {**UNITS, "fpn_channels": 8, "box_hidden": 8, "num_classes": 3}


def spread(model: nn.Module) -> nn.Module:
    """Move parameters and BatchNorm's statistics from their initial values, so that nothing is zero or one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var")):
                buffer.add_(0.2 * torch.rand_like(buffer))
    return model.eval()


#: by name: how to build it, and the sides of its images
SMALL: dict[str, tuple[Callable[[], nn.Module], tuple[int, int]]] = {
    "deit": (lambda: spread(timm.create_model("deit_tiny_patch16_224", depth=2, embed_dim=24)), (224, 224)),
    "stvit_deit": (lambda: narrow("stvit_deit", depth=4, stgm_position=1), (112, 112)),
    "evit_deit": (lambda: narrow("evit_deit", depth=3, reduction_layers=(1,)), (112, 112)),
    "tome_deit": (lambda: narrow("tome_deit", depth=2), (112, 112)),
    "lvvit": (lambda: narrow("lvvit", depth=2), (112, 112)),
    "stvit_lvvit": (lambda: narrow("stvit_lvvit", depth=4, stgm_position=1), (112, 112)),
    "evit_lvvit": (lambda: narrow("evit_lvvit", depth=3, reduction_layers=(1,)), (112, 112)),
    "swin": (lambda: spread(timm.create_model("swin_tiny_patch4_window7_224", **SWIN)), (224, 224)),
    "dynamicvit_deit": (lambda: narrow("dynamicvit_deit", depth=2, reduction_layers=(1,)), (112, 112)),
    "evo_vit_deit": (lambda: narrow("evo_vit_deit", depth=3, selection_layers=(1, 2)), (112, 112)),
    "avit": (lambda: narrow("avit", depth=3, gate_scale=2.0, gate_centre=0.0), (112, 112)),
    "atc_deit": (lambda: narrow("atc_deit", depth=2, reduction_layers=(0,), img_size=32), (32, 32)),
    "diffrate_deit": (lambda: narrow("diffrate_deit", depth=2, schedule=((150, 120), (140, 100))), (112, 112)),
    "tokenlearner_deit": (lambda: narrow("tokenlearner_deit", depth=2), (112, 112)),
    "dynamicswin": (lambda: narrow("dynamicswin", **SWIN | {"depths": (1, 1, 3, 1), "decisions": (2,)}), (224, 224)),
    "stvit_swin": (lambda: narrow("stvit_swin", **SWIN | {"depths": (1, 1, 3, 1), "stgm_position": 0}), (224, 224)),
    "stvit_r_swin": (lambda: narrow("stvit_r_swin", **UNITS), (224, 224)),
    "dense_backbone": (lambda: spread(dense_backbone("stvit_r_swin_small", **UNITS)), (72, 136)),
    "detector": (lambda: spread(stvit.create_model("stvit_r_swin_small_cascade_mask_rcnn", **DETECTOR)), (64, 128)),
    "upernet": (
        lambda: spread(
            stvit.create_model("swin_small_upernet", channels=8, auxiliary_channels=8, **SWIN, num_classes=5)
        ),
        (64, 96),
    ),
    "video_swin": (lambda: clip_models.full_token(**SWIN), (56, 56)),
    "stvit_video_swin": (
        lambda: clip_models.with_semantic_tokens(**SWIN | {"depths": (1, 1, 3, 1), "stgm_position": 0}),
        (112, 112),
    ),
}
FULL_TOKEN = ("deit", "lvvit", "swin", "upernet", "video_swin")
FRAMES = 4


def build(name: str) -> nn.Module:
    """The model, with the same random weights every time."""
    torch.manual_seed(0)
    return SMALL[name][0]()


def images_for(name: str, batch: int) -> torch.Tensor:
    """Normal images or clips that the model takes."""
    size = SMALL[name][1]
    return example_images((3, FRAMES, *size) if "video" in name else (3, *size), batch)
