"""Between the browser and the pipeline: what the Video tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from demo.charts.bars import notice
from demo.charts.video import finished, live, stopped
from demo.engine import BadSize
from demo.memory import OutOfMemory, is_out_of_memory
from demo.model_cache import NO_ROOM, ModelStore
from demo.page.about import about
from demo.page.examples import Gallery, garment_examples
from demo.registry import UnknownModel
from demo.runtime import Runtime
from demo.tabs.loading import labels, load_models, without_weights
from demo.tabs.parts import no_file
from demo.video import ACTION, CLASSIFY, CLIP_NAME, DETECT, RECORDS_NAME, BadChoice, ClipJob, make_job
from stvit.video.types import Progress, VideoError

EXAMPLE_CLIP = Path(__file__).resolve().parents[3] / "assets" / "clips" / "castle.mp4"
CHOOSE_FIRST = "Choose a clip first."
EMPTY = '<p class="placeholder">The new clip appears here, frame by frame, while it is being made.</p>'
NO_PREDICTIONS = "Speed, cost{regions} are real and shown all the same."
OUTPUTS = 6  # notice, live picture, clip, times, two downloads
Shown = tuple[Any, ...]


class VideoHandlers:
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.registry = runtime.registry
        self.store = runtime.engine.store
        self.gallery = Gallery((), garment_examples("clip"))
        self._cancelled: set[str | None] = set()  # sessions that want no more of their run

    @staticmethod
    def choose_example() -> str:
        """The path of the example clip."""
        return str(EXAMPLE_CLIP)

    @staticmethod
    def arrange(task: str, side_by_side: bool) -> tuple[gr.Column, ...]:
        """Which pickers are to be seen: models, baseline, detectors, clip models."""
        on_frames = task not in (DETECT, ACTION)
        return (
            gr.Column(visible=on_frames),
            gr.Column(visible=on_frames and bool(side_by_side)),
            gr.Column(visible=task == DETECT),
            gr.Column(visible=task == ACTION),
        )

    def introduce(
        self,
        task: str,
        model: str,
        baseline: str,
        detector: str,
        short_side: int,
        side_by_side: bool,
        clip_model: str,
    ) -> tuple[str, str, gr.Dropdown]:
        """What there is to say of the models, clips that they know, and the list of sizes where they are a choice."""
        two = side_by_side and model != baseline
        job = checked(make_job, self.registry, task, model, baseline, detector, short_side, two, clip_model)
        chosen, bundled = job.models, any(spec.bundled for spec in job.models)
        return about(chosen), self.gallery.shown(garments=bundled), gr.Dropdown(visible=not bundled)

    def start(self, request: gr.Request) -> tuple[gr.Button, gr.Button]:
        """The visitor wants a run, whatever became of the one before; now it can be cancelled."""
        self._cancelled.discard(request.session_hash)
        return gr.Button(interactive=False), gr.Button(interactive=True)

    def load(
        self,
        path: str | None,
        task: str,
        model: str,
        baseline: str,
        detector: str,
        short_side: int,
        side_by_side: bool,
        clip_model: str,
        request: gr.Request,
    ) -> Iterator[str]:
        """Bring the models into memory, with notices on the progress; at the end, why some predict nothing."""
        job = checked(make_job, self.registry, task, model, baseline, detector, short_side, side_by_side, clip_model)
        if path is None:
            yield notice(CHOOSE_FIRST, "warning")
            return
        if request.session_hash in self._cancelled:
            yield stopped()
            return
        yield from load_models(self.store, job.models, retry=True)
        yield weights_notice(self.store, job)

    def process(
        self,
        path: str | None,
        task: str,
        model: str,
        baseline: str,
        detector: str,
        short_side: int,
        side_by_side: bool,
        clip_model: str,
        request: gr.Request,
    ) -> Iterator[Shown]:
        """A clip under way, drawn anew several times a second, and at the end the new clip."""
        job = checked(make_job, self.registry, task, model, baseline, detector, short_side, side_by_side, clip_model)
        if path is None:
            yield (gr.skip(),) * OUTPUTS
            return
        try:
            yield from self._run(path, job, request.session_hash)
        finally:
            self._cancelled.discard(request.session_hash)

    def _run(self, path: str, job: ClipJob, session: str | None) -> Iterator[Shown]:
        if session in self._cancelled:  # while it waited for its turn
            yield stopped(), EMPTY, *_nothing()
            return
        try:
            before = weights_notice(self.store, job)
            yield before, EMPTY, *_nothing()
            with new_folder() as folder, closing(self.runtime.process_clip(path, folder, job)) as states:
                for progress in states:
                    if session in self._cancelled:
                        (folder / CLIP_NAME).unlink(missing_ok=True)  # it may just have become whole
                        break
                    if progress.done:
                        yield _finished(progress, folder, before)
                        return
                    if progress.preview is not None:
                        yield gr.skip(), live(progress, job.task), *(gr.skip(),) * (OUTPUTS - 2)
            yield before + stopped(), EMPTY, *_nothing()
        except (VideoError, OutOfMemory) as error:
            yield notice(str(error), "error"), EMPTY, *_nothing()
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            yield notice(NO_ROOM, "error"), EMPTY, *_nothing()

    def cancel(self, request: gr.Request) -> None:
        """Stop the visitor's run; it ends within one batch."""
        self._cancelled.add(request.session_hash)

    def forget(self, request: gr.Request) -> None:
        """The visitor left."""
        self._cancelled.discard(request.session_hash)


def weights_notice(store: ModelStore, job: ClipJob) -> str:
    """Why some of a job's models predict nothing, and what of them is real all the same."""
    none, missing = without_weights(store, job.models)
    regions = "" if job.task == CLASSIFY else ", and token regions"
    still = NO_PREDICTIONS.format(regions=regions)
    notices = ""
    if none:
        notices += notice(f"No predictions from {labels(none)}: {none[0].problem}", "info", still)
    if missing:
        reason = f"No predictions from {labels(missing)}: {missing[0].problem}"
        notices += notice(reason, "warning", f"{missing[0].next_step} {still}")
    return notices


def checked(make: Callable[..., ClipJob], *chosen: Any) -> ClipJob:
    """What a visitor chose, made a job.

    Raises:
        gr.Error: not on offer.
    """
    try:
        return make(*chosen)
    except (UnknownModel, BadSize, BadChoice) as error:
        raise gr.Error(str(error), print_exception=False) from error


def _finished(progress: Progress, folder: Path, before: str) -> Shown:
    clip, records = str(folder / CLIP_NAME), str(folder / RECORDS_NAME)
    return (
        before + notice(progress.note, "warning"),
        "",
        clip,
        finished(progress),
        gr.DownloadButton(value=clip, interactive=True),
        gr.DownloadButton(value=records, interactive=True),
    )


def _nothing() -> Shown:
    """No clip, no times, nothing to download."""
    return None, "", no_file(), no_file()


@contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a new clip among those that the page empties; without a whole clip in it, it goes at the end."""
    uploads = Path(get_upload_folder())
    uploads.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="clip-", dir=uploads))
    try:
        yield folder
    finally:
        if not (folder / CLIP_NAME).exists():
            shutil.rmtree(folder, ignore_errors=True)
