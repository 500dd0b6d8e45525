from __future__ import annotations

import gradio as gr
import pytest
import timm
import torch

import stvit
from demo.registry import (
    BASELINES,
    CHOICES,
    DETECTORS,
    METHODS,
    MODELS,
    UnknownModel,
    find,
    full_token_peer,
    label_of,
    method_of,
    published_figures,
    settings_of,
    sizes_of,
)
from demo.tabs.inputs import method_chosen, size_chosen
from stvit.pretrained.records import catalogue, record


def test_names_and_labels_are_unique_and_lead_back_to_their_entry() -> None:
    assert len({choice.name for choice in CHOICES}) == len({choice.label for choice in CHOICES}) == len(CHOICES)
    assert all(find(choice.name) is choice for choice in CHOICES)
    assert len(MODELS) + len(BASELINES) == len(CHOICES)


def test_every_entry_is_reached_through_the_three_pickers() -> None:
    reached = [
        choice for method in METHODS for size in sizes_of(method.name) for choice in settings_of(method.name, size)
    ]
    assert sorted(choice.name for choice in reached) == sorted(choice.name for choice in CHOICES)


def test_detectors_are_on_offer_with_their_records_and_a_full_token_peer_without_weights() -> None:
    records = {each.architecture: each for each in catalogue().values() if each.test_scale}
    published = [choice for choice in DETECTORS if not choice.bundled]
    assert [choice.name for choice in published] == list(records)
    for choice in published:
        assert choice.weights == choice.name and records[choice.name].published.items() <= choice.published.items()
        peer = full_token_peer(choice)
        assert peer.size == choice.size and peer.weights is None and "no public weights" in peer.no_weights
        with torch.device("meta"):
            assert stvit.create_model(choice.model).num_classes == stvit.create_model(peer.model).num_classes == 80


def test_a_detector_is_no_classifier_and_the_other_way_round() -> None:
    with pytest.raises(UnknownModel):
        find(DETECTORS[0].name)
    with pytest.raises(UnknownModel):
        find(CHOICES[0].name, DETECTORS)
    assert label_of(DETECTORS[0].name) == label_of(CHOICES[0].name) == "STViT-R-Swin-S"


@pytest.mark.slow
def test_every_setting_can_be_built() -> None:
    with torch.device("meta"):
        for choice in CHOICES:
            if choice.size == sizes_of(choice.method)[0]:
                known = len(choice.classes or range(1000))
                assert timm.create_model(choice.model, **choice.options).num_classes == known


def test_every_entry_has_weights_of_its_size_or_says_why_not() -> None:
    for choice in CHOICES:
        assert choice.has_weights != bool(choice.no_weights)
        assert choice.weights is None or (record(choice.weights).name in catalogue() and choice.size in choice.weights)


@pytest.mark.parametrize("name", [each.architecture for each in catalogue().values() if not each.test_scale])
def test_every_record_is_on_offer_with_the_papers_figures(name: str) -> None:
    figures = record(name).published
    assert published_figures(name) == {
        "top1": figures["top1"],
        "gmacs": figures["gmacs"],
        "throughput": figures["v100_images_per_s"],
    }


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("stvit_deit_small_patch16_224:num_semantic_tokens=16", {"top1": 79.8, "gmacs": 1.91, "throughput": 2891}),
        ("stvit_swin_tiny_224:semantic_window=3", {"top1": 81.5, "gmacs": 3.43, "throughput": 1061}),
        ("evit_deit_small_patch16_224:keep_rate=0.5", {"top1": 73.8, "gmacs": 2.3}),  # as it runs: not retrained
        ("evit_lvvit_small_224:keep_rate=0.7", {"top1": 83.0, "gmacs": 4.7}),
        ("tome_deit_small_patch16_224:r=13", {}),
    ],
)
def test_figures_are_those_of_the_papers_tables(name: str, figures: dict[str, float]) -> None:
    assert published_figures(name) == figures


@pytest.mark.parametrize("name", [None, "", "resnet50", "evit_deit_small_patch16_224", ["x"], {"a": 1}])
def test_what_is_not_on_offer_is_refused(name: object) -> None:
    with pytest.raises(UnknownModel, match="is not offered here"):
        find(name)
    with pytest.raises(UnknownModel, match="There is no method"):
        method_of(name)


def test_a_method_brings_its_own_settings_and_keeps_the_size_where_it_can() -> None:
    size, setting = method_chosen("EViT-DeiT", "swin_base_patch4_window7_224")
    assert (size.value, setting.label) == ("base", "Keep rate")
    assert setting.value == "evit_deit_base_patch16_224:keep_rate=0.9"
    size, setting = method_chosen("LV-ViT", setting.value)
    assert (size.value, setting.value, size.interactive) == ("small", "lvvit_small_224", False)


def test_a_size_keeps_the_setting() -> None:
    size, setting = size_chosen("STViT-DeiT", "tiny", "stvit_deit_base_patch16_224:num_semantic_tokens=64")
    assert (size.value, setting.value) == ("tiny", "stvit_deit_tiny_patch16_224:num_semantic_tokens=64")


def test_a_size_that_is_chosen_before_the_lists_have_followed_the_method_is_one_of_that_method() -> None:
    size, setting = size_chosen("STViT-DeiT", "tiny", "swin_base_patch4_window7_224")
    assert (size.value, setting.value) == ("tiny", "stvit_deit_tiny_patch16_224:num_semantic_tokens=16")
    assert [value for _, value in size.choices] == list(sizes_of("STViT-DeiT"))


@pytest.mark.parametrize(
    ("method", "size", "model"),
    [
        ("Swin", "huge", "swin_base_patch4_window7_224"),
        ("Swin", "tiny", "resnet50"),
        ("ResNet", "tiny", "swin_base_patch4_window7_224"),
        (None, None, None),
    ],
)
def test_a_method_size_or_model_from_elsewhere_is_refused(method: object, size: object, model: object) -> None:
    with pytest.raises(gr.Error):
        size_chosen(method, size, model)
    with pytest.raises(gr.Error):
        method_chosen(size, model)
