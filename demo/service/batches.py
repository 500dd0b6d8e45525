"""Requests for one model that wait at the same time run as one batch."""

from __future__ import annotations

import math
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
USUAL_PIXELS = 224 * 224
MAX_BATCH_ON_CPU, MAX_BATCH_ON_GPU = 8, 64  # inputs of that size, or as many others as have the same pixels
MAX_BATCH_S = 0.3  # whoever else waits for the device waits for one batch
KEPT = 0.5  # of the time of a pixel, from batch to batch


class _Request:
    def __init__(self, item: Any) -> None:
        self.item = item
        self.answer: Future[Any] = Future()
        self.woken = threading.Event()  # it is first in its line, or answered


class Batches:
    """Lines of requests before a device, one for each model and size of its input.

    Nobody waits for others to come: the first of a line goes to the device as soon as it is free, and takes along
    whoever has come by then, as many as take ``MAX_BATCH_S`` by the latest batches, within the pixels that a batch
    may have. However long they take, there is one input of usual size for each lane: each lane computes one. Larger
    ones, as of detectors, gain nothing on a CPU: two at 320x480 took 1.2 times as long together as in turn.

    Args:
        compute: the device.
    """

    def __init__(self, compute: Compute) -> None:
        self._compute = compute
        most = MAX_BATCH_ON_GPU if compute.device.type == "cuda" else MAX_BATCH_ON_CPU
        self._most_pixels = most * USUAL_PIXELS
        self._lock = threading.Lock()
        self._lines: dict[tuple[Hashable, tuple[int, int]], deque[_Request]] = {}
        self._pixel_s: dict[Hashable, float] = {}

    def run(self, model: Hashable, input_hw: tuple[int, int], item: Any, work: Work) -> Any:
        """Run ``work`` on an item, together with others of the same model and size; returns its own result.

        Args:
            model: and all else that requests of one batch have in common.
            input_hw: of the network's input, pixels.
            work: items -> results, in their order. A batch that fails is run again item by item.

        Raises:
            whatever ``work`` raises for this item alone.
        """
        request = _Request(item)
        with self._lock:
            line = self._lines.setdefault((model, input_hw), deque())
            line.append(request)
            first = line[0] is request
        if not first:
            request.woken.wait()
        if not request.answer.done():
            self._compute.run(self._serve, model, input_hw, work)
        return request.answer.result()

    def _serve(self, model: Hashable, input_hw: tuple[int, int], work: Work) -> None:
        pixels = math.prod(input_hw)
        with self._lock:
            line = self._lines[model, input_hw]
            batch = [line.popleft() for _ in range(min(self._room(model, pixels), len(line)))]
            if line:
                line[0].woken.set()
            else:
                del self._lines[model, input_hw]
        BATCH_SIZES.observe(len(batch))
        start = time.perf_counter()
        if self._answered(batch, work, pixels):
            pixel_s = (time.perf_counter() - start) / (len(batch) * pixels)
            self._pixel_s[model] = KEPT * self._pixel_s.get(model, pixel_s) + (1 - KEPT) * pixel_s
        else:
            for request in batch:
                self._answered([request], work, pixels)
        for request in batch:
            request.woken.set()

    def _room(self, model: Hashable, pixels: int) -> int:
        in_time = int(MAX_BATCH_S / max(self._pixel_s.get(model, 0.0) * pixels, 1e-6))
        for_lanes = self._compute.lanes * USUAL_PIXELS // pixels
        return max(min(max(in_time, for_lanes), self._most_pixels // pixels), 1)

    def _answered(self, batch: Sequence[_Request], work: Work, pixels: int) -> bool:
        """Whether a batch has its answers; errors are answers where it is one request alone."""
        try:
            results = work([request.item for request in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0].answer.set_exception(error)
                return True
            if is_out_of_memory(error):
                self._most_pixels = len(batch) * pixels // 2
        else:
            for request, result in zip(batch, results, strict=True):
                request.answer.set_result(result)
            return True
        release_memory(self._compute.device)  # here, where the traceback holds the tensors of the failed run no longer
        return False
