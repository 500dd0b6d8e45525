from __future__ import annotations

import gradio as gr
import pytest
import timm
import torch

import stvit
from demo.model_specs import build_registry
from demo.registry import Registry, UnknownModel
from demo.specs.published import paper_tables
from demo.tabs.pickers import list_entries, method_chosen, size_chosen
from stvit.pretrained.records import catalogue
from tests.demo.conftest import OFFERED

CLASSIFIERS, DETECTORS = OFFERED.of_task("classify"), OFFERED.of_task("detect")


def test_names_and_labels_are_unique_and_lead_back_to_their_spec() -> None:
    names, labels = {spec.name for spec in CLASSIFIERS}, {spec.label for spec in CLASSIFIERS}
    assert len(names) == len(labels) == len(CLASSIFIERS)
    assert all(OFFERED.find(spec.name) is OFFERED.find(spec.name, spec.task) is spec for spec in CLASSIFIERS)


def test_every_classifier_is_reached_through_the_three_pickers() -> None:
    reached = [
        spec
        for method in OFFERED.methods()
        for size in OFFERED.sizes(method)
        for spec in OFFERED.settings(method, size)
    ]
    assert sorted(spec.name for spec in reached) == sorted(spec.name for spec in CLASSIFIERS)


def test_detectors_are_on_offer_with_their_records_and_a_full_token_counterpart_without_weights() -> None:
    records = {each.architecture: each for each in catalogue().values() if each.test_scale}
    published = [spec for spec in DETECTORS if not spec.bundled]
    assert [spec.name for spec in published] == list(records)
    for spec in published:
        assert spec.record == records[spec.name] and spec.record.published.items() <= spec.published.items()
        assert spec.published == paper_tables()["table5_coco"][spec.name.removesuffix("_cascade_mask_rcnn")]
        full = OFFERED.counterpart(spec)
        assert full.size == spec.size and full.record is None and "no public weights" in full.no_weights
        assert full not in DETECTORS
        with torch.device("meta"):
            assert stvit.create_model(spec.model).num_classes == stvit.create_model(full.model).num_classes == 80


@pytest.mark.parametrize(
    ("name", "counterpart"),
    [
        ("stvit_r_swin_small_224", "swin_small_patch4_window7_224"),
        ("stvit_deit_small_patch16_224:num_semantic_tokens=16", "deit_small_patch16_224"),
        ("evit_lvvit_small_224:keep_rate=0.5", "lvvit_small_224"),
        ("tome_deit_base_patch16_224:r=13", "deit_base_patch16_224"),
        ("dynamicvit_deit_small_patch16_224:keep_rate=0.7", "deit_small_patch16_224"),
        ("evo_vit_deit_tiny_patch16_224", "deit_tiny_patch16_224"),
        ("avit_small_patch16_224", "deit_small_patch16_224"),
        ("atc_deit_base_patch16_224:keep_rate=0.7,linkage=single", "deit_base_patch16_224"),
        ("diffrate_deit_base_patch16_224:schedule=8.7G", "deit_base_patch16_224"),
        ("tokenlearner_deit_small_patch16_224", "deit_small_patch16_224"),
        ("dynamicswin_tiny_224:keep_rate=0.7", "swin_tiny_patch4_window7_224"),
        ("deit_tiny_patch16_224", "stvit_deit_tiny_patch16_224:num_semantic_tokens=16"),
        ("stvit_r_swin_base_cascade_mask_rcnn", "swin_base_cascade_mask_rcnn"),
        ("video_swin_tiny", "stvit_video_swin_tiny"),
    ],
)
def test_a_counterpart_has_the_network_and_the_size_and_treats_its_tokens_otherwise(
    name: str, counterpart: str
) -> None:
    assert OFFERED.counterpart(OFFERED.find(name)).name == counterpart


@pytest.mark.parametrize(
    ("name", "why"),
    [
        (
            "dynamicvit_deit_small_patch16_224:keep_rate=0.5",
            "share its weights on https://drive.google.com/file/d/1H5k",
        ),
        ("avit_tiny_patch16_224", "share its weights on https://drive.google.com/file/d/1Fk_"),
        ("tokenlearner_deit_base_patch16_224", "No weights of this method on DeiT were ever published."),
    ],
)
def test_a_model_whose_weights_only_a_person_can_fetch_says_where(name: str, why: str) -> None:
    assert why in OFFERED.find(name).no_weights


def test_a_detector_is_no_classifier_and_the_other_way_round() -> None:
    with pytest.raises(UnknownModel):
        OFFERED.find(DETECTORS[0].name, "classify")
    with pytest.raises(UnknownModel):
        OFFERED.find(CLASSIFIERS[0].name, "detect")
    with pytest.raises(UnknownModel):
        OFFERED.find(OFFERED.counterpart(DETECTORS[0]).name, "detect")
    assert DETECTORS[0].label == CLASSIFIERS[0].label == "STViT-R-Swin-S"


@pytest.mark.slow
def test_every_setting_can_be_built() -> None:
    with torch.device("meta"):
        for spec in CLASSIFIERS:
            if spec.size == OFFERED.sizes(spec.method)[0]:
                known = len(spec.classes or range(1000))
                assert timm.create_model(spec.model, **spec.options).num_classes == known


def test_every_spec_has_weights_of_its_size_or_says_why_not() -> None:
    for spec in CLASSIFIERS:
        assert spec.has_weights != bool(spec.no_weights)
        assert spec.record is None or spec.size in spec.record.name


@pytest.mark.parametrize("name", [each.architecture for each in catalogue().values() if not each.test_scale])
def test_every_record_is_on_offer_with_the_papers_figures(name: str) -> None:
    spec = OFFERED.find(name)
    table = {"STViT-R-Swin": "table3_stvit_r", "Swin": "table2_stvit_swin", "DeiT": "table1_stvit_deit"}
    row = paper_tables()[table[spec.method.name]][spec.size]
    assert spec.published == row.get("base", row)


@pytest.mark.parametrize(
    ("name", "figures"),
    [
        ("stvit_deit_small_patch16_224:num_semantic_tokens=16", {"top1": 79.8, "gmacs": 1.91, "throughput": 2891}),
        ("stvit_swin_tiny_224:semantic_window=3", {"top1": 81.5, "gmacs": 3.43, "throughput": 1061}),
        ("evit_deit_small_patch16_224:keep_rate=0.5", {"top1": 73.8, "gmacs": 2.3}),  # as it runs: not retrained
        ("evit_lvvit_small_224:keep_rate=0.7", {"top1": 83.0, "gmacs": 4.7}),
        ("tome_deit_small_patch16_224:r=13", {}),
        ("dynamicvit_deit_base_patch16_224:keep_rate=0.7", {"top1": 81.3, "gmacs": 11.2}),
        ("dynamicvit_deit_base_patch16_224:keep_rate=0.5", {}),
        ("evo_vit_deit_small_patch16_224", {"top1": 79.4, "gmacs": 3.0}),
        ("dynamicswin_small_224:keep_rate=0.7", {"top1": 83.21, "gmacs": 6.9}),
        ("diffrate_deit_small_patch16_224:schedule=2.9G", {}),  # of another schedule
    ],
)
def test_figures_are_those_of_the_papers_tables(name: str, figures: dict[str, float]) -> None:
    assert OFFERED.find(name).published == figures


@pytest.mark.parametrize("name", [None, "", "resnet50", "evit_deit_small_patch16_224", ["x"], {"a": 1}])
def test_what_is_not_on_offer_is_refused(name: object) -> None:
    with pytest.raises(UnknownModel, match="is not offered here"):
        OFFERED.find(name, "classify")
    with pytest.raises(UnknownModel, match="There is no method"):
        OFFERED.method(name)


def test_a_method_brings_its_own_settings_and_keeps_the_size_where_it_can() -> None:
    size, setting = method_chosen(OFFERED, "EViT-DeiT", "swin_base_patch4_window7_224")
    assert (size.value, setting.label) == ("base", "Keep rate")
    assert setting.value == "evit_deit_base_patch16_224:keep_rate=0.9"
    size, setting = method_chosen(OFFERED, "LV-ViT", setting.value)
    assert (size.value, setting.value, size.interactive) == ("small", "lvvit_small_224", False)


def test_a_size_keeps_the_setting() -> None:
    size, setting = size_chosen(OFFERED, "STViT-DeiT", "tiny", "stvit_deit_base_patch16_224:num_semantic_tokens=64")
    assert (size.value, setting.value) == ("tiny", "stvit_deit_tiny_patch16_224:num_semantic_tokens=64")


def test_a_size_that_is_chosen_before_the_lists_have_followed_the_method_is_one_of_that_method() -> None:
    size, setting = size_chosen(OFFERED, "STViT-DeiT", "tiny", "swin_base_patch4_window7_224")
    assert (size.value, setting.value) == ("tiny", "stvit_deit_tiny_patch16_224:num_semantic_tokens=16")
    assert [value for _, value in size.choices] == list(OFFERED.sizes(OFFERED.method("STViT-DeiT")))


@pytest.mark.parametrize("hub", [True, False])
def test_what_needs_the_hub_is_marked_where_there_is_none(hub: bool) -> None:
    registry = Registry(build_registry(), hub)
    size, _ = method_chosen(registry, "EViT-DeiT", "swin_base_patch4_window7_224")
    assert ("Small" if hub else "Small · needs the Hub", "small") in size.choices
    assert ("Narrow, garments", "narrow") in size.choices
    labels = {name: label for label, name in list_entries(registry, "detect")}
    assert labels.pop("garments_detect_stvit_r").endswith("(10 garments)")
    assert {label.endswith("needs the Hub") for name, label in labels.items() if "garments" not in name} == {not hub}


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
        size_chosen(OFFERED, method, size, model)
    with pytest.raises(gr.Error):
        method_chosen(OFFERED, size, model)
