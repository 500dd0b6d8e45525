"""Bundled models among those that the page offers."""

from __future__ import annotations

import pytest

from demo.registry import ModelSpec, Registry, UnknownModel
from demo.specs.bundled import bundled_specs, known_classes
from stvit.pretrained.model_cards import BundledModels
from tests.demo.conftest import OFFERED


@pytest.fixture
def classifiers(stand_ins: BundledModels) -> list[ModelSpec]:
    return bundled_specs(stand_ins.of_task("classify"))


def test_each_is_an_entry_with_a_method_a_setting_and_its_record(classifiers: list[ModelSpec]) -> None:
    shown = {spec.name: (spec.method.name, spec.size, spec.setting, spec.label) for spec in classifiers}
    assert shown == {
        "garments_stvit_r_swin": ("STViT-R-Swin", "narrow", "36 in stage 3", "STViT-R-Swin, narrow"),
        "garments_stvit_deit": ("STViT-DeiT", "narrow", "16", "STViT-DeiT, narrow, 16 tokens"),
        "garments_evit_05": ("EViT-DeiT", "narrow", "0.5", "EViT-DeiT, narrow, keep 0.5"),
        "garments_swin": ("Swin", "narrow", "all", "Swin, narrow"),
        "garments_deit": ("DeiT", "narrow", "all", "DeiT, narrow"),
    }
    assert list(shown) == list(dict.fromkeys(spec.name for spec in classifiers))
    assert all(spec.has_weights and spec.bundled.name == spec.name for spec in classifiers)


def test_what_they_take_and_know_is_their_records(classifiers: list[ModelSpec]) -> None:
    deit = next(spec for spec in classifiers if spec.name == "garments_deit")
    assert (deit.input_size, deit.crop_pct, len(deit.classes)) == (112, 1.0, 10)
    published = OFFERED.find("deit_tiny_patch16_224")
    assert (published.input_size, published.crop_pct, published.classes) == (224, 0.875, None)


def test_what_they_know_is_told_by_their_classes(stand_ins: BundledModels) -> None:
    words = {task: known_classes(stand_ins.of_task(task)[0]) for task in ("classify", "detect", "segment", "video")}
    assert set(words.values()) == {"ten kinds of garments", "eight motions of garments"}
    assert words["video"] == "eight motions of garments"
    by_kind = stand_ins["garments_clips_swin"].model_copy(update={"classes": ("bag", "coat")})
    assert known_classes(by_kind) == "2 kinds of garments"


def test_a_family_that_the_page_has_no_method_for_is_left_out(stand_ins: BundledModels) -> None:
    record = stand_ins["garments_deit"].model_copy(update={"model": "resnet18"})
    assert bundled_specs([record]) == []


def test_the_pickers_offer_them_after_the_published_sizes(garments: Registry) -> None:
    method = garments.method("STViT-DeiT")
    assert garments.sizes(method) == ("tiny", "small", "base", "narrow")
    assert [spec.name for spec in garments.settings(method, "narrow")] == ["garments_stvit_deit"]
    offered = garments.of_task("classify")
    assert len({spec.label for spec in offered}) == len(offered)


def test_the_first_one_has_semantic_tokens_and_a_full_token_counterpart(garments: Registry) -> None:
    first = garments.first_bundled("classify")
    assert [spec.name for spec in garments.pair(first)] == ["garments_stvit_r_swin", "garments_swin"]
    assert garments.first_bundled("detect").name == "garments_detect_stvit_r"
    assert OFFERED.first("classify").bundled is None


def test_each_is_the_others_counterpart_whatever_its_task(garments: Registry) -> None:
    for ours, full in (
        ("garments_stvit_deit", "garments_deit"),
        ("garments_detect_stvit_r", "garments_detect_swin"),
        ("garments_segment_stvit_r", "garments_segment_swin"),
        ("garments_clips_stvit_swin", "garments_clips_swin"),
    ):
        both = garments.find(ours), garments.find(full)
        assert garments.pair(both[0]) == both and garments.pair(both[1]) == both[::-1]


def test_without_its_counterpart_a_model_cannot_be_compared(garments: Registry) -> None:
    lone = Registry(spec for spec in garments if not spec.bundled or spec.method.name.startswith("STViT"))
    for task in ("classify", "detect", "segment"):
        own = lone.first_bundled(task)
        assert lone.counterpart(own) is None
        with pytest.raises(UnknownModel, match="nothing to compare STViT-R-Swin, narrow with"):
            lone.pair(own)


def test_where_nothing_is_bundled_there_is_no_first_one() -> None:
    assert Registry(OFFERED.find(name) for name in ["deit_tiny_patch16_224"]).first_bundled("classify") is None
