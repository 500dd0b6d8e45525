"""Asking for published weights without making anybody wait."""

from __future__ import annotations

from threading import Event

import pytest

import demo.page.first_models
from demo.page.first_models import OfficialWeights
from stvit.pretrained.records import ModelRecord
from tests.demo.conftest import OFFERED

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
