from __future__ import annotations

import random
import time
from dataclasses import dataclass
from heapq import heappop, heappush
from types import SimpleNamespace

import httpx
import pytest
from gradio.queueing import EventQueue

from demo.service import queues
from demo.service.http import Refused
from demo.service.queues import RECENT, WAITING, RecentTime, check_room, expected_wait_s
from tests.demo.service.conftest import Service


@dataclass(frozen=True)
class Function:
    """What is asked about a function of the page."""

    api_visibility: str
    concurrency_id: str = "page"


PAGES_OWN, PUBLIC = Function("private"), Function("public")


def queue_of(waiting: list, running: int = 0, limit: int = 1, seconds: float = 3.0) -> SimpleNamespace:
    """A queue in which each call takes some seconds, the running ones having begun a second ago."""
    own = EventQueue("page", limit)
    own.queue = [SimpleNamespace(fn=function) for function in waiting]
    for number in range(running):
        own.start_times_per_fn[PAGES_OWN].add(time.time() - 1.0 - number * 1e-3)
    times = RecentTime()
    times.add(seconds)
    known = dict.fromkeys((PAGES_OWN, PUBLIC), times)
    return SimpleNamespace(event_queue_per_concurrency_id={"page": own}, process_time_per_fn=known)


def test_there_is_room_up_to_the_limit() -> None:
    most = WAITING["page"][0]
    check_room(queue_of([]), PAGES_OWN)
    check_room(queue_of([PAGES_OWN] * (most - 1)), PAGES_OWN)
    with pytest.raises(Refused):
        check_room(queue_of([PAGES_OWN] * most), PAGES_OWN)


def test_scripts_do_not_shut_visitors_out_nor_the_other_way_round() -> None:
    own = Function("private", "video")
    script = Function("public", "video")
    full = EventQueue("video", 1)
    full.queue = [SimpleNamespace(fn=script)] * WAITING["video"][1]
    queue = SimpleNamespace(event_queue_per_concurrency_id={"video": full}, process_time_per_fn={})
    check_room(queue, own)
    with pytest.raises(Refused):
        check_room(queue, script)


@pytest.mark.parametrize(("function", "status"), [(PAGES_OWN, 429), (PUBLIC, 503)])
def test_who_finds_no_room_is_told_how_many_wait_and_how_long(function: Function, status: int) -> None:
    with pytest.raises(Refused) as told:
        check_room(queue_of([function] * 24, running=2, limit=2), function)
    assert told.value.status == status and "24 requests are waiting" in told.value.words
    seconds = int(told.value.headers["Retry-After"])
    assert seconds == 38 and f"about {seconds} s" in told.value.words  # (24 * 3 + 2 * 2) / 2


def test_a_call_that_takes_longer_than_those_before_says_how_long_the_others_will() -> None:
    queue = queue_of([PAGES_OWN] * 3, running=1, seconds=2.0)
    own = queue.event_queue_per_concurrency_id["page"]
    assert expected_wait_s(queue, own) == pytest.approx(3 * 2 + 1, abs=0.2)
    own.start_times_per_fn[PAGES_OWN] = {time.time() - 20}
    assert expected_wait_s(queue, own) == pytest.approx(3 * 20, abs=0.2)


def test_before_the_first_call_has_ended_an_estimate_is_that_of_its_kind() -> None:
    comparison = Function("private", "comparison")
    own = EventQueue("comparison", 1)
    own.queue = [SimpleNamespace(fn=comparison)] * 6
    own.start_times_per_fn[comparison].add(time.time() - 10)
    queue = SimpleNamespace(event_queue_per_concurrency_id={"comparison": own}, process_time_per_fn={})
    assert expected_wait_s(queue, own) == pytest.approx(6 * 30 + 20, abs=0.2)


def test_estimates_follow_the_latest_calls() -> None:
    times = RecentTime()
    assert times.avg_time == 0.0
    for _ in range(100):
        times.add(1.0)
    for _ in range(RECENT):
        times.add(9.0)
    assert times.avg_time == 9.0


@pytest.mark.parametrize("limit", [1, 2, 24])
@pytest.mark.parametrize("slowest", [1.0, 5.0, 25.0])
def test_told_waits_are_within_a_factor_of_two_of_real_ones(
    limit: int, slowest: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full queue empties, on a clock that is played; calls take 1 s to ``slowest``."""
    clock, chance, own = SimpleNamespace(now=0.0), random.Random(0), EventQueue("page", limit)
    monkeypatch.setattr(queues, "time", SimpleNamespace(time=lambda: clock.now))
    times, under_way, told = RecentTime(), [], []
    for _ in range(RECENT):
        times.add(chance.uniform(1, slowest))
    own.queue = [SimpleNamespace(fn=PAGES_OWN) for _ in range(150)]
    queue = SimpleNamespace(process_time_per_fn={PAGES_OWN: times})
    while own.queue or under_way:
        while own.queue and len(under_way) < limit:
            own.queue.pop()
            begun = clock.now + len(under_way) * 1e-6
            own.start_times_per_fn[PAGES_OWN].add(begun)
            heappush(under_way, (begun + chance.uniform(1, slowest), begun))
        if len(own.queue) >= WAITING["page"][0]:
            told.append((clock.now, expected_wait_s(queue, own)))
        clock.now, begun = heappop(under_way)
        own.start_times_per_fn[PAGES_OWN].discard(begun)
        times.add(clock.now - begun)
    ratios = [wait_s / (clock.now - at) for at, wait_s in told]
    assert len(ratios) > 100 and min(ratios) > 0.5 and max(ratios) < 2


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
