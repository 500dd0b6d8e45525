"""Bundled models as entries of the roster."""

from __future__ import annotations

import pytest

import demo.registry
from demo.classifiers import METHODS
from demo.garments import garment_choices, known, narrow_peer
from demo.model_spec import ModelChoice
from demo.registry import (
    UnknownModel,
    find,
    find_any,
    find_detector,
    full_token_peer,
    garment_detector,
    garment_pair,
    settings_of,
    sizes_of,
)
from stvit.pretrained.model_cards import BundledModels


@pytest.fixture
def classifiers(stand_ins: BundledModels) -> tuple[ModelChoice, ...]:
    return garment_choices(stand_ins.of_task("classify"))


def test_each_is_an_entry_with_a_method_a_setting_and_its_record(classifiers: tuple[ModelChoice, ...]) -> None:
    shown = {choice.name: (choice.method, choice.size, choice.setting, choice.label) for choice in classifiers}
    assert shown == {
        "garments_stvit_r_swin": ("STViT-R-Swin", "narrow", "36 in stage 3", "STViT-R-Swin, narrow"),
        "garments_stvit_deit": ("STViT-DeiT", "narrow", "16", "STViT-DeiT, narrow, 16 tokens"),
        "garments_evit_05": ("EViT-DeiT", "narrow", "0.5", "EViT-DeiT, narrow, keep 0.5"),
        "garments_swin": ("Swin", "narrow", "all", "Swin, narrow"),
        "garments_deit": ("DeiT", "narrow", "all", "DeiT, narrow"),
    }
    assert list(shown) == list(dict.fromkeys(choice.name for choice in classifiers))
    assert all(choice.has_weights and choice.bundled.name == choice.name for choice in classifiers)


def test_what_they_take_and_know_is_their_records(classifiers: tuple[ModelChoice, ...]) -> None:
    deit = next(choice for choice in classifiers if choice.name == "garments_deit")
    assert (deit.input_size, deit.crop_pct, len(deit.classes)) == (112, 1.0, 10)
    published = find("deit_tiny_patch16_224")
    assert (published.input_size, published.crop_pct, published.classes) == (224, 0.875, None)


def test_what_they_know_is_told_by_their_classes(stand_ins: BundledModels) -> None:
    words = {task: known(stand_ins.of_task(task)[0]) for task in ("classify", "detect", "segment", "video")}
    assert set(words.values()) == {"ten kinds of garments", "eight motions of garments"}
    assert words["video"] == "eight motions of garments"
    by_kind = stand_ins["garments_clips_swin"].model_copy(update={"classes": ("bag", "coat")})
    assert known(by_kind) == "2 kinds of garments"


def test_a_family_that_the_page_has_no_method_for_is_left_out(stand_ins: BundledModels) -> None:
    record = stand_ins["garments_deit"].model_copy(update={"model": "resnet18"})
    assert garment_choices([record]) == ()


def test_the_pickers_offer_them_after_the_published_sizes(garments: None) -> None:
    assert sizes_of("STViT-DeiT") == ("tiny", "small", "base", "narrow")
    assert [choice.name for choice in settings_of("STViT-DeiT", "narrow")] == ["garments_stvit_deit"]
    assert {choice.method for choice in demo.registry.CHOICES} <= {method.name for method in METHODS}
    assert len({choice.label for choice in demo.registry.CHOICES}) == len(demo.registry.CHOICES)


def test_the_first_pair_is_one_with_semantic_tokens_and_its_full_token_peer(garments: None) -> None:
    assert [choice.name for choice in garment_pair()] == ["garments_stvit_r_swin", "garments_swin"]
    assert garment_detector().name == "garments_detect_stvit_r"


def test_without_its_peer_no_pair_begins(garments: None, monkeypatch: pytest.MonkeyPatch) -> None:
    lone = tuple(choice for choice in demo.registry.CHOICES if not choice.bundled or choice.method.startswith("STViT"))
    monkeypatch.setattr(demo.registry, "CHOICES", lone)
    assert garment_pair() is None
    assert narrow_peer(find("garments_stvit_deit"), lone) is None


def test_detectors_are_found_with_their_peers(garments: None, monkeypatch: pytest.MonkeyPatch) -> None:
    ours, full = find_detector("garments_detect_stvit_r"), find_detector("garments_detect_swin")
    assert (full_token_peer(ours), full_token_peer(full)) == (full, ours)
    assert find_any(ours.name) is ours
    with pytest.raises(UnknownModel):
        find(ours.name)
    monkeypatch.setattr(demo.registry, "DETECTORS", (ours,))
    with pytest.raises(UnknownModel, match="nothing to compare STViT-R-Swin, narrow with"):
        full_token_peer(ours)
