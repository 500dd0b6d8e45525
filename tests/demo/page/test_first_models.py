"""What the tabs begin with, and asking for published weights without making anybody wait."""

from __future__ import annotations

from threading import Event
from typing import Any

import pytest

import demo.page.first_models
from demo.model_specs import build_registry
from demo.page.first_models import FirstModels, OfficialWeights
from demo.registry import Registry
from stvit.pretrained.records import ModelRecord
from tests.demo.conftest import MODEL, OFFERED
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


SPECS = [OFFERED.find("stvit_r_swin_small_224"), OFFERED.find("swin_small_patch4_window7_224")]


class Hub:
    """Answers as it is told; counts the questions."""

    def __init__(self, *missing: str) -> None:
        self.missing, self.asked = set(missing), []

    def __call__(self, record: ModelRecord, timeout_s: float) -> bool:
        self.asked.append(record.architecture)
        return record.architecture not in self.missing


def test_they_are_at_hand_when_all_of_them_are() -> None:
    assert OfficialWeights(SPECS, Hub()).at_hand()
    assert not OfficialWeights(SPECS, Hub(SPECS[1].name)).at_hand()


def test_an_answer_serves_many_visitors_and_is_asked_for_anew_when_it_is_old(monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub(SPECS[0].name)
    official = OfficialWeights(SPECS, hub)
    assert [official.at_hand() for _ in range(3)] == [False] * 3
    assert hub.asked == [SPECS[0].name]
    monkeypatch.setattr(demo.page.first_models, "FRESH_S", -1.0)
    hub.missing.clear()
    assert official.at_hand()


def test_only_its_own_models_are_ever_out_of_reach() -> None:
    official, names = OfficialWeights(SPECS, Hub(SPECS[0].name)), [spec.name for spec in SPECS]
    assert official.out_of_reach(names) and not official.out_of_reach(names[:1])
    assert not OfficialWeights(SPECS, Hub()).out_of_reach(names)


def test_a_silent_hub_counts_as_out_of_reach_after_a_short_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.page.first_models, "PATIENCE_S", 0.05)
    speaks, spoke = Event(), Event()

    def ask(record: ModelRecord, timeout_s: float) -> bool:
        speaks.wait(60)
        spoke.set()
        return True

    official = OfficialWeights(SPECS, ask)
    assert not official.at_hand() and not spoke.is_set()
    speaks.set()
    monkeypatch.setattr(demo.page.first_models, "PATIENCE_S", 20.0)
    assert official.at_hand()
