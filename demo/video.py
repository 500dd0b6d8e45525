"""Clips through the page's models: what was chosen becomes a task of ``stvit.video``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from threading import Event

from demo.detection import check_short_side, scale_of
from demo.engine import Engine
from demo.roster import DETECTORS, EVERY_MODEL, ModelChoice, find, full_token_peer, label_of
from stvit.video import Classifier, Detector, Progress, Race, Single, process
from stvit.video.types import Model

CLASSIFY, CLUSTERS, DETECT = "Classify frames", "Token regions", "Detect objects"
TASKS = (CLASSIFY, CLUSTERS, DETECT)
CLIP_NAME, RECORDS_NAME = "stvit.mp4", "frames.jsonl"


class BadChoice(ValueError):
    """A combination that is not offered; the message is for the user."""


@dataclass(frozen=True)
class ClipJob:
    """What is to be done with a clip.

    Attributes:
        task: one of ``TASKS``.
        model: name in the roster.
        baseline: name of the model on the right, side by side; ``None`` for one model alone.
        short_side: of a detector's input, pixels.
    """

    task: str
    model: str
    baseline: str | None
    short_side: int

    @property
    def names(self) -> tuple[str, ...]:
        """The models that it needs."""
        return (self.model,) if self.baseline is None else (self.model, self.baseline)


def make_job(
    task: object, model: object, baseline: object, detector: object, short_side: object, side_by_side: bool
) -> ClipJob:
    """What a visitor chose, checked. A detector's baseline is the full-token one of its size.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    if task not in TASKS:
        raise BadChoice(f"There is no task {str(task)[:40]!r}. Choose one of: {', '.join(TASKS)}.")
    if task == DETECT:
        choice = find(detector, DETECTORS)
        peer = full_token_peer(choice).name if side_by_side else None
        return ClipJob(task, choice.name, peer, check_short_side(short_side))
    choice = find(model)
    other = find(baseline).name if side_by_side else None
    if other == choice.name:
        raise BadChoice("Both sides are the same model: choose two different ones to compare.")
    return ClipJob(task, choice.name, other, 0)


def process_clip(
    engine: Engine, path: str | Path, folder: str | Path, job: ClipJob, cancel: Event | None = None
) -> Iterator[Progress]:
    """Make ``CLIP_NAME`` and ``RECORDS_NAME`` in a folder; see ``stvit.video.process``.

    The device is held for one batch at a time, so that other visitors come to their turn.

    Raises:
        VideoError: the file cannot be used.
        Cancelled: ``cancel`` was set.
        OutOfMemory: the device has no room for a model.
    """
    models = [_model(engine, job, name) for name in job.names]
    task = Single(models[0]) if job.baseline is None else Race(*models)
    folder = Path(folder)
    yield from process(path, folder / CLIP_NAME, task, records=folder / RECORDS_NAME, cancel=cancel)


def _model(engine: Engine, job: ClipJob, name: str) -> Model:
    loaded = engine.store.get(name)
    common = {"label": label_of(name), "predicts": not loaded.problem, "guard": engine.exclusive}
    if job.task == DETECT:
        return Detector(loaded.network, scale=scale_of(job.short_side), **common)
    return Classifier(loaded.network, regions=job.task == CLUSTERS, **common)


def choices_of(job: ClipJob) -> list[ModelChoice]:
    """The roster's entries of a job's models."""
    return [find(name, EVERY_MODEL) for name in job.names]
