"""How long a queue takes to empty, told on a clock that is played."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
from gradio.queueing import EventQueue

from demo.service import pace as pace_module
from demo.service.pace import RECENT, REMEMBERED_S, SURE_S, Pace

CLASSIFY, DETECT = "classify", "detect"
MANY = 24  # waiting, from which on nobody else finds room
Device = Callable[[int], tuple[float, int]]


@dataclass(frozen=True)
class Function:
    """What is asked about a function of the page."""

    name: str
    concurrency_id: str = "api"


@dataclass(frozen=True)
class Event:
    """A call that waits."""

    fn: Function


class Played:
    """A queue, and a clock."""

    def __init__(self, limit: int) -> None:
        self.now, self.own = 0.0, EventQueue("api", limit)
        self.pace = Pace(SimpleNamespace(event_queue_per_concurrency_id={"api": self.own}))

    def ask(self, *functions: Function) -> None:
        self.own.queue.extend(map(Event, functions))
        self.begin()

    def begin(self) -> None:
        while self.own.queue and len(self.running()) < self.own.concurrency_limit:
            function = self.own.queue.pop(0).fn
            self.own.start_times_per_fn[function].add(self.now + len(self.running()) * 1e-9)

    def running(self) -> list[tuple[float, Function]]:
        starts = self.own.start_times_per_fn
        return sorted(((begun, function) for function in starts for begun in starts[function]), key=lambda one: one[0])

    def end(self, begun: float, function: Function) -> None:
        self.pace.end(function)
        self.own.start_times_per_fn[function].discard(begun)
        if not self.own.start_times_per_fn[function]:
            del self.own.start_times_per_fn[function]

    def work(self, device: Device) -> Iterator[float]:
        """Let a device end calls, those first that began first, until there are none; yields the time at each step."""
        while running := self.running():
            yield self.now
            seconds, count = device(len(running))
            self.now += seconds
            for begun, function in running[:count]:
                self.end(begun, function)
            self.begin()

    def told(self, device: Device) -> list[tuple[float, float]]:
        """Seconds since now, and the shares of the real waits that are told from then on, while many wait."""
        start, told = self.now, []
        for at in self.work(device):
            if len(self.own.queue) >= MANY:
                told.append((at, self.pace.expected_wait_s(self.own)))
        return [(at - start, wait_s / (self.now - at)) for at, wait_s in told]


@pytest.fixture
def play(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Played]:
    def begin(limit: int) -> Played:
        played = Played(limit)
        monkeypatch.setattr(pace_module, "time", SimpleNamespace(time=lambda: played.now))
        return played

    return begin


def one_by_one(seconds: float) -> Device:
    return lambda running: (seconds, 1)


def side_by_side(seconds: float, lanes: int) -> Device:
    return lambda running: (seconds / min(running, lanes), 1)


def batches(most: int, each_s: float, picture_s: float) -> Device:
    return lambda running: (each_s + picture_s * min(running, most), min(running, most))


def uneven(device: Device) -> Device:
    chance = random.Random(0)

    def work(running: int) -> tuple[float, int]:
        seconds, count = device(running)
        return seconds * chance.uniform(0.2, 1.8), count

    return work


DEVICES = {
    "one by one": (1, one_by_one(0.2)),
    "two side by side": (2, side_by_side(0.08, 2)),
    "in a crowd no faster": (24, one_by_one(0.03)),
    "in batches": (24, batches(8, 0.02, 0.02)),
    "in batches that pay": (24, batches(24, 0.4, 0.005)),
    "slowly": (2, side_by_side(5.0, 2)),
}


@pytest.mark.parametrize("noise", [lambda device: device, uneven])
@pytest.mark.parametrize("name", DEVICES)
def test_told_waits_are_within_a_factor_of_two(play: Callable[[int], Played], name: str, noise: Callable) -> None:
    """After calls alone, the first of which took long, come crowds; at first they are told what calls alone take."""
    limit, device = DEVICES[name][0], noise(DEVICES[name][1])
    played, function = play(limit), Function(CLASSIFY)
    for number in range(30):
        played.ask(function)
        played.now += 10.0 * (number == 0)
        list(played.work(device))
        played.now += 5.0
    for crowd in range(3):
        played.ask(*[function] * (limit + 128))
        told = [ratio for seconds, ratio in played.told(device) if crowd or seconds > 2 * SURE_S]
        assert (told or not crowd) and all(0.5 < ratio < 2 for ratio in told), told
        played.now += 60.0


def test_a_short_crowd_is_believed_over_calls_of_a_busier_time(play: Callable[[int], Played]) -> None:
    """While scripts kept the device busy, visitors' calls took long: what they were told later was 4 times too long."""
    played, function = play(2), Function(CLASSIFY)
    for _ in range(30):
        played.ask(function)
        list(played.work(one_by_one(0.17)))
    for crowd in range(2):
        played.ask(*[function] * 26)
        told = [ratio for _, ratio in played.told(one_by_one(0.025))]
        assert not crowd or (told and all(0.5 < ratio < 2 for ratio in told)), told


def test_a_stall_of_the_whole_server_is_not_taken_for_the_time_of_each_call(play: Callable[[int], Played]) -> None:
    """Where all of a crowd are read before the first of them is answered, what was told was 12 times too long."""
    played, function = play(2), Function(CLASSIFY)
    played.ask(*[function] * 26)
    list(played.work(one_by_one(0.1)))
    played.ask(*[function] * 26)
    played.now += 9.0
    assert played.pace.expected_wait_s(played.own) == pytest.approx(24 * 0.1)


def test_functions_have_their_own_pace(play: Callable[[int], Played]) -> None:
    played, fast, slow = play(1), Function(CLASSIFY), Function(DETECT)
    for function, seconds in ((fast, 0.1), (slow, 2.0)):
        played.ask(*[function] * 30)
        list(played.work(one_by_one(seconds)))
    played.ask(*[fast] * 10, *[slow] * 5)
    assert played.pace.expected_wait_s(played.own) == pytest.approx(10 * 0.1 + 5 * 2.0)


def test_before_the_first_end_it_is_what_is_usual_or_what_it_takes_already(play: Callable[[int], Played]) -> None:
    played, function = play(1), Function(CLASSIFY)
    played.ask(*[function] * 11)
    assert played.pace.expected_wait_s(played.own) == pytest.approx(11 * 0.05)
    played.now += 3.0
    assert played.pace.expected_wait_s(played.own) == pytest.approx(10 * 3.0)


def test_a_call_that_takes_longer_than_those_before_says_that_others_may(play: Callable[[int], Played]) -> None:
    played, function = play(1), Function(CLASSIFY)
    played.ask(function, function)
    list(played.work(one_by_one(2.0)))
    played.ask(*[function] * 4)
    played.now += 20.0
    assert played.pace.expected_wait_s(played.own) == pytest.approx(3 * (2 + 20) / 2)


def test_crowds_of_long_ago_are_forgotten(play: Callable[[int], Played]) -> None:
    played, function = play(1), Function(CLASSIFY)
    played.ask(*[function] * RECENT)
    list(played.work(one_by_one(1.0)))
    for _ in range(RECENT):
        played.ask(function)
        list(played.work(one_by_one(0.2)))
    played.ask(*[function] * 10)
    assert played.pace.expected_wait_s(played.own) == pytest.approx(10 * 1.0)
    played.now += REMEMBERED_S
    played.own.start_times_per_fn[function] = {played.now}
    assert played.pace.expected_wait_s(played.own) == pytest.approx(10 * 0.2)


def test_what_went_past_the_queue_has_no_pace(play: Callable[[int], Played]) -> None:
    played, function = play(1), Function(CLASSIFY)
    played.pace.end(function)
    played.pace.end(Function(CLASSIFY, "another queue"))
    played.ask(function)
    assert played.pace.expected_wait_s(played.own) == pytest.approx(0.05)
