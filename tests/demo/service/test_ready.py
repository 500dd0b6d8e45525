from __future__ import annotations

import threading

from starlette.applications import Starlette
from starlette.testclient import TestClient

from demo.model_cache import NO_ROOM, OutOfMemory
from demo.model_specs import build_registry
from demo.registry import ModelSpec
from demo.service.ready import Readiness, first_pair
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
