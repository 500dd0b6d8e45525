"""Between the browser and the pipeline: what the Video tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import gradio as gr

from demo.charts.bars import notice
from demo.charts.video import finished, live, race_headline, sent_clip, stopped
from demo.errors import told, user_errors
from demo.model_cache import ModelCache
from demo.page.about import about
from demo.page.examples import Gallery, garment_examples
from demo.page.gradio_private import upload_folder
from demo.runtime import Runtime
from demo.tabs.parts import Fields, load_models, weights_notice
from demo.video import ACTION, CLASSIFY, CLUSTERS, DETECT, ClipJob, make_job
from stvit.errors import UserError
from stvit.video.types import Progress

EXAMPLE_CLIP = Path(__file__).resolve().parents[3] / "assets" / "clips" / "castle.mp4"
EMPTY = '<p class="placeholder">The new clip appears here, frame by frame, while it is being made.</p>'


class VideoHandlers:
    """The event handlers of one page. ``chosen`` are the arguments of ``make_job`` after the registry."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.registry, self.model_cache = runtime, runtime.registry, runtime.predictors.model_cache
        self.gallery = Gallery((), garment_examples("clip"))
        self._numbers = count()
        self._wanted: dict[str | None, int] = {}  # number of the run that each session waits for

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

    @staticmethod
    def suit(task: str) -> Fields:
        """Put classifiers side by side, which take no long time, detectors and clip models alone."""
        return {"side_by_side": gr.skip() if task == CLUSTERS else task == CLASSIFY}

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
        """The cards of bundled models, clips that they know or else the example clip, and the list of sizes where they
        are a choice."""
        two = side_by_side and model != baseline
        job = make_job(self.registry, task, model, baseline, detector, short_side, two, clip_model)
        bundled = any(spec.bundled for spec in job.models)
        return {
            "about": about(job.models),
            "garments": self.gallery.shown(garments=bundled),
            "example": gr.Button(visible=not bundled),
            "short_side": gr.Dropdown(visible=not bundled),
        }

    def start(self, request: gr.Request, path: str | None) -> Fields:
        """Show the clip as it was sent; a run of the visitor that is under way gives way to this one."""
        self._wanted.pop(request.session_hash, None)
        if path is None:
            return {"run": gr.Button(interactive=False), "cancel": gr.Button(interactive=False), "preview": ""}
        self._wanted[request.session_hash] = next(self._numbers)
        buttons = {"run": gr.Button(interactive=False), "cancel": gr.Button(interactive=True)}
        return {**buttons, "preview": sent_clip(path)}

    def load(self, request: gr.Request, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Bring the models into memory, with notices on the progress; at the end, say why some predict nothing."""
        try:
            with user_errors():
                job = make_job(self.registry, *chosen)
                if path is not None and request.session_hash in self._wanted:
                    for words in load_models(self.model_cache, job.models, retry=True):
                        yield {"notice": words}
                    yield {"notice": job_notice(self.model_cache, job)}
        except UserError as error:
            self._wanted.pop(request.session_hash, None)
            yield {"notice": notice(str(error), "error")}
            raise gr.Error(str(error), visible=False, print_exception=False) from error

    def process(self, request: gr.Request, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Make the new clip, drawn several times a second meanwhile; what goes wrong is said in the tab."""
        if path is None:
            yield _nothing("")
            return
        number = self._wanted.get(request.session_hash)
        try:
            with user_errors():
                yield from self._run(path, make_job(self.registry, *chosen), request.session_hash, number)
        except UserError as error:
            yield _nothing(notice(str(error), "error"))
        finally:
            if self._wanted.get(request.session_hash) == number:
                self._wanted.pop(request.session_hash, None)

    def _run(self, path: str, job: ClipJob, session: str | None, number: int | None) -> Iterator[Fields]:
        if number is None:  # cancelled while it waited for its turn
            yield _nothing(stopped())
            return
        before = job_notice(self.model_cache, job)
        yield _nothing(before)
        with new_folder() as folder, closing(self.runtime.process_clip(path, folder, job)) as states:
            for progress in states:
                if self._wanted.get(session) != number:
                    (folder / job.file_names[0]).unlink(missing_ok=True)  # it may just have become whole
                    break
                if progress.done:
                    yield {
                        **_finished(progress, [str(folder / name) for name in job.file_names], before),
                        "headline": race_headline(progress, self.runtime.device_words),
                    }
                    return
                if progress.preview is not None:
                    yield {"live": live(progress, job.task)}
        yield _nothing(before + stopped())

    def cancel(self, request: gr.Request) -> None:
        """Stop the visitor's run, or forget it where the visitor left; it ends within one batch."""
        self._wanted.pop(request.session_hash, None)

    def ended(self, request: gr.Request, path: str | None) -> Fields:
        """Buttons after a run, unless another one has begun."""
        if request.session_hash in self._wanted:
            return {"run": gr.skip(), "cancel": gr.skip()}
        return {"run": gr.Button(interactive=path is not None), "cancel": gr.Button(interactive=False)}


def job_notice(cache: ModelCache, job: ClipJob) -> str:
    """Why some of a job's models predict nothing, and what of them is real all the same."""
    regions = "" if job.task == CLASSIFY else ", and token regions"
    real = f"Speed, cost{regions} are real and shown all the same."
    return weights_notice(cache, job.models, "predictions", real)


def _finished(progress: Progress, files: Sequence[str], before: str) -> Fields:
    clip, records = files
    first_done_s = progress.conclusion.get("race", {}).get("first_done_s", 0.0)
    return {
        "notice": before + notice(progress.note, "warning"),
        "live": "",
        "video": gr.Video(value=clip, visible=True, playback_position=first_done_s),
        "stages": finished(progress),
        "download_clip": gr.DownloadButton(value=clip, interactive=True),
        "download_records": gr.DownloadButton(value=records, interactive=True),
    }


def _nothing(message: str) -> Fields:
    """No clip, no times, nothing to download."""
    return {
        "notice": message,
        "live": EMPTY,
        "headline": "",
        "video": gr.Video(value=None, visible=False),
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
        if not any(folder.glob("[!.]*.mp4")):  # drafts begin with a dot
            shutil.rmtree(folder, ignore_errors=True)
