"""Clips through the page's models: what was chosen becomes a task of ``stvit.video``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from demo.file_names import file_stem
from demo.predictors import Predictors, check_short_side, input_side
from demo.registry import ModelSpec, Registry
from stvit.errors import UserError
from stvit.predict.clips import Sampling
from stvit.predict.detector import published_scale
from stvit.video.frame_models import FrameClassifier, FrameDetector, WindowClassifier
from stvit.video.pipeline import process
from stvit.video.tasks import AnnotateTask, SideBySideTask
from stvit.video.types import Model, Progress

CLASSIFY, CLUSTERS, DETECT, ACTION = "Classify frames", "Token regions", "Detect objects", "Clip action"
TASKS = (CLASSIFY, CLUSTERS, DETECT, ACTION)
NO_BASELINE = "none"


class BadChoice(UserError, ValueError):
    """A combination that is not offered; the message is for the user."""


@dataclass(frozen=True)
class ClipJob:
    """What is to be done with a clip.

    Attributes:
        task: one of ``TASKS``.
        model: the model, on the left side by side.
        baseline: the model on the right, side by side; ``None`` for one model alone.
        short_side: of a detector's input, pixels.
        engine: that runs them, see ``Predictors``.
    """

    task: str
    model: ModelSpec
    baseline: ModelSpec | None
    short_side: int
    engine: str | None = None

    @property
    def models(self) -> tuple[ModelSpec, ...]:
        """The models that it needs."""
        return (self.model,) if self.baseline is None else (self.model, self.baseline)

    @property
    def file_names(self) -> tuple[str, str]:
        """Names of the new clip and of its records."""
        stem = file_stem(self.models, self.task)
        return f"{stem}.mp4", f"{stem}.jsonl"


def make_job(
    registry: Registry,
    task: object,
    model: object,
    baseline: object,
    detector: object,
    short_side: object,
    side_by_side: bool,
    clip_model: object = None,
    engine: str | None = None,
) -> ClipJob:
    """What a visitor chose, checked. The baseline of a detector or a clip model is its counterpart.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    if task not in TASKS:
        raise BadChoice(f"There is no task {str(task)[:40]!r}. Choose one of: {', '.join(TASKS)}.")
    if task == DETECT:
        chosen = registry.find(detector, "detect")
        counterpart = registry.pair(chosen)[1] if side_by_side else None
        return ClipJob(task, chosen, counterpart, check_short_side(short_side), engine)
    if task == ACTION:
        chosen = registry.find(clip_model, "video")
        return ClipJob(task, chosen, registry.pair(chosen)[1] if side_by_side else None, 0, engine)
    chosen = registry.find(model, "classify")
    other = registry.find(baseline, "classify") if side_by_side else None
    if other == chosen:
        raise BadChoice("Both sides are the same model: choose two different ones to compare.")
    return ClipJob(task, chosen, other, 0, engine)


def named_job(
    registry: Registry, task: object, model: object, baseline: object, short_side: object, engine: str | None = None
) -> ClipJob:
    """What a script asks for: the name of a model that suits the task, and perhaps that of another beside it.

    Args:
        baseline: ``NO_BASELINE`` for one model alone.

    Raises:
        UnknownModel, BadSize, BadChoice: not on offer.
    """
    side_by_side = baseline != NO_BASELINE
    job = make_job(registry, task, model, baseline, model, short_side, side_by_side, model, engine)
    if side_by_side and job.baseline.name != baseline:
        raise BadChoice(
            f"{job.model.name} is shown beside {job.baseline.name} alone: "
            f"give that as the baseline, or {NO_BASELINE!r}."
        )
    return job


def process_clip(predictors: Predictors, path: str | Path, folder: str | Path, job: ClipJob) -> Iterator[Progress]:
    """Make the files of ``job.file_names`` in a folder; see ``stvit.video.process``.

    The device is held for one batch at a time, so that other visitors come to their turn.

    Raises:
        VideoError: the file cannot be used.
        OutOfMemory: the device has no room for a model.
        UnknownEngine: the job's engine is not at hand.
    """
    models = [frame_model(predictors, job, model) for model in job.models]
    task = AnnotateTask(models[0]) if job.baseline is None else SideBySideTask(*models)
    clip, records = (Path(folder) / name for name in job.file_names)
    yield from process(path, clip, task, records=records)


def frame_model(predictors: Predictors, job: ClipJob, model: ModelSpec) -> Model:
    """One of a job's models as ``stvit.video`` uses it; the device is held for one batch at a time."""
    loaded = predictors.model_cache.get(model)
    label, predicts = model.label, not loaded.problem
    if job.task == ACTION:
        clip_classifier = predictors.clip_classifier(loaded, sampling_of(model), job.engine)
        return WindowClassifier(clip_classifier, label, predicts=predicts)
    if job.task == DETECT:
        scale = published_scale(input_side(model, job.short_side))
        return FrameDetector(predictors.detector(loaded, job.engine), label, scale=scale, predicts=predicts)
    classifier = predictors.classifier(loaded, job.engine, all_names=False)
    return FrameClassifier(classifier, label, predicts=predicts, regions=job.task == CLUSTERS)


def sampling_of(model: ModelSpec) -> Sampling:
    """The windows of a clip model: those that it was trained on, of the published ones the paper's."""
    card = model.bundled
    return Sampling(card.frames, card.stride, card.input_size) if card else Sampling()
