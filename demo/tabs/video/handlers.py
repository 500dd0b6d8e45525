"""Between the browser and the pipeline: what the Video tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from demo.charts.bars import notice
from demo.charts.video import finished, live, stopped
from demo.errors import told, user_errors
from demo.model_cache import ModelCache
from demo.page.about import about
from demo.page.examples import Gallery, garment_examples
from demo.page.gradio_private import upload_folder
from demo.runtime import Runtime
from demo.tabs.parts import Fields, load_models, weights_notice
from demo.video import ACTION, CLASSIFY, CLIP_NAME, DETECT, RECORDS_NAME, ClipJob, make_job
from stvit.errors import UserError
from stvit.video.types import Progress

EXAMPLE_CLIP = Path(__file__).resolve().parents[3] / "assets" / "clips" / "castle.mp4"
CHOOSE_FIRST = "Choose a clip first."
EMPTY = '<p class="placeholder">The new clip appears here, frame by frame, while it is being made.</p>'


class VideoHandlers:
    """The event handlers of one page. ``chosen`` are the arguments of ``make_job`` after the registry."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.registry, self.model_cache = runtime, runtime.registry, runtime.predictors.model_cache
        self.gallery = Gallery((), garment_examples("clip"))
        self._cancelled: set[str | None] = set()  # sessions that want no more of their run

    @staticmethod
    def choose_example() -> str:
        """The path of the example clip."""
        return str(EXAMPLE_CLIP)

    @staticmethod
    def arrange(task: str, side_by_side: bool) -> Fields:
        """Show the pickers that fit the task."""
        on_frames = task not in (DETECT, ACTION)
        return {
            "model_column": gr.Column(visible=on_frames),
            "baseline_column": gr.Column(visible=on_frames and bool(side_by_side)),
            "detector_column": gr.Column(visible=task == DETECT),
            "clip_model_column": gr.Column(visible=task == ACTION),
        }

    @told
    def introduce(
        self,
        task: str,
        model: str,
        baseline: str,
        detector: str,
        short_side: int,
        side_by_side: bool,
        clip_model: str,
    ) -> Fields:
        """The cards of bundled models, clips that they know, and the list of sizes where they are a choice."""
        two = side_by_side and model != baseline
        job = make_job(self.registry, task, model, baseline, detector, short_side, two, clip_model)
        bundled = any(spec.bundled for spec in job.models)
        return {
            "about": about(job.models),
            "garments": self.gallery.shown(garments=bundled),
            "short_side": gr.Dropdown(visible=not bundled),
        }

    def start(self, request: gr.Request) -> Fields:
        """Forget a former cancel, and let this run be cancelled."""
        self._cancelled.discard(request.session_hash)
        return {"run": gr.Button(interactive=False), "cancel": gr.Button(interactive=True)}

    @told
    def load(self, request: gr.Request, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Bring the models into memory, with notices on the progress; at the end, say why some predict nothing."""
        job = make_job(self.registry, *chosen)
        if path is None:
            yield {"notice": notice(CHOOSE_FIRST, "warning")}
            return
        if request.session_hash in self._cancelled:
            yield {"notice": stopped()}
            return
        for words in load_models(self.model_cache, job.models, retry=True):
            yield {"notice": words}
        yield {"notice": job_notice(self.model_cache, job)}

    @told
    def process(self, request: gr.Request, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Make the new clip, drawn several times a second meanwhile."""
        job = make_job(self.registry, *chosen)
        if path is None:
            yield {"notice": gr.skip()}
            return
        try:
            with user_errors():
                yield from self._run(path, job, request.session_hash)
        except UserError as error:
            yield _nothing(notice(str(error), "error"))
        finally:
            self._cancelled.discard(request.session_hash)

    def _run(self, path: str, job: ClipJob, session: str | None) -> Iterator[Fields]:
        if session in self._cancelled:  # while it waited for its turn
            yield _nothing(stopped())
            return
        before = job_notice(self.model_cache, job)
        yield _nothing(before)
        with new_folder() as folder, closing(self.runtime.process_clip(path, folder, job)) as states:
            for progress in states:
                if session in self._cancelled:
                    (folder / CLIP_NAME).unlink(missing_ok=True)  # it may just have become whole
                    break
                if progress.done:
                    yield _finished(progress, folder, before)
                    return
                if progress.preview is not None:
                    yield {"live": live(progress, job.task)}
        yield _nothing(before + stopped())

    def cancel(self, request: gr.Request) -> None:
        """Stop the visitor's run; it ends within one batch."""
        self._cancelled.add(request.session_hash)

    def forget(self, request: gr.Request) -> None:
        """The visitor left."""
        self._cancelled.discard(request.session_hash)


def ended() -> Fields:
    """Buttons after a run."""
    return {"run": gr.Button(interactive=True), "cancel": gr.Button(interactive=False)}


def job_notice(cache: ModelCache, job: ClipJob) -> str:
    """Why some of a job's models predict nothing, and what of them is real all the same."""
    regions = "" if job.task == CLASSIFY else ", and token regions"
    real = f"Speed, cost{regions} are real and shown all the same."
    return weights_notice(cache, job.models, "predictions", real, real)


def _finished(progress: Progress, folder: Path, before: str) -> Fields:
    clip, records = str(folder / CLIP_NAME), str(folder / RECORDS_NAME)
    return {
        "notice": before + notice(progress.note, "warning"),
        "live": "",
        "video": clip,
        "stages": finished(progress),
        "download_clip": gr.DownloadButton(value=clip, interactive=True),
        "download_records": gr.DownloadButton(value=records, interactive=True),
    }


def _nothing(message: str) -> Fields:
    """No clip, no times, nothing to download."""
    return {
        "notice": message,
        "live": EMPTY,
        "video": None,
        "stages": "",
        "download_clip": gr.DownloadButton(value=None, interactive=False),
        "download_records": gr.DownloadButton(value=None, interactive=False),
    }


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a new clip among those that the page empties; without a whole clip in it, it goes at the end."""
    upload_folder().mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clip-", dir=upload_folder()))
    try:
        yield folder
    finally:
        if not (folder / CLIP_NAME).exists():
            shutil.rmtree(folder, ignore_errors=True)
