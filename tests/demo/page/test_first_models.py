"""What the Video and Camera tabs begin with."""

from __future__ import annotations

from typing import Any

from demo.model_specs import build_registry
from demo.page.first_models import FirstModels, OfficialWeights
from demo.registry import Registry
from stvit.pretrained.records import ModelRecord
from tests.demo.conftest import MODEL
from tests.narrow_models import DETECTOR

PEER = "swin_small_patch4_window7_224"


def first_models(
    registry: Registry, *classifiers: str, missing: tuple[str, ...], with_detector: bool = True
) -> FirstModels:
    """Of a tab, where some weights cannot be had."""

    def ask(record: ModelRecord, timeout_s: float) -> bool:
        return record.architecture not in missing

    first = FirstModels(registry, [registry.find(name) for name in classifiers], with_detector)
    first.classifiers = OfficialWeights([registry.find(name) for name in classifiers], ask)
    first.detectors = OfficialWeights([registry.find(DETECTOR)] if with_detector else [], ask)
    return first


def chosen(parts: list[Any]) -> list[str | None]:
    """The new values of lists; ``None`` for those that stay."""
    return [getattr(part, "value", None) for part in parts]


def test_without_the_hub_this_projects_models_are_chosen_with_one_notice(garments: Registry) -> None:
    note, *lists = first_models(garments, MODEL, PEER, missing=(MODEL, DETECTOR)).begin(MODEL, PEER, DETECTOR)
    assert note.count('role="alert"') == 1 and "ten kinds of garments" in note
    assert chosen(lists)[2::3] == ["garments_stvit_r_swin", "garments_swin"]
    assert len(lists) == 7 and chosen(lists)[6] == "garments_detect_stvit_r"
    note, *lists = first_models(garments, MODEL, missing=(MODEL, DETECTOR)).begin(MODEL, DETECTOR)
    assert note and chosen(lists)[2:] == ["garments_stvit_r_swin", "garments_detect_stvit_r"]


def test_what_can_be_had_and_what_was_chosen_by_hand_stays(garments: Registry) -> None:
    note, *lists = first_models(garments, MODEL, missing=()).begin(MODEL, DETECTOR)
    assert note == "" and chosen(lists) == [None] * 4
    note, *lists = first_models(garments, MODEL, missing=(DETECTOR,)).begin(MODEL, DETECTOR)
    assert note and chosen(lists) == [None] * 3 + ["garments_detect_stvit_r"]
    note, *lists = first_models(garments, MODEL, missing=(MODEL, DETECTOR)).begin(
        PEER, DETECTOR.replace("small", "base")
    )
    assert note == "" and chosen(lists) == [None] * 4


def test_a_copy_without_models_of_its_own_changes_nothing() -> None:
    note, *lists = first_models(build_registry({}), MODEL, missing=(MODEL, DETECTOR)).begin(MODEL, DETECTOR)
    assert note == "" and chosen(lists) == [None] * 4


def test_a_tab_without_detectors_begins_with_a_pair_and_says_what_it_knows(garments: Registry) -> None:
    first = first_models(garments, MODEL, PEER, missing=(MODEL,), with_detector=False)
    note, *lists = first.begin(MODEL, PEER)
    assert "cannot be reached" in note and "ten kinds of garments" in note and "ankle boot" in note
    names = ["STViT-R-Swin", "narrow", "garments_stvit_r_swin", "Swin", "narrow", "garments_swin"]
    assert [entry.value for entry in lists] == names
    assert first.begin(MODEL, "deit_base_patch16_224")[0] == ""  # somebody has chosen already


def test_a_tab_without_classifiers_begins_with_a_detector(garments: Registry) -> None:
    note, detector = first_models(garments, missing=(DETECTOR,)).begin(DETECTOR)
    assert "ten kinds of garments" in note and detector.value == "garments_detect_stvit_r"
    assert first_models(garments, missing=()).begin(DETECTOR)[0] == ""
