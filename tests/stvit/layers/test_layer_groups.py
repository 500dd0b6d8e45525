"""Which layers timm's layer-wise learning rates see in each model, in which order."""

from __future__ import annotations

import re
from itertools import groupby

import pytest
import timm
import torch
from timm.models import group_parameters
from torch import nn

from stvit.models.stvit_r_swin import UNIT_LAYERS
from tests.stvit.models import clip_models
from tests.stvit.models.families import FAMILIES

SWIN = {"embed_dim": 16, "depths": (1, 2, 6, 1), "num_heads": (1, 2, 4, 8)}
UNITS = [(f"stages.2.units.0.{name}",) for name in UNIT_LAYERS]
BACKBONE = [
    ("stem",),
    ("stages.0.layers.0", "stages.0.downsample"),
    ("stages.1.layers.0",),
    ("stages.1.layers.1", "stages.1.downsample"),
    *UNITS[:-1],
    (*UNITS[-1], "stages.2.downsample"),
]
EARLY = [
    ("stem",),
    ("stages.0.layers.0",),
    ("stages.0.layers.1", "stages.0.downsample"),
    ("stages.1.layers.0",),
    ("stages.1.layers.1", "stages.1.downsample"),
]
BLOCKS = [(f"blocks.{i}",) for i in range(6)]
VIT = [("cls_token", "pos_embed", "patch_embed"), *BLOCKS[:-1], ("blocks.5", "norm"), ("head", "aux_head")]


def semantic_stages(image: int, semantic: int) -> list[tuple[str, ...]]:
    """Stages 3 and 4 of an STViT-Swin, and its head."""
    return [
        *[(f"stages.2.image_layers.{i}",) for i in range(image)],
        ("stages.2.stgm_spatial",),
        ("stages.2.stgm_global",),
        *[(f"stages.2.semantic_layers.{i}",) for i in range(semantic - 1)],
        (f"stages.2.semantic_layers.{semantic - 1}", "stages.2.expand"),
        ("stages.3.0",),
        ("stages.3.1", "norm"),
        ("head",),
    ]


def within_backbone(layers: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [tuple(f"backbone.{part}" for part in layer) for layer in layers]


def dense(name: str) -> nn.Module:
    with torch.device("meta"):  # names are enough
        return timm.create_model(name, **SWIN)


FULL_TOKEN_BACKBONE = [
    *BACKBONE[:4],
    *[(f"stages.2.layers.{i}",) for i in range(5)],
    ("stages.2.layers.5", "stages.2.downsample"),
]
LAST_STAGE = [("stages.3.layers.0",)]
NORMS = {1: "norms.0", 3: "norms.1", 9: "norms.2", 10: "norms.3"}
CLASSIFIER_END = [("stages.3.layers.0", "norm"), ("head",)]
DETECTOR_END, SEGMENTER_END = [("neck", "rpn_head", "roi_head")], [("head", "auxiliary_head")]


def with_norms(layers: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Those of a dense backbone, whose stages end in a norm each."""
    return within_backbone([(*layer, NORMS[i]) if i in NORMS else layer for i, layer in enumerate(layers)])


CASES = {
    "stvit_deit": (FAMILIES["stvit_deit"], VIT),
    "evit_deit": (FAMILIES["evit_deit"], VIT),
    "lvvit": (FAMILIES["lvvit"], VIT),
    "stvit_r_swin": (lambda: timm.create_model("stvit_r_swin_small_224", **SWIN), BACKBONE + CLASSIFIER_END),
    "stvit_swin": (FAMILIES["stvit_swin"], EARLY + semantic_stages(image=2, semantic=2)),
    "stvit_video_swin": (clip_models.with_semantic_tokens, EARLY + semantic_stages(image=1, semantic=1)),
    "detector": (
        lambda: dense("stvit_r_swin_small_cascade_mask_rcnn"),
        with_norms(BACKBONE + LAST_STAGE) + DETECTOR_END,
    ),
    "segmenter": (lambda: dense("stvit_r_swin_small_upernet"), with_norms(BACKBONE + LAST_STAGE) + SEGMENTER_END),
    "full-token segmenter": (
        lambda: dense("swin_small_upernet"),
        with_norms(FULL_TOKEN_BACKBONE + LAST_STAGE) + SEGMENTER_END,
    ),
}


def layers_of(model: nn.Module, coarse: bool = False) -> list[list[str]]:
    """The parameters' names, layer by layer."""
    number = group_parameters(model, model.group_matcher(coarse=coarse), reverse=True)
    assert number.keys() == {name for name, _ in model.named_parameters()}
    in_order = sorted(number, key=number.get)
    return [list(names) for _, names in groupby(in_order, key=number.get)]


@pytest.mark.parametrize("case", CASES)
def test_every_layer_counts_in_the_order_of_the_forward_pass(case):
    build, expected = CASES[case]
    found = layers_of(build())
    assert len(found) == len(expected)
    for names, parts in zip(found, expected, strict=True):
        prefixes = tuple(f"{part}." for part in parts)
        strangers = [name for name in names if not f"{name}.".startswith(prefixes)]
        assert strangers == [], f"with {parts}"


def test_full_token_video_swin_has_its_layers_in_order_too():
    found = layers_of(clip_models.full_token())
    assert len(found) == 1 + sum(clip_models.SIZES["depths"]) + 1
    assert [names[0].split(".")[0] for names in found] == ["stem", *["stages"] * 10, "head"]


@pytest.mark.parametrize("case", ["stvit_r_swin", "stvit_swin", "stvit_video_swin", "segmenter"])
def test_coarse_groups_are_stem_stages_and_head(case):
    found = layers_of(CASES[case][0](), coarse=True)
    assert len(found) == 6
    for stage, names in enumerate(found[1:5]):
        of_others = [name for name in names if re.search(rf"stages\.(?!{stage}\.)|norms\.(?!{stage}\.)|head", name)]
        assert of_others == []
