"""The endpoint for clips: the same run as the Video tab's, with plain values for its progress."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import gradio as gr

from demo.api.inputs import check_weights, engine_name, number, text, uploaded
from demo.api.results import ClipProgress, result
from demo.errors import told
from demo.page.gradio_private import FileUpload
from demo.predictors import SHORT_SIDES
from demo.registry import Registry
from demo.runtime import VIDEO_QUEUE, Runtime
from demo.tabs.video.handlers import new_folder
from demo.video import ACTION, CLASSIFY, DETECT, NO_BASELINE, named_job
from stvit.video.types import Progress

DESCRIPTION = (
    "A clip through a model (`task`: 'Classify frames', 'Token regions', 'Detect objects' or 'Clip action'; `model`: a "
    "name from /models whose role suits it). Clips up to 3 minutes, 50 MB, 4K and 120 frames/s. With a `baseline` both "
    "run side by side, each at its real pace; a detector's and a clip model's is the one of the same size, and 'none' "
    "is for one model alone. The pace of a detector is its backbone's: all that comes after is the same on both sides. "
    "`short_side` bounds a detector's input. Yields the progress several times a second; the last value comes with the "
    "new clip (MP4) and its records (JSON lines, one a frame; of clip models one more, 'clip', on the whole clip). "
    "`weights` says where the weights came from."
)
Answer = tuple[dict[str, Any], str | None, str | None]


class VideoEndpoint:
    """The function behind the endpoint."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @told
    def video(
        self, clip: str | None, task: str, model: str, baseline: str, short_side: int, engine: str
    ) -> Iterator[Answer]:
        """Run a clip through a model.

        Args:
            clip: The clip, a file of any common kind.
            task: Classify frames, Token regions, Detect objects or Clip action.
            model: Name of a model whose role suits the task; /models lists them. Empty for the first.
            baseline: Name of a model beside it; none for one model alone.
            short_side: At most so many pixels has the shorter side of a detector's input: 800, 640, 480 or 320.
            engine: What runs the model: auto (the fastest), eager, or another at hand, such as openvino.
        """
        path, registry = uploaded(clip, "a clip", "clip"), self.runtime.registry
        job = named_job(registry, task, model or _first(registry, task), baseline, short_side, engine)
        check_weights(self.runtime, job.models)
        cache = self.runtime.predictors.model_cache
        weights = {spec.name: cache.get(spec).weights for spec in job.models}
        with new_folder() as folder, closing(self.runtime.process_clip(path, folder, job)) as states:
            for progress in states:
                files = [str(folder / name) if progress.done else None for name in job.file_names]
                yield {**progress_json(progress), "weights": weights}, *files


def _first(registry: Registry, task: str) -> str:
    return registry.first({DETECT: "detect", ACTION: "video"}.get(task, "classify")).name


def progress_json(progress: Progress) -> dict[str, Any]:
    """Describe a run under way, or its end, in plain values."""
    return {
        "done": progress.done,
        "progress": progress.part,
        "frames": progress.frames,
        "frames_expected": progress.info.frames,
        "frames_per_second": round(progress.frames_per_second, 2),
        "engines": list(progress.engines),
        "model_frames_per_second": round(progress.model_frames_per_second, 2),
        "eta_s": None if progress.eta_s is None else round(progress.eta_s, 1),
        "stages_s": {stage: round(seconds, 3) for stage, seconds in progress.busy_s.items()},
        "note": progress.note,
        "clip": progress.conclusion,
    }


def build(runtime: Runtime) -> None:
    """Register the endpoint; call inside ``gr.Blocks``."""
    clip = FileUpload(label="Clip", visible=False)
    inputs = [
        clip,
        text("Task", CLASSIFY),
        text("Model", ""),
        text("Baseline", NO_BASELINE),
        number("Short side", SHORT_SIDES[0]),
        engine_name(runtime),
    ]
    outputs = [
        result(ClipProgress, "progress"),
        gr.File(label="new_clip", visible=False),
        gr.File(label="records", visible=False),
    ]
    run = VideoEndpoint(runtime).video
    gr.Button(visible=False).click(run, inputs, outputs, api_name="video", api_description=DESCRIPTION, **VIDEO_QUEUE)
