"""Room in the queues: scripts and the page's visitors have their own; who finds none is told how long it takes."""

from __future__ import annotations

import math
from collections import deque

from gradio.block_function import BlockFunction
from gradio.queueing import Queue

from demo.service.http import Refused
from demo.service.pace import Pace

RECENT = 20  # calls whose times Gradio's own estimates are made of
MIN_WAIT_S = 1
WAITING: dict[str, tuple[int, int]] = {
    "page": (24, 0),
    "api": (0, 128),
    "comparison": (6, 2),
    "video": (4, 2),
    "loading": (32, 0),
}
"""Calls that may wait in each queue: of the page's visitors, and of scripts."""
ANY_QUEUE = (16, 16)


class RecentTime:
    """Times of a function's latest calls, in the place of Gradio's mean over all since the start."""

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=RECENT)

    def add(self, time: float) -> None:
        self._seconds.append(time)

    @property
    def avg_time(self) -> float:
        return sum(self._seconds) / max(len(self._seconds), 1)


def is_public(function: BlockFunction) -> bool:
    """Whether scripts are meant to call a function; the others are the page's own."""
    return function.api_visibility != "private"


def check_room(queue: Queue, pace: Pace, function: BlockFunction) -> None:
    """Check that one more call of a function may wait.

    Args:
        pace: of that queue.

    Raises:
        Refused: too many of its kind do; 503 to scripts, whose clients know it, 429 to the page, which shows its words.
    """
    own = queue.event_queue_per_concurrency_id.get(function.concurrency_id)
    if own is None:
        return
    public = is_public(function)
    waiting = sum(is_public(event.fn) is public for event in own.queue)
    if waiting < WAITING.get(own.concurrency_id, ANY_QUEUE)[public]:
        return
    wait_s = max(math.ceil(pace.expected_wait_s(own)), MIN_WAIT_S)
    words = f"{len(own.queue)} requests are waiting here, for about {wait_s} s. Try again then."
    raise Refused(503 if public else 429, words, headers={"Retry-After": str(wait_s)})


def is_used(queue: Queue, *names: str) -> bool:
    """Whether a call waits or runs in one of the named queues."""
    found = map(queue.event_queue_per_concurrency_id.get, names)
    return any(own.queue or own.current_concurrency for own in found if own)
