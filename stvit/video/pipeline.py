"""Runs a task on a clip: decode, infer, draw and encode at the same time, each in a thread of its own.

PyTorch, PyAV and OpenCV release Python's lock while they work, so the stages overlap. Bounded queues stand between
them: a stage that is ahead waits, and memory does not grow with the clip.
"""

from __future__ import annotations

import contextlib
import json
import queue
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import Any, Generic, TypeVar

from .decode import ClipReader
from .encode import ClipWriter
from .picture import Picture
from .probe import probe
from .types import ClipInfo, Frame, Limits, Progress, Task

Item = TypeVar("Item")
REPORT_EVERY_S = 0.25
POLL_S = 0.05
AHEAD = 4  # frames beyond a batch that may wait for a stage
DRAWN_PLACES = 4  # drawn frames that wait for the encoder


class Cancelled(Exception):
    """The run was stopped from outside; nothing of it is left."""


class Stopped(Exception):
    """The run was stopped from outside or by another stage."""


class Stop:
    """A stop signal of one run, set by a stage or by the caller.

    Args:
        cancel: the caller's; only read here, so that it serves for further runs.
    """

    def __init__(self, cancel: Event | None = None) -> None:
        self._events = (Event(), cancel or Event())

    def set(self) -> None:
        self._events[0].set()

    def is_set(self) -> bool:
        return any(event.is_set() for event in self._events)


class BoundedQueue(Generic[Item]):
    """A bounded queue between two threads.

    Args:
        places: items that may wait in it.
        stop: ends every wait with :class:`Stopped` once it is set.
    """

    def __init__(self, places: int, stop: Stop) -> None:
        self._queue: queue.Queue[tuple[Item] | None] = queue.Queue(places)  # None: there will be no more
        self._stop = stop

    def put(self, item: Item) -> None:
        """Hand over an item; waits for a free place."""
        self._put((item,))

    def end(self) -> None:
        """Mark the end of the items."""
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


def process(
    source: str | Path,
    target: str | Path,
    task: Task,
    *,
    records: str | Path | None = None,
    limits: Limits | None = None,
    cancel: Event | None = None,
) -> Iterator[Progress]:
    """Make a new clip from a clip; yields several times a second, last with ``done``.

    The new clip and the records appear under their names when they are complete. Whatever ends the run before - an
    error of any stage, ``cancel``, or the caller letting go of the iterator - leaves no file and no thread. A program
    whose models are on a CPU is faster with ``stvit.predict.device.compute_in_one_place()`` at its beginning.

    Args:
        source: the clip.
        target: the new one, an MP4.
        task: e.g. ``AnnotateTask(model)``.
        records: where to write the results on every frame, one JSON object a line, and last those on the clip as a
            whole, if there are any, as ``{"clip": ...}``.
        cancel: set it from any thread to stop within one batch; it is only looked at.

    Raises:
        VideoError: the file cannot be used.
        Cancelled: ``cancel`` was set.
    """
    limits = limits or Limits()
    run = _Run(probe(source, limits), Path(target), records and Path(records), task, limits, Stop(cancel))
    yield from run.progress()


class _Run:
    def __init__(
        self, info: ClipInfo, target: Path, records: Path | None, task: Task, limits: Limits, stop: Stop
    ) -> None:
        self._info, self._task, self._stop = info, task, stop
        self._finals = [path for path in (target, records) if path]
        self._drafts = [path.with_name(f".{path.stem}.unfinished{path.suffix}") for path in self._finals]
        self._reader = ClipReader(info, task.max_side, limits)
        self._limits = limits
        places = task.batch_size + min(task.batch_size, AHEAD)
        self._decoded: BoundedQueue[tuple[Frame, Any]] = BoundedQueue(places, stop)
        self._inferred: BoundedQueue[tuple[Frame, Any]] = BoundedQueue(places, stop)
        self._drawn: BoundedQueue[Frame] = BoundedQueue(DRAWN_PLACES, stop)
        self._busy_s: defaultdict[str, float] = defaultdict(float)
        self._frames, self._time_s, self._preview, self._sound_note = 0, 0.0, None, ""
        self._conclusion: dict[str, Any] = {}

    def progress(self) -> Iterator[Progress]:
        start = time.perf_counter()
        try:
            self._task.begin(self._info, self._limits, self._reader.output_hw)
            with ThreadPoolExecutor(4, "video") as pool:
                try:
                    stages = (self._decode, self._infer, self._draw, self._encode)
                    futures = [pool.submit(self._guarded, stage) for stage in stages]
                    while wait(futures, REPORT_EVERY_S, FIRST_EXCEPTION).not_done and not self._stop.is_set():
                        yield self._state(start)
                    wait(futures)
                    _raise_first(futures)
                finally:
                    self._stop.set()
            for draft, final in zip(self._drafts, self._finals, strict=True):
                draft.replace(final)
        finally:
            self._task.close()
            for draft in self._drafts:
                draft.unlink(missing_ok=True)
        yield self._state(start, done=True)

    def _state(self, start: float, done: bool = False) -> Progress:
        duration_s = self._info.duration_s
        part = min(self._time_s / duration_s, 0.99) if duration_s else None
        note = " ".join(filter(None, (self._reader.note, self._sound_note))) if done else ""
        elapsed_s = time.perf_counter() - start
        return Progress(
            info=self._info,
            frames=self._frames,
            part=1.0 if done else part,
            elapsed_s=elapsed_s,
            busy_s=dict(self._busy_s),
            preview=self._preview,
            engines=tuple(self._task.engines),
            done=done,
            note=note,
            conclusion=self._conclusion,
        )

    def _guarded(self, stage: Callable[[], None]) -> None:
        """Run a stage; an error in it ends the others too."""
        whole = False
        try:
            stage()
            whole = True
        finally:
            if not whole:
                self._stop.set()

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self._busy_s[stage] += time.perf_counter() - start

    def _decode(self) -> None:
        with contextlib.closing(iter(self._reader)) as frames:
            while True:
                with self._timed("decode"):
                    frame = next(frames, None)
                if frame is None:
                    return self._decoded.end()
                with self._timed("prepare"):
                    prepared = self._task.prepare(frame.picture.rgb())
                self._decoded.put((frame, prepared))

    def _infer(self) -> None:
        batch: list[tuple[Frame, Any]] = []
        size = 1  # the first frame goes alone, so that something is seen soon
        for entry in self._decoded:
            batch.append(entry)
            if len(batch) == size:
                self._pass_on(batch)
                batch, size = [], self._task.batch_size
        self._pass_on(batch)
        self._inferred.end()

    def _pass_on(self, batch: list[tuple[Frame, Any]]) -> None:
        if not batch:
            return
        with self._timed("model"):
            results = self._task.infer([prepared for _, prepared in batch])
        for (frame, _), result in zip(batch, results, strict=True):
            self._inferred.put((frame, result))

    def _draw(self) -> None:
        with contextlib.ExitStack() as stack:
            lines = stack.enter_context(self._drafts[1].open("w", encoding="utf-8")) if self._drafts[1:] else None
            for frame, result in self._inferred:
                with self._timed("draw"):
                    drawn, record = self._task.draw(frame, result)
                if lines:
                    print(json.dumps(record), file=lines)
                self._hand_over(drawn)
                self._frames, self._time_s = frame.index + 1, frame.time_s
            self._hand_over(self._task.finish())
            self._conclusion = self._task.conclude()
            if lines and self._conclusion:
                print(json.dumps({"clip": self._conclusion}), file=lines)
            self._drawn.end()

    def _hand_over(self, drawn: Iterable[Frame]) -> None:
        for frame in drawn:
            self._preview = frame.picture
            self._drawn.put(frame)

    def _encode(self) -> None:
        writer: ClipWriter | None = None
        try:
            for frame in self._drawn:
                with self._timed("encode"):
                    writer = writer or self._writer(frame.picture)
                    writer.write(frame.picture, frame.time_s, frame.duration_s)
            if writer:
                with self._timed("encode"):
                    writer.finish()
                self._sound_note = writer.note
        finally:
            if writer:
                writer.close()

    def _writer(self, first: Picture) -> ClipWriter:
        return ClipWriter(self._drafts[0], first.size_hw, self._info, first.matrix)


def _raise_first(futures: list[Future[None]]) -> None:
    """Raise the error of the earliest stage, if there is one."""
    errors = [error for error in map(Future.exception, futures) if error is not None]
    for error in errors:
        if not isinstance(error, Stopped):
            raise error
    if errors:
        raise Cancelled
