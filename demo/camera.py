"""Frames of a live camera through the page's models, one at a time."""

from __future__ import annotations

from base64 import b64decode
from collections import OrderedDict
from functools import lru_cache
from io import BytesIO
from threading import Lock
from weakref import WeakKeyDictionary

import numpy as np
import torch
from PIL import Image

import stvit
from demo.camera_runs import Caption, Judged
from demo.charts.costs import cost_of
from demo.detection import input_side, scale_of
from demo.engine import Engine
from demo.media import DECODE_ERRORS
from demo.model_cache import LoadedModel
from demo.registry import ModelSpec, Registry
from demo.video import CLASSIFY, CLUSTERS, DETECT, BadChoice, ClipJob, frame_model, make_job
from stvit.detection.preprocess import prepare
from stvit.video.types import Model

TASKS = (CLUSTERS, CLASSIFY, DETECT)
MAX_SIDE = 640  # of the frames that the browser sends, pixels
MAX_BYTES = 1 << 20
MAX_PIXELS = 1280 * 960
MIN_SIDE = 16
READY_MODELS = 4
Setting = tuple[ClipJob, tuple[int, int]]  # what a model does, and for frames of which size


class FrameError(ValueError):
    """A frame that cannot be used; the message is for the user."""


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


def camera_job(registry: Registry, task: object, model: object, detector: object, short_side: object) -> ClipJob:
    """What a visitor chose, checked.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    if task not in TASKS:
        raise BadChoice(f"There is no task {str(task)[:40]!r} for the camera. Choose one of: {', '.join(TASKS)}.")
    return make_job(registry, task, model, None, detector, short_side, False)


class LiveModels:
    """Models, ready for frames of one size; of each network the latest few. They go with the store's own entry, so
    that nothing is kept here beyond its budget."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._ready: WeakKeyDictionary[LoadedModel, OrderedDict[Setting, Model]] = WeakKeyDictionary()
        self._lock = Lock()

    def judge(self, job: ClipJob, pixels: np.ndarray) -> Judged:
        """What the model of a job says about a frame, (H, W, 3) uint8 RGB. The device is held for this frame alone.

        Raises:
            OutOfMemory: the device has no room for the model.
        """
        model = self._model(job, pixels.shape[:2])
        (result,) = model.infer([model.prepare(pixels)])
        return Judged(result, Caption(model.label, model.note, model.macs))

    def _model(self, job: ClipJob, frame_hw: tuple[int, int]) -> Model:
        loaded, setting = self._engine.store.get(job.model), (job, frame_hw)
        with self._lock:
            ready = self._ready.setdefault(loaded, OrderedDict())
            model = ready.get(setting)
        if model is None:
            model = frame_model(self._engine, job, job.model)
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
    scale = scale_of(input_side(model, short_side))
    shape = tuple(prepare(np.zeros((*frame_hw, 3), np.uint8), scale).images.shape[1:])
    with torch.device("meta"):
        detector = stvit.create_model(model.model, **model.options)
    return stvit.count_macs(detector.backbone, shape)
