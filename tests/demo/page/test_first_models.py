"""What the tabs begin with, and asking for published weights without making anybody wait."""

from __future__ import annotations

from threading import Event

import pytest

import demo.page.first_models
from demo.model_specs import build_registry
from demo.page.first_models import beginning
from demo.registry import Registry
from stvit.pretrained.records import ModelRecord
from tests.demo.conftest import MODEL
from tests.narrow_models import DETECTOR

PEER = "swin_small_patch4_window7_224"


class Hub:
    """Answers as it is told; counts the questions."""

    def __init__(self, *missing: str) -> None:
        self.missing, self.asked = set(missing), []

    def __call__(self, record: ModelRecord, timeout_s: float) -> bool:
        self.asked.append(record.architecture)
        return record.architecture not in self.missing


def test_with_the_hub_published_models_come_first(garments: Registry) -> None:
    hub = Hub()
    registry = beginning(garments, hub)
    assert registry.hub and hub.asked == [MODEL, PEER]
    assert [registry.first(task).name for task in ("classify", "detect")] == [MODEL, DETECTOR]
    assert list(registry) == list(garments)


@pytest.mark.parametrize("missing", [MODEL, PEER])
def test_without_the_hub_this_projects_models_come_first(garments: Registry, missing: str) -> None:
    registry = beginning(garments, Hub(missing))
    assert not registry.hub
    firsts = [registry.first(task) for task in ("classify", "detect", "segment", "video")]
    assert all(spec.bundled for spec in firsts)
    assert registry.pair(firsts[0])[1].bundled


def test_a_copy_without_models_of_its_own_begins_with_published_ones() -> None:
    assert beginning(build_registry({}), Hub(MODEL)).first("classify").name == MODEL


def test_a_silent_hub_counts_as_out_of_reach_after_a_short_while(
    garments: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.page.first_models, "PATIENCE_S", 0.05)
    speaks = Event()
    assert not beginning(garments, lambda record, timeout_s: speaks.wait(60)).hub
    speaks.set()
