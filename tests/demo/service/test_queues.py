from __future__ import annotations

import time
from dataclasses import dataclass
from types import SimpleNamespace

import httpx
import pytest
from gradio.block_function import BlockFunction
from gradio.queueing import EventQueue

from demo.service.http import Refused
from demo.service.pace import Pace
from demo.service.queues import RECENT, WAITING, RecentTime, check_room
from tests.demo.service.conftest import Service


@dataclass(frozen=True)
class Function:
    """What is asked about a function of the page."""

    api_visibility: str
    concurrency_id: str = "page"


PAGES_OWN, PUBLIC = Function("private"), Function("public")


def check(waiting: list[Function], function: Function, name: str = "page") -> None:
    """Check that one more call may wait."""
    own = EventQueue(name, 1)
    own.queue = [SimpleNamespace(fn=one) for one in waiting]
    queue = SimpleNamespace(event_queue_per_concurrency_id={name: own})
    check_room(queue, Pace(queue), function)


def test_there_is_room_up_to_the_limit() -> None:
    most = WAITING["page"][0]
    check([], PAGES_OWN)
    check([PAGES_OWN] * (most - 1), PAGES_OWN)
    with pytest.raises(Refused):
        check([PAGES_OWN] * most, PAGES_OWN)


def test_scripts_do_not_shut_visitors_out_nor_the_other_way_round() -> None:
    own, script = Function("private", "video"), Function("public", "video")
    full = [script] * WAITING["video"][1]
    check(full, own, "video")
    with pytest.raises(Refused):
        check(full, script, "video")


@pytest.mark.parametrize(("function", "status"), [(PAGES_OWN, 429), (PUBLIC, 503)])
def test_who_finds_no_room_is_told_how_many_wait_and_how_long(function: Function, status: int) -> None:
    with pytest.raises(Refused) as told:
        check([function] * 24, function)
    assert told.value.status == status and "24 requests are waiting" in told.value.words
    seconds = int(told.value.headers["Retry-After"])
    assert seconds == 12 and f"about {seconds} s" in told.value.words  # half a second each, where none has ended yet


def test_estimates_follow_the_latest_calls() -> None:
    times = RecentTime()
    assert times.avg_time == 0.0
    for _ in range(100):
        times.add(1.0)
    for _ in range(RECENT):
        times.add(9.0)
    assert times.avg_time == 9.0


@pytest.mark.parametrize(("queue", "status"), [("api", 503), ("page", 429)])
def test_a_full_queue_is_told_by_http(
    service: Service, queue: str, status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    public = queue == "api"
    function = next(
        one
        for one in service.page.fns.values()
        if one.concurrency_id == queue and (one.api_visibility != "private") is public
    )
    values = {"data": [None, "a", 1, "STGM 1", 0, "auto"]} if public else {"data": [None] * len(function.inputs)}

    def ask() -> httpx.Response:
        if public:
            return service.http.post("/gradio_api/call/annotate", json=values)
        sent = {**values, "fn_index": function._id, "session_hash": "full"}
        return service.http.post("/gradio_api/queue/join", json=sent)

    assert ask().status_code == 200
    monkeypatch.setitem(WAITING, queue, (0, 0))
    answer = ask()
    assert answer.status_code == status and int(answer.headers["retry-after"]) >= 1
    assert "requests are waiting here, for about" in answer.json()["error"]


def test_the_end_of_a_call_is_counted_whatever_came_of_it(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    pace, ended = service.page.pace, []
    end = pace.end

    def seen(function: BlockFunction) -> None:
        end(function)
        ended.append((function.api_name, bool(pace._all[function].recent())))

    monkeypatch.setattr(pace, "end", seen)
    sent = {"models": ([], "complete"), "annotate": ([None, "a", 1, "STGM 1", 0, "auto"], "error")}
    for name, (data, outcome) in sent.items():
        event = service.http.post(f"/gradio_api/call/{name}", json={"data": data}).json()["event_id"]
        assert f"event: {outcome}" in service.http.get(f"/gradio_api/call/{name}/{event}").text
    assert ("annotate", True) in ended[ended.index(("models", True)) + 1 :]  # calls of earlier tests may end too


def test_those_who_wait_are_told_once_a_second_not_at_every_call(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    broadcast, to_all = service.page._queue.broadcast_estimations, []

    def seen(queue: str, after: int | None = None) -> None:
        if after is None:
            to_all.append(queue)
        broadcast(queue, after)

    monkeypatch.setattr(service.page._queue, "broadcast_estimations", seen)
    start = time.monotonic()
    events = [service.http.post("/gradio_api/call/models", json={"data": []}).json()["event_id"] for _ in range(30)]
    for event in events:
        assert "event: complete" in service.http.get(f"/gradio_api/call/models/{event}").text
    seconds = time.monotonic() - start
    for name in set(to_all):
        assert to_all.count(name) <= seconds + 1
