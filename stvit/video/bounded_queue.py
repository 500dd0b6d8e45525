"""What connects two stages: a queue with few places, which lets everybody go when the run stops."""

from __future__ import annotations

import queue
from collections.abc import Iterator
from threading import Event
from typing import Generic, TypeVar

Item = TypeVar("Item")
POLL_S = 0.05


class Stopped(Exception):
    """The run was stopped from outside or by another stage."""


class Stop:
    """Whether a run is to end: for a reason of its own, or because its caller wants no more.

    Args:
        cancel: the caller's, who may use it for further runs; never set here.
    """

    def __init__(self, cancel: Event | None = None) -> None:
        self._events = (Event(), cancel or Event())

    def set(self) -> None:
        self._events[0].set()

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


class Channel(Generic[Item]):
    """A bounded queue between two threads.

    Args:
        places: items that may wait in it.
        stop: when set, whoever waits gets :class:`Stopped`.
    """

    def __init__(self, places: int, stop: Stop) -> None:
        self._queue: queue.Queue[tuple[Item] | None] = queue.Queue(places)  # None: there will be no more
        self._stop = stop

    def put(self, item: Item) -> None:
        """Hand over an item; waits for a free place."""
        self._put((item,))

    def end(self) -> None:
        """There will be no more."""
        self._put(None)

    def __iter__(self) -> Iterator[Item]:
        while (box := self._get()) is not None:
            yield box[0]

    def _put(self, box: tuple[Item] | None) -> None:
        while not self._stop.is_set():
            try:
                return self._queue.put(box, timeout=POLL_S)
            except queue.Full:
                continue
        raise Stopped

    def _get(self) -> tuple[Item] | None:
        while not self._stop.is_set():
            try:
                return self._queue.get(timeout=POLL_S)
            except queue.Empty:
                continue
        raise Stopped
