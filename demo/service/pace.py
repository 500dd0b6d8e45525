"""How fast calls leave their queues, and so how long those take that wait in one."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict, deque
from collections.abc import Sequence

from gradio.block_function import BlockFunction
from gradio.queueing import EventQueue, Queue

RECENT, RECENT_S = 20, 3.0  # an estimate is made of that many calls, as many as wait, and those that took that time
MOST_RECENT, FEW = 1000, 5
SURE_S, SEVERAL = 1.0, 10  # batches end in clumps: a crowd is known by its time, or by so many gaps between clumps
REMEMBERED_S = 600.0  # for which it is known how fast calls end while others wait
USUAL_S = {"page": 0.5, "api": 0.05, "comparison": 30.0, "video": 60.0, "loading": 3.0}
"""From the end of a call to that of the next while others wait, where none has ended yet."""


class Gaps:
    """Times from end to end of a function's latest calls.

    Attributes:
        latest_at: when the last was added, by ``time.time()``.
    """

    def __init__(self) -> None:
        self._seconds: deque[float] = deque(maxlen=MOST_RECENT)
        self.latest_at = -math.inf

    def add(self, seconds: float) -> None:
        self._seconds.append(seconds)
        self.latest_at = time.time()

    def recent(self, count: int = 0) -> list[float]:
        """List the latest, ``count`` or more, without the longest where there are several: a first call loads its
        model."""
        latest, total_s = list[float](), 0.0
        for seconds in reversed(self._seconds):
            if len(latest) >= max(count, RECENT) and total_s >= RECENT_S:
                break
            latest.append(seconds)
            total_s += seconds
        if len(latest) > 1:
            latest.remove(max(latest))
        return latest


class Pace:
    """How fast the calls in a server's queues come to their ends.

    What a call takes does not tell it: calls that run side by side or as one batch take each other's time. So the time
    is measured in which a queue is busy, from one end to the next, apart for each function; first of all while others
    wait, as then as many run at once as may.

    Args:
        queue: Gradio's, with all its queues.
    """

    def __init__(self, queue: Queue) -> None:
        self._queue = queue
        self._crowded: defaultdict[BlockFunction, Gaps] = defaultdict(Gaps)
        self._all: defaultdict[BlockFunction, Gaps] = defaultdict(Gaps)
        self._latest_end: dict[str, float] = {}

    def end(self, function: BlockFunction) -> None:
        """Note that a call, which is still counted among those under way, has come to its end."""
        own = self._queue.event_queue_per_concurrency_id.get(function.concurrency_id)
        if own is None or not own.start_times_per_fn:  # it went past the queue
            return
        gap_s = self._so_far_s(own)
        self._all[function].add(gap_s)
        if own.queue:
            self._crowded[function].add(gap_s)
        self._latest_end[own.concurrency_id] = time.time()

    def expected_wait_s(self, own: EventQueue) -> float:
        """Estimate how long it takes until all that wait or run in a queue are done."""
        so_far_s = self._so_far_s(own)
        running = Counter({function: len(starts) for function, starts in own.start_times_per_fn.items()})
        waiting = Counter(event.fn for event in own.queue)
        gaps_s = {
            function: self._gap_s(own, function, so_far_s if function in running else 0.0)
            for function in running + waiting
        }
        ahead_s, left_s = (
            sum(gaps_s[function] * count for function, count in calls.items()) for calls in (waiting, running)
        )
        return ahead_s + max(left_s - so_far_s, 0.0)

    def _so_far_s(self, own: EventQueue) -> float:
        """For how long a queue has been busy since a call ended in it."""
        begun = [start for starts in own.start_times_per_fn.values() for start in starts]
        since = max(self._latest_end.get(own.concurrency_id, -math.inf), min(begun, default=math.inf))
        return max(time.time() - since, 0.0)

    def _gap_s(self, own: EventQueue, function: BlockFunction, so_far_s: float) -> float:
        """Estimate the time from end to end. Where few are known, the present one counts too once it is longer than
        they were; otherwise it may be a moment in which the whole server did something else."""
        recent = self._recent(function, len(own.queue))
        usual_s = sum(recent) / len(recent) if recent else USUAL_S.get(own.concurrency_id, USUAL_S["page"])
        return usual_s if len(recent) >= FEW else max(usual_s, (sum(recent) + so_far_s) / (len(recent) + 1))

    def _recent(self, function: BlockFunction, count: int) -> Sequence[float]:
        """List as many gaps as calls wait: the longer the wait, the less a moment counts."""
        if function in self._crowded and time.time() - self._crowded[function].latest_at < REMEMBERED_S:
            recent = self._crowded[function].recent(count)
            longest_s = max(recent)
            if sum(recent) >= SURE_S or sum(gap_s > 0.1 * longest_s for gap_s in recent) >= SEVERAL:
                return recent
        return self._all[function].recent(count) if function in self._all else []
