"""What the tokens of a layer stand for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from stvit.predict.regions import (
    CLEAR,
    DROPPED,
    TokenRegions,
    coherence,
    last_region_layer,
    most_coherent,
    regions_of,
)
from stvit.trace import LayerTrace, TokenTrace
from tests.stvit.models.families import images_for, narrow

SOUND = TokenRegions("stgm", "STGM 1", np.array([[0, 1, 3]], np.int16), 4, 1, (2, 2), np.ones((4, 1, 3), np.float32))
REDUCED = LayerTrace(
    "Layer 1", "reduction", torch.zeros(1, 3, 8), (2, 3), assignment=torch.tensor([[0, 0, 1, 2, 2, -1]])
)


def attending(name: str, kind: str, attention: torch.Tensor, unit: int = 1) -> LayerTrace:
    return LayerTrace(name, kind, torch.zeros(2, 4, 8), (2, 3), (2, 2), attention, unit)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"assignment": np.array([[0, 4]], np.int16)}, r"outside \[-1, 4\)"),
        ({"assignment": np.array([[0, -2]], np.int16)}, r"outside \[-1, 4\)"),
        ({"assignment": np.zeros(3, np.int16)}, "a grid of image tokens"),
        ({"assignment": np.zeros((0, 3), np.int16)}, "a grid of image tokens"),
        ({"semantic_grid_hw": (2, 3)}, r"do not fill a semantic grid of \(2, 3\)"),
        ({"attention": np.ones((4, 3, 1), np.float32)}, r"expected \(4, 1, 3\)"),
    ],
)
def test_regions_that_contradict_themselves_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SOUND, **change)


def test_of_networks_that_merge_only_tokens_that_stand_for_several_have_a_number() -> None:
    (regions,) = regions_of(REDUCED.regions())
    assert regions.kind == "merged" and regions.num_tokens == 3 and regions.semantic_grid_hw is None
    assert regions.assignment.ravel().tolist() == [0, 0, 1, 2, 2, DROPPED]
    assert regions.grouped().ravel().tolist() == [0, 0, CLEAR, 2, 2, DROPPED]
    assert regions.group_sizes().tolist() == REDUCED.group_sizes()[0].tolist() == [2, 1, 2]


def test_semantic_tokens_keep_their_number_even_with_a_single_image_token() -> None:
    assert SOUND.grouped() is SOUND.assignment


def test_every_image_of_a_batch_gets_its_own_regions_and_attention_on_request() -> None:
    attention = torch.rand(2, 3, 4, 6, generator=torch.Generator().manual_seed(0))
    layer = attending("STGM 1", "stgm", attention)
    for index, regions in enumerate(regions_of(layer.regions(attention=True))):
        assert (regions.kind, regions.unit, regions.num_tokens) == ("stgm", 1, 4)
        np.testing.assert_array_equal(regions.assignment.ravel(), layer.clusters()[index])
        np.testing.assert_allclose(regions.attention.reshape(4, 6), attention[index].mean(dim=0), rtol=1e-6)
    assert [regions.attention for regions in regions_of(layer.regions())] == [None, None]


def test_the_layer_that_is_shown_is_the_last_that_makes_tokens_else_the_last() -> None:
    first, second = (attending(f"STGM {n}", "stgm", torch.rand(2, 1, 4, 6)) for n in (1, 2))
    recovery = attending("Recovery", "recovery", torch.rand(2, 1, 6, 4))
    plain = LayerTrace("Layer 0", "image", torch.zeros(2, 6, 8), (2, 3))
    layers = TokenTrace((plain, first, second, recovery)).region_layers()
    assert layers == (first, second, recovery)
    assert last_region_layer(layers) is second
    assert last_region_layer((recovery,)) is recovery and last_region_layer((REDUCED,)) is REDUCED
    assert last_region_layer([regions_of(layer.regions())[0] for layer in layers]).layer == "STGM 2"
    assert last_region_layer(TokenTrace((plain,)).region_layers()) is None


def test_coherence_is_high_for_blocks_about_zero_for_scattered_tokens_and_zero_for_one_region() -> None:
    blocks = np.kron(np.arange(4).reshape(2, 2), np.ones((7, 7), int))
    scattered = np.random.default_rng(0).permutation(blocks.ravel()).reshape(14, 14)
    assert coherence(blocks) == pytest.approx((1 - 14 / 182 - 0.25) / 0.75)
    assert abs(coherence(scattered)) < 0.1
    assert coherence(np.indices((14, 14)).sum(axis=0) % 2) == -1
    assert coherence(np.zeros((14, 14), int)) == coherence(np.zeros((1, 1), int)) == 0


def test_the_layer_that_people_see_first_is_the_most_coherent_or_the_last_that_reduces() -> None:
    layers = [replace(SOUND, layer=str(row), assignment=np.array([row], np.int16)) for row in ((0, 1, 0), (0, 0, 1))]
    assert most_coherent(layers) is layers[1] and most_coherent(layers[::-1]) is layers[1]
    (reduced,) = regions_of(REDUCED.regions())
    assert most_coherent([reduced, replace(reduced, layer="Layer 2")]).layer == "Layer 2"
    assert most_coherent(()) is None


@pytest.mark.parametrize(
    ("family", "fate"),
    [
        ("evit_deit", "dropped"),
        ("dynamicvit_deit", "dropped"),
        ("diffrate_deit", "dropped"),
        ("avit", "halted"),
        ("evo_vit_deit", "waiting"),
        ("dynamicswin", "fast"),
    ],
)
def test_regions_say_what_became_of_tokens_without_a_number(family: str, fate: str) -> None:
    options = {"evit_deit": {"fuse_inattentive": False}, "avit": {"gate_scale": 1.0, "gate_centre": 1.0}}
    model = narrow(family, **options.get(family, {}))
    with torch.inference_mode():
        _, trace = model(images_for(model, 1), return_trace=True)
    (last,) = regions_of(last_region_layer(trace.region_layers()).regions())
    assert (last.assignment == DROPPED).sum() > 0 and last.reduces
    left_out = [
        entry
        for layer in trace.region_layers()
        for entry in regions_of(layer.regions())
        if (entry.assignment < 0).any()
    ]
    assert {entry.fate for entry in left_out} == {fate}
    if family not in ("evit_deit", "diffrate_deit"):
        assert not last.together().any()


@pytest.mark.parametrize("family", ["atc_deit", "tokenlearner_deit"])
def test_where_tokens_are_merged_or_learned_each_image_token_belongs_to_one(family: str) -> None:
    model = narrow(family)
    with torch.inference_mode():
        _, trace = model(images_for(model, 1), return_trace=True)
    (shown,) = regions_of(last_region_layer(trace.region_layers()).regions(attention=True))
    assert shown.assignment.min() >= 0
    if family == "atc_deit":
        assert shown.kind == "merged" and shown.together().any()
    else:
        assert (shown.kind, shown.semantic_grid_hw, shown.attention.shape) == ("stgm", (1, 8), (8, 14, 14))
