from __future__ import annotations

import threading
from unittest.mock import Mock

import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from demo.model_cache import NO_ROOM, ModelCache, OutOfMemory
from demo.model_specs import build_registry
from demo.registry import ModelSpec
from demo.service.ready import Readiness, first_pair
from tests.demo.service.conftest import Service
from tests.stvit.predict.test_turns import until

SPECS = first_pair(build_registry({}))


class SlowModels:
    """A cache whose models come when they may; the first time that one is asked for, there is no room for it."""

    def __init__(self) -> None:
        self.may_come, self.asked, self.there = threading.Event(), [], set()

    def get(self, spec: ModelSpec, *, retry: bool = False) -> None:
        assert retry
        self.asked.append(spec)
        if self.asked.count(spec) == 1:
            raise OutOfMemory(NO_ROOM)
        self.may_come.wait(60)
        self.there.add(spec)

    def is_ready(self, spec: ModelSpec) -> bool:
        return spec in self.there


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_whether_the_server_lives_is_told_without_a_look_at_models(
    service: Service, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at = Mock(side_effect=OutOfMemory(NO_ROOM))
    for name in ("get", "is_ready"):
        monkeypatch.setattr(ModelCache, name, looked_at)
    assert service.http.get(path).status_code == 200 and not looked_at.called


def test_not_ready_until_both_models_of_the_first_screen_are_loaded_which_asking_begins() -> None:
    models = SlowModels()
    client = TestClient(Starlette(routes=[Readiness(models, SPECS).route()]))
    assert not models.asked and len(SPECS) == 2
    answer = client.get("/ready")
    assert answer.status_code == 503 and answer.headers["retry-after"] == "5"
    assert all(spec.label in answer.json()["error"] for spec in SPECS)
    until(lambda: client.get("/ready").status_code == 503 and len(models.asked) >= 3)
    for _ in range(5):
        client.get("/ready")
    assert len(models.asked) == 3  # loaded by one thread, however many ask
    models.may_come.set()
    until(lambda: client.get("/ready").status_code == 200)
    assert client.get("/ready").json() == {"status": "ready"}
