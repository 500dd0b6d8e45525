"""Let the tabs run models: the predictors behind their queues, on a lent GPU where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from demo.benchmark import BenchmarkState, benchmark_classifiers
from demo.camera import LiveModels
from demo.dense_benchmark import benchmark_backbones, benchmark_segmenters
from demo.own import OwnComparisons
from demo.predictors import Predictors, preprocessing_of
from demo.registry import ModelSpec, Registry
from demo.space.lending import (
    borrowing,
    clip_seconds,
    comparison_seconds,
    dense_comparison_seconds,
    own_comparison_seconds,
)
from demo.space.lent_models import on_zero_gpu
from demo.video import process_clip

DEVICE_QUEUE: dict[str, Any] = {"concurrency_id": "page", "concurrency_limit": 2}  # one decodes while the other runs
API_QUEUE: dict[str, Any] = {"concurrency_id": "api", "concurrency_limit": 24}  # they run in batches
COMPARISON_QUEUE: dict[str, Any] = {
    "concurrency_id": "comparison",
    "concurrency_limit": 1,
}  # one at a time, as they measure; each takes the device for one pass after the other
SHORT_QUEUE: dict[str, Any] = {
    "concurrency_id": "short comparison",
    "concurrency_limit": 4,
}  # all but one end at once
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


class Runtime:
    """The predictors, the models on offer, and the runs that need the device; these take models as ``ModelSpec``.

    Attributes:
        registry: the models on offer.
        classify_file, classify_one, detect_file, segment_file: of the predictors.
        benchmark_classifiers: (path, model, baseline, batch_size, engine) -> iterator of
            ``demo.benchmark.BenchmarkState``.
        benchmark_backbones: (path, model, baseline, short_side, engine) -> the same.
        benchmark_segmenters: (path, model, baseline, engine) -> the same.
        benchmark_own: (model, baseline, batch_size, engine) -> the same; the models are those of ``demo.own.own_pair``.
        process_clip: (path, folder, job) -> iterator of ``stvit.video.Progress``, see ``demo.video``.
        predict_frame: (job, pixels) -> ``demo.camera.FramePrediction``, see there.
    """

    def __init__(self, predictors: Predictors, registry: Registry) -> None:
        def benchmark_file(
            path: str, model: ModelSpec, baseline: ModelSpec, batch: int | None, engine: str | None = None
        ) -> Iterator[BenchmarkState]:
            picture = predictors.open_picture(path, model)
            seen = {spec: predictors.prepared_for(picture, model, spec).prepared.image for spec in (model, baseline)}
            inputs = {spec: preprocessing_of(spec).normalise(image)[None] for spec, image in seen.items()}
            yield from benchmark_classifiers(predictors, inputs, model, baseline, batch, engine)

        self.predictors = predictors
        self.registry = registry
        self.classify_file = borrowing(predictors.classify_file)
        self.classify_one = borrowing(predictors.classify_one)
        self.benchmark_classifiers = borrowing(benchmark_file, comparison_seconds)
        self.detect_file = borrowing(predictors.detect_file)
        self.benchmark_backbones = borrowing(partial(benchmark_backbones, predictors), dense_comparison_seconds)
        self.segment_file = borrowing(predictors.segment_file)
        self.benchmark_segmenters = borrowing(partial(benchmark_segmenters, predictors), dense_comparison_seconds)
        self.benchmark_own = borrowing(OwnComparisons(predictors).measure, own_comparison_seconds)
        self.process_clip = borrowing(partial(process_clip, predictors), clip_seconds)
        self.predict_frame = borrowing(LiveModels(predictors).predict)

    @property
    def device_words(self) -> str:
        """Device and precision, for the header."""
        return "ZeroGPU: a GPU for each request" if on_zero_gpu() else self.predictors.device_words()
