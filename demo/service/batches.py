"""Requests for one model that wait at the same time run as one batch."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

from demo.model_cache import is_out_of_memory, release_memory
from demo.service.metrics import BATCH_SIZES
from stvit.predict.device import Compute

Work = Callable[[Sequence[Any]], Sequence[Any]]
MAX_BATCH_ON_CPU, MAX_BATCH_ON_GPU = 8, 64  # pictures
MAX_BATCH_S = 0.3  # whoever else waits for the device waits for one batch
KEPT = 0.5  # of the time of an item, from batch to batch


class _Request:
    def __init__(self, item: Any) -> None:
        self.item = item
        self.answer: Future[Any] = Future()
        self.woken = threading.Event()  # it is first in its line, or answered


class Batches:
    """Lines of requests before a device, one for each model.

    Nobody waits for others to come: the first of a line goes to the device as soon as it is free, and takes along
    whoever has come by then, as many as take ``MAX_BATCH_S`` by the latest batches, and one for each lane at
    least.

    Args:
        compute: the device.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        self._most = MAX_BATCH_ON_GPU if compute.device.type == "cuda" else MAX_BATCH_ON_CPU
        self._lock = threading.Lock()
        self._lines: dict[Hashable, deque[_Request]] = {}
        self._item_s: dict[Hashable, float] = {}

    def run(self, key: Hashable, item: Any, work: Work) -> Any:
        """Run ``work`` on an item, together with others of the same key; returns its own result.

        Args:
            key: of a model and all that its requests have in common, e.g. the size of its input.
            work: items -> results, in their order. A batch that fails is run again item by item.

        Raises:
            whatever ``work`` raises for this item alone.
        """
        request = _Request(item)
        with self._lock:
            line = self._lines.setdefault(key, deque())
            line.append(request)
            first = line[0] is request
        if not first:
            request.woken.wait()
        if not request.answer.done():
            self._compute.run(self._serve, key, work)
        return request.answer.result()

    def _serve(self, key: Hashable, work: Work) -> None:
        with self._lock:
            line = self._lines[key]
            batch = [line.popleft() for _ in range(min(self._room(key), len(line)))]
            if line:
                line[0].woken.set()
            else:
                del self._lines[key]
        BATCH_SIZES.observe(len(batch))
        start = time.perf_counter()
        if self._answered(batch, work):
            item_s = (time.perf_counter() - start) / len(batch)
            self._item_s[key] = KEPT * self._item_s.get(key, item_s) + (1 - KEPT) * item_s
        else:
            for request in batch:
                self._answered([request], work)
        for request in batch:
            request.woken.set()

    def _room(self, key: Hashable) -> int:
        in_time = int(MAX_BATCH_S / max(self._item_s.get(key, 0.0), 1e-6))
        return min(max(in_time, self._compute.lanes), self._most)

    def _answered(self, batch: Sequence[_Request], work: Work) -> bool:
        """Whether a batch has its answers; errors are answers where it is one request alone."""
        try:
            results = work([request.item for request in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return True
            if is_out_of_memory(error):
                self._most = max(len(batch) // 2, 1)
        else:
            for request, result in zip(batch, results, strict=True):
                request.answer.set_result(result)
            return True
        release_memory(self._compute.device)  # here, where the traceback holds the tensors of the failed run no longer
        return False
