"""Between the browser's camera and the models: what was chosen becomes a run, and every frame an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from demo.camera import MAX_SIDE, FramePrediction, LiveRun, LiveRuns, camera_job, macs_on_frame, read_frame
from demo.charts.bars import notice
from demo.engine_names import ENGINE_LABELS
from demo.errors import told, user_errors
from demo.export import jpeg_bytes
from demo.page.about import about
from demo.runtime import Runtime
from demo.tabs.parts import Fields, load_models
from demo.tabs.video.handlers import job_notice
from demo.video import DETECT, ClipJob
from demo.views.token_view import base64
from stvit.errors import UserError

BUSY = {"busy": True}  # an earlier frame of the same run is still under way
GONE = {"gone": True}  # there is no such run, or none any more
Answer = dict[str, Any]


class CameraHandlers:
    """The event handlers of one page. ``chosen`` are the arguments of ``camera_job`` after the registry."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.registry, self.model_cache = runtime, runtime.registry, runtime.predictors.model_cache
        self.runs = LiveRuns()

    @staticmethod
    def arrange(task: str) -> Fields:
        """Show the pickers that fit the task."""
        return {
            "model_column": gr.Column(visible=task != DETECT),
            "detector_column": gr.Column(visible=task == DETECT),
        }

    @told
    def introduce(self, task: str, model: str, detector: str, short_side: int) -> Fields:
        """The card of a bundled model, and the list of sizes where they are a choice."""
        spec = camera_job(self.registry, task, model, detector, short_side).model
        return {"about": about([spec]), "short_side": gr.Dropdown(visible=spec.bundled is None)}

    def open(self, request: gr.Request, *chosen: Any) -> Iterator[Fields]:
        """Bring the model into memory, with notices on the progress; then tell the run that frames may be sent to, or
        why there is none. The browser gets something each time, and so knows that it is not forgotten."""
        try:
            with user_errors():
                job = camera_job(self.registry, *chosen)
                for words in load_models(self.model_cache, job.models, retry=True):
                    yield {"notice": words, "view": {"at": time.time()}}
                words = job_notice(self.model_cache, job)
                key = self.runs.open(request.session_hash, job)
        except UserError as error:
            yield {"notice": notice(str(error), "error"), "view": {"refused": str(error), "at": time.time()}}
        else:
            yield {"notice": words, "view": {"run": key, "maxSide": MAX_SIDE}}

    def change(self, request: gr.Request, *chosen: Any) -> Iterator[Fields]:
        """As ``open``, for a visitor whose camera runs; for others, nothing."""
        if self.runs.is_open(request.session_hash):
            yield from self.open(request, *chosen)
        else:
            yield {"notice": gr.skip()}

    def close(self, request: gr.Request) -> None:
        """The visitor stopped the camera, or left."""
        self.runs.close(request.session_hash)

    def answer(self, sent: object) -> Answer:
        """Answer one frame.

        Args:
            sent: from the browser, ``{"run": key, "jpeg": base64}``; anything else is refused.

        Returns:
            The drawn frame with times (ms), the engine that took them, and multiply-adds; or why there is none, as
            ``{"error": words}``, ``BUSY`` or ``GONE``.
        """
        message = sent if isinstance(sent, dict) else {}
        run = self.runs.find(message.get("run"))
        if run is None:
            return GONE
        if not run.in_flight.acquire(blocking=False):
            return BUSY
        try:
            with user_errors():
                return self._predicted(run, message.get("jpeg"))
        except UserError as error:
            return {"error": str(error)}
        except gr.Error as error:  # no GPU is lent now
            return {"error": error.message}
        finally:
            run.used_s = time.monotonic()
            run.in_flight.release()

    def _predicted(self, run: LiveRun, jpeg: object) -> Answer:
        start = time.perf_counter()
        pixels = read_frame(jpeg)
        with self.runs.turn:
            predicted = self.runtime.predict_frame(run.job, pixels)
            run.draw(pixels, predicted)
        return {
            "jpeg": base64(jpeg_bytes(pixels)),
            "modelMs": round(predicted.result.model_ms, 2),
            "serverMs": round((time.perf_counter() - start) * 1e3, 2),
            **self._cost(run.job, pixels, predicted),
        }

    def _cost(self, job: ClipJob, pixels: np.ndarray, predicted: FramePrediction) -> Answer:
        full = job.model if job.model.method.full_tokens else self.registry.counterpart(job.model)
        return {
            "label": predicted.caption.label,
            "engine": ENGINE_LABELS[predicted.result.engine],
            "macs": predicted.caption.macs,
            "fullTokenMacs": macs_on_frame(full, job.short_side, pixels.shape[:2]) if full else None,
            "ofBackbone": job.task == DETECT,
        }
