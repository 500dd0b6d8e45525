"""What every tab needs to run something: the engine, where it runs, and in words for the page."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from demo.benchmark import RaceState, race, race_backbones, race_segmenters
from demo.camera import LiveModels
from demo.engine import Engine, preprocessing_of
from demo.registry import ModelSpec, Registry
from demo.video import process_clip

Function = TypeVar("Function", bound=Callable[..., Any])

DEVICE_QUEUE: dict[str, Any] = {
    "concurrency_id": "device",
    "concurrency_limit": 1,
}  # one request on the device at a time
VIDEO_QUEUE: dict[str, Any] = {
    "concurrency_id": "video",
    "concurrency_limit": 1,
}  # one clip at a time; it takes the device for one batch after the other
LOADING_QUEUE: dict[str, Any] = {"concurrency_id": "loading", "concurrency_limit": 4}
AT_ONCE: dict[str, Any] = {
    "api_visibility": "private",
    "show_progress": "hidden",
    "queue": False,
}  # what the page does for itself, and needs no model
GPU_SECONDS, GPU_SECONDS_FOR_CLIP, GPU_SECONDS_FOR_FRAME = 60, 180, 10


def on_zero_gpu() -> bool:
    """Whether this is a Space that lends a GPU to single calls."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


class Runtime:
    """The engine, the models on offer, and the runs that need the device; these take models as ``ModelSpec``.

    Attributes:
        registry: the models on offer.
        classify_file, classify_one, detect_file, segment_file: of the engine.
        race_backbones: (path, model, baseline, short_side) -> iterator of ``RaceState``, see ``demo.benchmark``.
        race_segmenters: (path, model, baseline) -> iterator of ``RaceState``, see there.
        process_clip: (path, folder, job) -> iterator of ``stvit.video.Progress``, see ``demo.video``.
        predict_frame: (job, pixels) -> ``demo.camera.FramePrediction``, see there.
        race_file: (path, model, baseline, batch_size) -> iterator of ``RaceState``, see ``demo.benchmark.race``.
    """

    def __init__(self, engine: Engine, registry: Registry) -> None:
        def race_file(path: str, model: ModelSpec, baseline: ModelSpec, batch_size: int) -> Iterator[RaceState]:
            picture = engine.open_picture(path, model)
            seen = {spec: engine.prepared_for(picture, model, spec).prepared.image for spec in (model, baseline)}
            inputs = {spec: preprocessing_of(spec).normalise(image)[None] for spec, image in seen.items()}
            yield from race(engine, inputs, model, baseline, batch_size)

        def race_both(path: str, model: ModelSpec, baseline: ModelSpec, short_side: int) -> Iterator[RaceState]:
            yield from race_backbones(engine, path, model, baseline, short_side)

        def race_wholes(path: str, model: ModelSpec, baseline: ModelSpec) -> Iterator[RaceState]:
            yield from race_segmenters(engine, path, model, baseline)

        self.engine = engine
        self.registry = registry
        self.classify_file = _with_device(engine.classify_file)
        self.classify_one = _with_device(engine.classify_one)
        self.race_file = _with_device(race_file)
        self.detect_file = _with_device(engine.detect_file)
        self.race_backbones = _with_device(race_both)
        self.segment_file = _with_device(engine.segment_file)
        self.race_segmenters = _with_device(race_wholes)
        self.process_clip = _with_device(partial(process_clip, engine), GPU_SECONDS_FOR_CLIP)
        self.predict_frame = _with_device(LiveModels(engine).predict, GPU_SECONDS_FOR_FRAME)

    @property
    def device_words(self) -> str:
        """Device and precision, for the header."""
        return "ZeroGPU: a GPU for each request" if on_zero_gpu() else self.engine.device_words()


def _with_device(function: Function, seconds: int = GPU_SECONDS) -> Function:
    """``function``, unchanged; on ZeroGPU it borrows a GPU for each call."""
    if not on_zero_gpu():
        return function
    import spaces

    return spaces.GPU(duration=seconds)(function)
