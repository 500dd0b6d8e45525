"""Clips through the page's models: what was chosen becomes a task of ``stvit.video``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.detection import check_short_side, input_side, scale_of
from demo.engine import Engine
from demo.registry import ModelChoice, clip_peer, find, find_any, find_clip_model, find_detector, full_token_peer
from stvit.class_names import KINETICS400_CLASSES
from stvit.video.annotate_task import Single
from stvit.video.classify import Classifier
from stvit.video.clip_classifier import ActionClassifier, Sampling
from stvit.video.detect import Detector
from stvit.video.pipeline import process
from stvit.video.progress import Progress
from stvit.video.side_by_side import Race
from stvit.video.types import Model

CLASSIFY, CLUSTERS, DETECT, ACTION = "Classify frames", "Token regions", "Detect objects", "Clip action"
TASKS = (CLASSIFY, CLUSTERS, DETECT, ACTION)
NO_BASELINE = "none"
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
    task: object,
    model: object,
    baseline: object,
    detector: object,
    short_side: object,
    side_by_side: bool,
    clip_model: object = None,
) -> ClipJob:
    """What a visitor chose, checked. The baseline of a detector or a clip model is its peer in the roster.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    if task not in TASKS:
        raise BadChoice(f"There is no task {str(task)[:40]!r}. Choose one of: {', '.join(TASKS)}.")
    if task == DETECT:
        choice = find_detector(detector)
        peer = full_token_peer(choice).name if side_by_side else None
        return ClipJob(task, choice.name, peer, check_short_side(short_side))
    if task == ACTION:
        choice = find_clip_model(clip_model)
        return ClipJob(task, choice.name, clip_peer(choice).name if side_by_side else None, 0)
    choice = find(model)
    other = find(baseline).name if side_by_side else None
    if other == choice.name:
        raise BadChoice("Both sides are the same model: choose two different ones to compare.")
    return ClipJob(task, choice.name, other, 0)


def named_job(task: object, model: object, baseline: object, short_side: object) -> ClipJob:
    """What a script asks for: the name of a model that suits the task, and perhaps that of another beside it.

    Args:
        baseline: ``NO_BASELINE`` for one model alone.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    side_by_side = baseline != NO_BASELINE
    job = make_job(task, model, baseline, model, short_side, side_by_side, model)
    if side_by_side and job.baseline != baseline:
        raise BadChoice(
            f"{job.model} is shown beside {job.baseline} alone: give that as the baseline, or {NO_BASELINE!r}."
        )
    return job


def process_clip(engine: Engine, path: str | Path, folder: str | Path, job: ClipJob) -> Iterator[Progress]:
    """Make ``CLIP_NAME`` and ``RECORDS_NAME`` in a folder; see ``stvit.video.process``.

    The device is held for one batch at a time, so that other visitors come to their turn.

    Raises:
        VideoError: the file cannot be used.
        OutOfMemory: the device has no room for a model.
    """
    models = [frame_model(engine, job, name) for name in job.names]
    task = Single(models[0]) if job.baseline is None else Race(*models)
    folder = Path(folder)
    yield from process(path, folder / CLIP_NAME, task, records=folder / RECORDS_NAME)


def frame_model(engine: Engine, job: ClipJob, name: str) -> Model:
    """One of a job's models as ``stvit.video`` uses it; the device is held for one batch at a time."""
    loaded, choice = engine.store.get(name), find_any(name)
    common = {"label": choice.label, "predicts": not loaded.problem, "compute": engine.compute}
    if job.task == ACTION:
        classes = choice.classes or KINETICS400_CLASSES
        return ActionClassifier(loaded.network, sampling=sampling_of(choice), classes=classes, **common)
    if choice.classes:
        common["classes"] = choice.classes
    if job.task == DETECT:
        return Detector(loaded.network, scale=scale_of(input_side(choice, job.short_side)), **common)
    seen = {"input_size": choice.input_size, "crop_pct": choice.crop_pct}
    return Classifier(loaded.network, regions=job.task == CLUSTERS, **seen, **common)


def sampling_of(choice: ModelChoice) -> Sampling:
    """The windows of a clip model: those that it was trained on, of the published ones the paper's."""
    record = choice.bundled
    return Sampling(record.frames, record.stride, record.input_size) if record else Sampling()


def choices_of(job: ClipJob) -> list[ModelChoice]:
    """The roster's entries of a job's models."""
    return [find_any(name) for name in job.names]
