"""Between the browser's camera and the models: what was chosen becomes a run, and every frame an answer."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import gradio as gr
import numpy as np

from demo.camera import (
    MAX_SIDE,
    FrameError,
    Judged,
    LiveRun,
    LiveRuns,
    TooManyCameras,
    camera_job,
    macs_on_frame,
    read_frame,
)
from demo.charts.bars import notice
from demo.export import jpeg_bytes
from demo.memory import OutOfMemory, is_out_of_memory
from demo.model_cache import NO_ROOM
from demo.page.about import about
from demo.runtime import Runtime
from demo.tabs.loading import load_models
from demo.tabs.video.handlers import checked, weights_notice
from demo.video import DETECT, ClipJob
from demo.views.token_view import base64

BUSY = {"busy": True}  # an earlier frame of the same run is still under way
GONE = {"gone": True}  # there is no such run, or none any more
Answer = dict[str, Any]


class CameraHandlers:
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.registry = runtime.registry
        self.store = runtime.engine.store
        self.runs = LiveRuns()

    @staticmethod
    def arrange(task: str) -> tuple[gr.Column, gr.Column]:
        """Which pickers are to be seen: models, detectors."""
        return gr.Column(visible=task != DETECT), gr.Column(visible=task == DETECT)

    def introduce(self, task: str, model: str, detector: str, short_side: int) -> tuple[str, gr.Dropdown]:
        """What there is to say of the model, and the list of sizes where they are a choice."""
        spec = checked(camera_job, self.registry, task, model, detector, short_side).model
        return about([spec]), gr.Dropdown(visible=spec.bundled is None)

    def open(
        self, task: str, model: str, detector: str, short_side: int, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """Bring the model into memory, with notices on the progress; then the run that frames may be sent to, or why
        there is none. The browser gets something each time, and so knows that it is not forgotten."""
        try:
            job = checked(camera_job, self.registry, task, model, detector, short_side)
            for words in load_models(self.store, job.models, retry=True):
                yield words, {"at": time.time()}
            words = weights_notice(self.store, job)
            key = self.runs.open(request.session_hash, job)
        except gr.Error as error:
            yield _refused(error.message)
        except (TooManyCameras, OutOfMemory) as error:
            yield _refused(str(error))
        else:
            yield words, {"run": key, "maxSide": MAX_SIDE}

    def change(
        self, task: str, model: str, detector: str, short_side: int, request: gr.Request
    ) -> Iterator[tuple[Any, Any]]:
        """As ``open``, for a visitor whose camera runs; for others, nothing."""
        if self.runs.is_open(request.session_hash):
            yield from self.open(task, model, detector, short_side, request)
        else:
            yield gr.skip(), gr.skip()

    def close(self, request: gr.Request) -> None:
        """The visitor stopped the camera, or left."""
        self.runs.close(request.session_hash)

    def answer(self, sent: object) -> Answer:
        """What becomes of one frame.

        Args:
            sent: from the browser, ``{"run": key, "jpeg": base64}``; anything else is refused.

        Returns:
            The drawn frame with times (ms) and multiply-adds; or why there is none, as ``{"error": words}``, ``BUSY``
            or ``GONE``.
        """
        message = sent if isinstance(sent, dict) else {}
        run = self.runs.find(message.get("run"))
        if run is None:
            return GONE
        if not run.in_flight.acquire(blocking=False):
            return BUSY
        try:
            return self._judged(run, message.get("jpeg"))
        except (FrameError, OutOfMemory) as error:
            return {"error": str(error)}
        except gr.Error as error:  # no GPU is lent now
            return {"error": error.message}
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            return {"error": NO_ROOM}
        finally:
            run.in_flight.release()

    def _judged(self, run: LiveRun, jpeg: object) -> Answer:
        start = time.perf_counter()
        pixels = read_frame(jpeg)
        with self.runs.turn:
            judged = self.runtime.judge_frame(run.job, pixels)
            run.draw(pixels, judged)
        return {
            "jpeg": base64(jpeg_bytes(pixels)),
            "modelMs": round(judged.result.model_ms, 2),
            "serverMs": round((time.perf_counter() - start) * 1e3, 2),
            **self._cost(run.job, pixels, judged),
        }

    def _cost(self, job: ClipJob, pixels: np.ndarray, judged: Judged) -> Answer:
        full = job.model if job.model.method.full_tokens else self.registry.counterpart(job.model)
        return {
            "label": judged.caption.label,
            "macs": judged.caption.macs,
            "fullTokenMacs": macs_on_frame(full, job.short_side, pixels.shape[:2]) if full else None,
            "ofBackbone": job.task == DETECT,
        }


def _refused(words: str) -> tuple[str, Answer]:
    return notice(words, "error"), {"refused": words, "at": time.time()}
