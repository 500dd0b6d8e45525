from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from stvit.predict.turns import BACKGROUND, Turns, in_lane

PATIENCE_S = 30


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def order_of(lanes: list[str]) -> list[str]:
    """In which order threads that come one after the other, each in a lane, get a lock that was held as they came."""
    turns, order, threads = Turns(), [], []

    def take(lane: str) -> None:
        with in_lane(lane.partition(":")[0]), turns:
            order.append(lane)

    with turns:
        for number, lane in enumerate(lanes, 1):
            threads.append(threading.Thread(target=take, args=(lane,)))
            threads[-1].start()
            until(lambda number=number: sum(map(len, turns._lanes.values())) == number)
    for thread in threads:
        thread.join(PATIENCE_S)
    return order


@pytest.mark.parametrize(
    ("come", "served"),
    [
        (["a:1", "a:2", "a:3"], ["a:1", "a:2", "a:3"]),
        (["a:1", "a:2", "a:3", "b:1"], ["a:1", "b:1", "a:2", "a:3"]),
        (["a:1", "b:1", "a:2", "b:2", "c:1"], ["a:1", "b:1", "c:1", "a:2", "b:2"]),
        (["a:1", "b:1", "visitors:1", "visitors:2"], ["visitors:1", "a:1", "visitors:2", "b:1"]),
        (["visitors:1", "visitors:2", "a:1"], ["visitors:1", "a:1", "visitors:2"]),
    ],
)
def test_lanes_take_turns_and_each_keeps_its_order(come: list[str], served: list[str]) -> None:
    assert order_of(come) == served


def test_the_owner_may_take_it_again() -> None:
    turns = Turns()
    with turns, turns:
        pass
    with turns:
        pass


def test_a_thread_that_takes_it_again_and_again_gives_way() -> None:
    turns, rounds, over = Turns(), [], threading.Event()

    def busy() -> None:
        while not over.is_set():
            with turns:
                rounds.append(time.perf_counter())

    thread = threading.Thread(target=busy)
    thread.start()
    until(lambda: bool(rounds))
    for _ in range(20):
        with in_lane("page"), turns:
            pass
    over.set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


def test_an_error_within_releases_it() -> None:
    turns = Turns()
    with pytest.raises(ZeroDivisionError), turns:
        raise ZeroDivisionError
    assert order_of([BACKGROUND]) == [BACKGROUND]
    with turns:
        pass
