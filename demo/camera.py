"""Frames of a live camera through the page's models, one at a time; objects and colours are remembered by one run for
each visitor."""

from __future__ import annotations

import time
from base64 import b64decode
from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from secrets import token_urlsafe
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

import stvit
from demo.charts.costs import cost_of
from demo.model_cache import LoadedModel
from demo.predictors import Predictors, input_side
from demo.registry import ModelSpec, Registry
from demo.video import CLASSIFY, CLUSTERS, DETECT, BadChoice, ClipJob, frame_model, make_job
from stvit.detection.preprocess import prepare
from stvit.draw.canvas import rgb_canvas
from stvit.errors import UserError
from stvit.predict.detector import published_scale
from stvit.predict.media import DECODE_ERRORS
from stvit.video.annotate import Annotator
from stvit.video.types import FrameResult, Model

TASKS = (CLUSTERS, CLASSIFY, DETECT)
MAX_SIDE = 640  # of the frames that the browser sends, pixels
MAX_BYTES = 1 << 20
MAX_PIXELS = 1280 * 960
MIN_SIDE = 16
READY_MODELS = 4
MAX_RUNS = 8  # each has at most one frame in flight, and a thread that waits with it
IDLE_S = 60.0  # a run whose frames stop coming is forgotten
NO_FRAMES_S = 5.0  # after which it gives its place to whoever wants one
USUAL_FPS = 10.0  # for how long the tracker remembers a hidden object
Setting = tuple[ClipJob, tuple[int, int]]  # what a model does, and for frames of which size


class FrameError(UserError, ValueError):
    """A frame that cannot be used."""


def read_frame(text: object) -> np.ndarray:
    """A frame as the browser sends it, a JPEG in base64 -> (H, W, 3) uint8 RGB. Bytes are limited before anything is
    decoded, pixels by the header before any pixel is.

    Raises:
        FrameError: too large, too small, damaged, or no JPEG.
    """
    if not isinstance(text, str) or not text:
        raise FrameError("The browser sent no frame. Reload the page, then start the camera again.")
    if len(text) > MAX_BYTES * 4 // 3 + 4:
        raise FrameError(
            f"A frame of the camera has more than {MAX_BYTES >> 20} MB. Reload the page: it sends smaller ones."
        )
    try:
        data = b64decode(text, validate=True)
    except ValueError:
        raise FrameError("A frame of the camera arrived damaged. Start the camera again.") from None
    try:
        with Image.open(BytesIO(data), formats=("JPEG",)) as image:
            _check_size(*image.size)
            return np.array(image.convert("RGB"))
    except FrameError:
        raise
    except DECODE_ERRORS:
        raise FrameError("A frame of the camera is no whole JPEG picture. Start the camera again.") from None


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise FrameError(
            f"A frame of the camera has {width}×{height} pixels; the limit is {MAX_PIXELS / 1e6:.1f} megapixels. "
            "Reload the page: it sends smaller ones."
        )
    if min(width, height) < MIN_SIDE:
        raise FrameError(
            f"A frame of the camera has {width}×{height} pixels; each side needs at least {MIN_SIDE}. "
            "Choose another camera."
        )


def camera_job(
    registry: Registry, task: object, model: object, detector: object, short_side: object, engine: str | None = None
) -> ClipJob:
    """What a visitor chose, checked.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    if task not in TASKS:
        raise BadChoice(f"There is no task {str(task)[:40]!r} for the camera. Choose one of: {', '.join(TASKS)}.")
    return make_job(registry, task, model, None, detector, short_side, False, engine=engine)


class TooManyCameras(UserError, RuntimeError):
    """All places are taken."""


@dataclass
class Caption:
    """What is written about a model on its frames: see ``stvit.video.types.Labelled``."""

    label: str
    note: str
    macs: int


@dataclass(frozen=True)
class FramePrediction:
    """What a model says about a frame, in plain values that can go from one process to another."""

    result: FrameResult
    caption: Caption


class LiveModels:
    """Models, ready for frames of one size; of each network the latest few. They go with the cache's own entry, so
    that nothing is kept here beyond its budget."""

    def __init__(self, predictors: Predictors) -> None:
        self._predictors = predictors
        self._ready: WeakKeyDictionary[LoadedModel, OrderedDict[Setting, Model]] = WeakKeyDictionary()
        self._lock = Lock()

    def predict(self, job: ClipJob, pixels: np.ndarray) -> FramePrediction:
        """What the model of a job says about a frame, (H, W, 3) uint8 RGB. The device is held for this frame alone.

        Raises:
            OutOfMemory: the device has no room for the model.
        """
        model = self._model(job, pixels.shape[:2])
        (result,) = model.infer([model.prepare(pixels)])
        return FramePrediction(result, Caption(model.label, model.note, model.macs))

    def _model(self, job: ClipJob, frame_hw: tuple[int, int]) -> Model:
        loaded, setting = self._predictors.model_cache.get(job.model), (job, frame_hw)
        with self._lock:
            ready = self._ready.setdefault(loaded, OrderedDict())
            model = ready.get(setting)
        if model is None:
            model = frame_model(self._predictors, job, job.model)
            model.begin(frame_hw)
        with self._lock:
            ready[setting] = model
            ready.move_to_end(setting)
            while len(ready) > READY_MODELS:
                ready.popitem(last=False)
        return model


@lru_cache(maxsize=64)
def macs_on_frame(model: ModelSpec, short_side: int, frame_hw: tuple[int, int]) -> int:
    """Multiply-adds of a model for one frame, of detectors the backbone's."""
    if model.task != "detect":
        return cost_of(model).macs
    scale = published_scale(input_side(model, short_side))
    shape = tuple(prepare(np.zeros((*frame_hw, 3), np.uint8), scale).images.shape[1:])
    with torch.device("meta"):
        detector = stvit.create_model(model.model, **model.options)
    return stvit.count_macs(detector.backbone, shape)


class LiveRun:
    """One visitor's camera on one model: objects keep their numbers and regions their colours from frame to frame.

    Args:
        owner: the visitor's session.

    Attributes:
        in_flight: held while a frame is under way.
        used_s: when it was last asked for or has answered, by ``time.monotonic``.
    """

    def __init__(self, owner: str | None, job: ClipJob) -> None:
        self.owner, self.job = owner, job
        self.in_flight = Lock()
        self.used_s = time.monotonic()
        self._annotator: Annotator | None = None
        self._caption: Caption | None = None

    def draw(self, pixels: np.ndarray, predicted: FramePrediction) -> None:
        """Draw on a frame (H, W, 3)."""
        if self._annotator is None or self._caption != predicted.caption:
            self._annotator = Annotator(predicted.caption, USUAL_FPS, with_speed=False)  # the page tells the speed
            self._caption = predicted.caption
        self._annotator.draw(rgb_canvas(pixels), self._annotator.follow(predicted.result))


class LiveRuns:
    """The runs under way, found by a key that nobody can guess; at most one of each visitor.

    Attributes:
        turn: held by the run whose frame is under way. Other visitors' cameras wait for it, not for the device; and as
            it outlasts the use of the device, whoever else waits for that comes in between two frames.
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
                self._give_up_idle_place(now_s)
            if len(self._runs) >= MAX_RUNS:
                raise TooManyCameras(
                    f"{MAX_RUNS} cameras are running here, as many as this page serves at a time. "
                    "Try again when one of them has stopped."
                )
            self._runs[key] = LiveRun(owner, job)
        return key

    def _give_up_idle_place(self, now_s: float) -> None:
        idle = {
            key: run.used_s
            for key, run in self._runs.items()
            if now_s - run.used_s > NO_FRAMES_S and not run.in_flight.locked()
        }
        if idle:
            del self._runs[min(idle, key=idle.get)]

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
