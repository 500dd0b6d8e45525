"""Who is next on a device: callers of several lanes take turns, so that a crowd in one lane holds up no other lane."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

VISITORS, SCRIPTS, BACKGROUND = "visitors", "scripts", "background"
"""Lanes: of people who wait before a screen; of programs, which come in crowds; of long jobs, and of whoever has chosen
none."""

_lane: ContextVar[str] = ContextVar("lane", default=BACKGROUND)


@contextmanager
def in_lane(name: str) -> Iterator[None]:
    """Let this thread wait for devices in a lane."""
    token = _lane.set(name)
    try:
        yield
    finally:
        _lane.reset(token)


def current_lane() -> str:
    """Return the lane in which this thread waits."""
    return _lane.get()


class Turns:
    """A lock that is handed from lane to lane, within a lane to whoever has waited longest; to visitors after every
    turn of another lane. Its owner may take it again.

    A plain lock goes to anyone who happens to ask at the right moment, most often to the thread that just released it.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lanes: dict[str, deque[tuple[int, threading.Event]]] = {}  # the next lane first
        self._latest = ""  # lane
        self._owner: int | None = None
        self._depth = 0

    def __enter__(self) -> None:
        me, lane, mine = threading.get_ident(), _lane.get(), threading.Event()
        with self._lock:
            if self._owner is None:
                self._owner, self._latest = me, lane
            if self._owner == me:
                self._depth += 1
                return
            self._lanes.setdefault(lane, deque()).append((me, mine))
        mine.wait()

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._depth -= 1
            if self._depth:
                return
            self._owner = None
            lane = self._next_lane()
            if lane is not None:
                waiting, self._latest = self._lanes.pop(lane), lane
                self._lanes[lane] = waiting  # last from now on
                self._owner, mine = waiting.popleft()
                self._depth = 1
                mine.set()

    def _next_lane(self) -> str | None:
        waiting = [lane for lane, threads in self._lanes.items() if threads]
        if self._latest != VISITORS and VISITORS in waiting:
            return VISITORS
        return next((lane for lane in waiting if lane != VISITORS), next(iter(waiting), None))
