"""Cameras under way: one run for each visitor, which remembers objects and colours from frame to frame."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from secrets import token_urlsafe
from threading import Lock

import numpy as np

from demo.video import ClipJob
from stvit.draw.canvas import rgb_canvas
from stvit.video.annotate import Annotator
from stvit.video.types import FrameResult

MAX_RUNS = 8  # each has at most one frame in flight, and a thread that waits with it
IDLE_S = 60.0  # a run whose frames stop coming is forgotten
USUAL_FPS = 10.0  # for how long the tracker remembers a hidden object
_MEMORY = 0.8  # of the running rate, from frame to frame


class TooManyCameras(RuntimeError):
    """All places are taken; the message is for the user."""


@dataclass
class Caption:
    """What is written about a model on its frames: see ``stvit.video.types.Labelled``."""

    label: str
    note: str
    macs: int


@dataclass(frozen=True)
class Judged:
    """What a model says about a frame, in plain values that can go from one process to another."""

    result: FrameResult
    caption: Caption


class LiveRun:
    """One visitor's camera on one model: objects keep their numbers and regions their colours from frame to frame.

    Args:
        owner: the visitor's session.

    Attributes:
        in_flight: held while a frame is under way.
        used_s: when it was last asked for, by ``time.monotonic``.
    """

    def __init__(self, owner: str | None, job: ClipJob) -> None:
        self.owner, self.job = owner, job
        self.in_flight = Lock()
        self.used_s = time.monotonic()
        self._annotator: Annotator | None = None
        self._caption: Caption | None = None
        self._drawn_s: float | None = None
        self._interval_s: float | None = None

    def draw(self, pixels: np.ndarray, judged: Judged) -> None:
        """Draw on a frame (H, W, 3), with the rate at which frames are really drawn."""
        if self._annotator is None or self._caption != judged.caption:
            self._annotator, self._caption = Annotator(judged.caption, USUAL_FPS), judged.caption
        followed = self._annotator.follow(judged.result)
        self._tick()
        if self._interval_s:
            followed = replace(followed, frames_per_second=1 / self._interval_s)
        self._annotator.draw(rgb_canvas(pixels), followed)

    def _tick(self) -> None:
        before, self._drawn_s = self._drawn_s, time.perf_counter()
        if before is not None:
            interval_s, known_s = self._drawn_s - before, self._interval_s
            self._interval_s = interval_s if known_s is None else _MEMORY * known_s + (1 - _MEMORY) * interval_s


class LiveRuns:
    """The runs under way, found by a key that nobody can guess; at most one of each visitor.

    Attributes:
        turn: held by the run whose frame is judged and drawn. Other visitors' cameras wait for it, not for the device;
            and as it outlasts the use of the device, whoever else waits for that comes in between two frames.
    """

    def __init__(self) -> None:
        self.turn = Lock()
        self._runs: dict[str, LiveRun] = {}
        self._lock = Lock()

    def open(self, owner: str | None, job: ClipJob) -> str:
        """Begin a run, in place of the visitor's former one; returns its key.

        Raises:
            TooManyCameras: all places are taken.
        """
        key, now_s = token_urlsafe(16), time.monotonic()
        with self._lock:
            self._runs = {
                known: run for known, run in self._runs.items() if run.owner != owner and now_s - run.used_s < IDLE_S
            }
            if len(self._runs) >= MAX_RUNS:
                raise TooManyCameras(
                    f"{MAX_RUNS} cameras are running here, as many as this page serves at a time. "
                    "Try again when one of them has stopped."
                )
            self._runs[key] = LiveRun(owner, job)
        return key

    def find(self, key: object) -> LiveRun | None:
        """The run of a key, which now counts as used; ``None`` where it has ended."""
        with self._lock:
            run = self._runs.get(key) if isinstance(key, str) else None
            if run is not None:
                run.used_s = time.monotonic()
            return run

    def is_open(self, owner: str | None) -> bool:
        """Whether a visitor has a run."""
        with self._lock:
            return any(run.owner == owner for run in self._runs.values())

    def close(self, owner: str | None) -> None:
        """End a visitor's run; what it remembered is gone."""
        with self._lock:
            self._runs = {key: run for key, run in self._runs.items() if run.owner != owner}

    def __len__(self) -> int:
        return len(self._runs)
