"""What programs get from models in this process or in replicas, and what the loss of a replica costs them."""

from __future__ import annotations

import os
import signal
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo.serve.remote import Deployments
from stvit.errors import UserError
from stvit.predict.turns import SCRIPTS, in_lane

AT_ONCE = 16  # programs
SINGLE = 30  # requests one after the other
WARM_UP_S = 2.0
START_S = 300.0  # of a replica, which imports PyTorch
Ask = Callable[[], object]


@dataclass(frozen=True)
class Speed:
    """What programs get.

    Attributes:
        per_s: answers in a second, where 16 programs ask at once.
        single_s: median time of a request, where nobody else asks.
    """

    per_s: float
    single_s: float


@dataclass(frozen=True)
class Loss:
    """What happens when a replica is killed under requests one after the other.

    Attributes:
        slowest_s: of the requests.
        told: requests that got an error in words in place of an answer.
        recovered_s: from the kill until as many replicas answer as before.
    """

    slowest_s: float
    told: int
    recovered_s: float


def speed(ask: Ask, seconds: float) -> Speed:
    """Measure requests, first of many programs for some seconds, then one after the other."""

    def program(end: float) -> int:
        answered = 0
        with in_lane(SCRIPTS):
            while time.monotonic() < end:
                ask()
                answered += 1
        return answered

    with ThreadPoolExecutor(AT_ONCE) as pool:
        list(pool.map(program, [time.monotonic() + WARM_UP_S] * AT_ONCE))
        start = time.monotonic()
        answered = sum(pool.map(program, [start + seconds] * AT_ONCE))
        per_s = answered / (time.monotonic() - start)
    return Speed(per_s, statistics.median(_seconds(ask) for _ in range(SINGLE)))


def loss(deployments: Deployments, count: int, ask: Ask) -> Loss:
    """Kill one of ``count`` replicas that classify, and ask until there are as many again.

    Raises:
        TimeoutError: there are not, after five minutes.
    """

    def found() -> int:
        return deployments.ask("classify", "describe")[2]

    start, before = time.monotonic(), set[int]()
    while len(before) < count:
        before.add(found())
        _check_time(start, f"{len(before)} of {count} replicas answer.")
    killed = min(before)
    os.kill(killed, signal.SIGKILL)
    start, slowest_s, told, now = time.monotonic(), 0.0, 0, set[int]()
    while len(now - {killed}) < count:
        begun = time.monotonic()
        try:
            ask()
            now.add(found())
        except UserError:
            told += 1
        slowest_s = max(slowest_s, time.monotonic() - begun)
        _check_time(start, "A replica that was killed did not come back.")
    return Loss(slowest_s, told, time.monotonic() - start)


def _check_time(start: float, problem: str) -> None:
    if time.monotonic() - start > START_S:
        raise TimeoutError(f"{problem} Waited for {START_S:.0f} s.")


def _seconds(ask: Ask) -> float:
    start = time.perf_counter()
    ask()
    return time.perf_counter() - start
