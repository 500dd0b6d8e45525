"""Let the tabs run models: the predictors behind their queues, on a lent GPU where there is one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, TypeVar

from demo.benchmark import BenchmarkState, benchmark_backbones, benchmark_classifiers, benchmark_segmenters
from demo.camera import LiveModels
from demo.predictors import Predictors, preprocessing_of
from demo.registry import ModelSpec, Registry
from demo.video import process_clip

Function = TypeVar("Function", bound=Callable[..., Any])

DEVICE_QUEUE: dict[str, Any] = {"concurrency_id": "page", "concurrency_limit": 2}  # one decodes while the other runs
API_QUEUE: dict[str, Any] = {"concurrency_id": "api", "concurrency_limit": 24}  # they run in batches
COMPARISON_QUEUE: dict[str, Any] = {
    "concurrency_id": "comparison",
    "concurrency_limit": 1,
}  # one at a time, as they measure; each takes the device for one round after the other
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
    """The predictors, the models on offer, and the runs that need the device; these take models as ``ModelSpec``.

    Attributes:
        registry: the models on offer.
        classify_file, classify_one, detect_file, segment_file: of the predictors.
        benchmark_classifiers: (path, model, baseline, batch_size) -> iterator of ``demo.benchmark.BenchmarkState``.
        benchmark_backbones: (path, model, baseline, short_side) -> the same.
        benchmark_segmenters: (path, model, baseline) -> the same.
        process_clip: (path, folder, job) -> iterator of ``stvit.video.Progress``, see ``demo.video``.
        predict_frame: (job, pixels) -> ``demo.camera.FramePrediction``, see there.
    """

    def __init__(self, predictors: Predictors, registry: Registry) -> None:
        def benchmark_file(path: str, model: ModelSpec, baseline: ModelSpec, batch: int) -> Iterator[BenchmarkState]:
            picture = predictors.open_picture(path, model)
            seen = {spec: predictors.prepared_for(picture, model, spec).prepared.image for spec in (model, baseline)}
            inputs = {spec: preprocessing_of(spec).normalise(image)[None] for spec, image in seen.items()}
            yield from benchmark_classifiers(predictors, inputs, model, baseline, batch)

        self.predictors = predictors
        self.registry = registry
        self.classify_file = _with_device(predictors.classify_file)
        self.classify_one = _with_device(predictors.classify_one)
        self.benchmark_classifiers = _with_device(benchmark_file)
        self.detect_file = _with_device(predictors.detect_file)
        self.benchmark_backbones = _with_device(partial(benchmark_backbones, predictors))
        self.segment_file = _with_device(predictors.segment_file)
        self.benchmark_segmenters = _with_device(partial(benchmark_segmenters, predictors))
        self.process_clip = _with_device(partial(process_clip, predictors), GPU_SECONDS_FOR_CLIP)
        self.predict_frame = _with_device(LiveModels(predictors).predict, GPU_SECONDS_FOR_FRAME)

    @property
    def device_words(self) -> str:
        """Device and precision, for the header."""
        return "ZeroGPU: a GPU for each request" if on_zero_gpu() else self.predictors.device_words()


def _with_device(function: Function, seconds: int = GPU_SECONDS) -> Function:
    """``function``, unchanged; on ZeroGPU it borrows a GPU for each call."""
    if not on_zero_gpu():
        return function
    import spaces

    return spaces.GPU(duration=seconds)(function)
