"""What all evaluations share: arguments, the model, results that survive a kill, progress, and the report."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from timm.models import is_model
from torch import nn

from stvit.checkpoint import CheckpointError
from stvit.factory import create_model
from stvit.predict.engines import ENGINES, Engine
from stvit.predict.load import PRECISIONS, Source, add_ema_arguments, add_engine_argument
from stvit.pretrained.model_cards import (
    BundledCard,
    CardTask,
    ModelCard,
    ModelCardError,
    load_card,
    numbered_classes,
    read_card,
)
from stvit.pretrained.records import ModelRecord, record
from stvit.pretrained.resolve import sha256_of
from stvit.shell import positive, unknown_model, unwritable
from stvit.training.origin import ORIGIN_FILE, Origin

from .data import EvaluationError, first_of
from .results import Id, ResultsFile


class Benchmark(Protocol):
    """One model on one set.

    Attributes:
        origin: what the results depend on, as plain data.
        noun: of the samples, plural.
        ids: of all samples, each once.
        engine: runs the model.
    """

    origin: dict[str, Any]
    noun: str
    ids: Sequence[Id]
    engine: Engine

    def results(self, todo: Sequence[Id]) -> Iterator[tuple[Id, Any]]:
        """Run the model on samples; yields the result of each as plain data, or the EvaluationError or UserError that
        says why a sample cannot be read."""
        ...

    def metrics(self, finished: Mapping[Id, Any]) -> dict[str, Any]:
        """The figures of the samples that have results."""
        ...

    def table(self, metrics: Mapping[str, Any]) -> str:
        """The figures as text."""
        ...


@dataclass(frozen=True)
class EvaluatedModel:
    """A model with its weights, on its device and in its precision.

    Attributes:
        network: in evaluation mode.
        name: what results are filed under.
        card: of a trained model.
        class_names: in the order of the outputs, where they are known.
        origin: name, options and weights, as plain data.
        published: what its record or card says that it reaches, one line.
        engine: that runs the network.
    """

    network: Any
    name: str
    card: ModelCard | None
    class_names: tuple[str, ...] | None
    origin: dict[str, Any]
    published: str
    engine: str

    @property
    def source(self) -> Source:
        """Registered name and card."""
        return Source(self.card.model if self.card else self.name, card=self.card)


def add_common_arguments(parser: argparse.ArgumentParser, default_precision: str = "float32") -> None:
    """The arguments that every evaluation takes beside its data."""
    add = parser.add_argument
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--model", metavar="NAME", help="name of a registered model")
    which.add_argument("--record", type=Path, metavar="FILE", help="a trained model by its card, a .json")
    add("--checkpoint", type=Path, metavar="FILE", help="weights of --model (default: the published ones)")
    add_ema_arguments(parser)
    add("--option", type=key_value, action="append", default=[], metavar="KEY=VALUE", help="argument of the model")
    add("--num-classes", type=positive, metavar="N", help="classes of the checkpoint (default: the model's)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    add("--precision", default=default_precision, choices=PRECISIONS)
    add_engine_argument(parser, "eager", [name for name in ENGINES if name != "auto"])
    add("--results", "--resume", type=Path, metavar="FILE", help="results by sample (MODEL.BENCHMARK.jsonl)")
    add("--output", type=Path, metavar="FILE", help="figures as JSON (the results' name with .metrics.json)")
    add("--limit", type=positive, metavar="N", help="the first N samples alone")
    add("--skip-invalid", action="store_true", help="leave out what cannot be used")


def check_common_arguments(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Leave with a message where the common arguments do not fit; fill in the names of the files."""
    if options.model and not is_model(options.model.partition(".")[0]):
        parser.error(unknown_model(options.model))
    if options.record and (options.checkpoint or options.num_classes or options.option):
        parser.error(
            "--record names weights and classes: give it without --checkpoint and --num-classes, and without --option"
        )
    if options.use_ema is not None and not options.checkpoint:
        parser.error("--use-ema and --no-ema are of a --checkpoint")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available")
    if options.num_classes:
        options.option.append(("num_classes", options.num_classes))
    if name := options.model or (options.record and options.record.stem):
        options.results = options.results or Path(f"{name}.{options.benchmark}.jsonl")
        options.output = options.output or options.results.with_suffix(".metrics.json")
    if options.output and (problem := unwritable(options.output)):
        parser.error(f"--output {problem}")


def key_value(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``; the value is JSON where it can be, else a text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def load_model(options: argparse.Namespace, task: CardTask) -> EvaluatedModel:
    """The model that the arguments name.

    Raises:
        EvaluationError: it is of another task, or cannot be made with its options, or has no published weights.
        ModelCardError, WeightsUnavailable, CheckpointError: see :mod:`stvit.pretrained` and :mod:`stvit.checkpoint`.
    """
    if options.record:
        network, card = load_card(options.record)
        name = card.name
        origin = {"checkpoint": card.sha256, **card.model_dump(mode="json", include=IN_ORIGIN)}
    else:
        network, card, name = _registered(options), None, options.model
        origin = {"checkpoint": options.checkpoint and sha256_of(options.checkpoint), "use_ema": options.use_ema}
    found = task_of(network)
    check_task(name, card.task if card else found, found, task)
    network = network.to(options.device, PRECISIONS[options.precision]).requires_grad_(False)
    engine = options.engine or "eager"
    how = {"options": dict(options.option), "precision": options.precision, "engine": engine}
    origin = {"model": name, **how, **origin}
    class_names = card.classes if card else trained_classes(options.checkpoint)
    if class_names == numbered_classes(network.num_classes):  # numbers are no names to match
        class_names = None
    published = measured_by_card(options.record) if card else in_the_paper(record(name), network.num_classes)
    return EvaluatedModel(network, name, card, class_names, origin, published, engine)


def trained_classes(checkpoint: Path | None) -> tuple[str, ...] | None:
    """The classes that ``python -m stvit.training`` noted beside the weights of a run, if these are of one."""
    if checkpoint is None or not (checkpoint.parent / ORIGIN_FILE).is_file():
        return None
    return Origin.read(checkpoint.parent).classes or None


#: of a model card, what the results depend on
IN_ORIGIN = {"options", "classes", "input_size", "crop_pct", "scale", "frames", "stride"}
#: by task: what a model is, and the command that evaluates it
KINDS: dict[CardTask, tuple[str, str]] = {
    "classify": ("classifier of pictures", "classify"),
    "detect": ("detector", "coco"),
    "segment": ("segmenter", "segment"),
    "video": ("classifier of clips", "video"),
}


def check_task(name: str, said: CardTask, found: CardTask, wanted: CardTask) -> None:
    """
    Args:
        said: the task by the model's card.
        found: that of the network.

    Raises:
        EvaluationError: they differ, or are not the wanted one.
    """
    if said != found:
        problem = f"{name} is a {KINDS[found][0]}, but its card says that its task is {said}."
        raise EvaluationError(problem, f"Correct it to {found}.")
    if found != wanted:
        problem = f"{name} is no {KINDS[wanted][0]} but a {KINDS[found][0]}."
        raise EvaluationError(problem, f"Evaluate it by `python -m stvit.evaluate {KINDS[found][1]}`.")


def task_of(network: nn.Module) -> CardTask:
    """What a network does."""
    if getattr(network, "output_fmt", "") == "NTHWC":
        return "video"
    if hasattr(network, "auxiliary_head") and hasattr(network, "predict"):
        return "segment"
    return "detect" if hasattr(network, "predict") else "classify"


def _registered(options: argparse.Namespace) -> nn.Module:
    """The registered model with the weights of a file, else with the published ones."""
    try:
        return create_model(
            options.model,
            options.checkpoint,
            pretrained=options.checkpoint is None,
            use_ema=options.use_ema,
            **dict(options.option),
        )
    except CheckpointError:
        raise
    except (TypeError, ValueError) as error:  # what networks say of their options
        raise EvaluationError(
            f"{options.model} cannot be made with these options ({error}).", "Check --option."
        ) from error
    except (RuntimeError, OSError) as error:  # WeightsUnavailable, and what timm raises
        raise EvaluationError(
            f"The published weights of {options.model} cannot be loaded ({error}).", "Name a file with --checkpoint."
        ) from error


def in_the_paper(model: ModelRecord, num_classes: int) -> str:
    """What a model's record says that the paper has, if it is of as many classes."""
    if not model.published:
        return f"The record of {model.name} has no published figure."
    if num_classes != model.num_classes:
        return f"The paper's figures of {model.name} are for {model.num_classes} classes, not {num_classes}."
    return f"The paper has {in_words(model.published)}{f' ({model.published_note})' if model.published_note else ''}."


def measured_by_card(path: Path) -> str:
    """What a bundled model's card says that it reaches."""
    try:
        card = read_card(path, BundledCard)
    except ModelCardError:
        return "The card has no figures."
    return f"The card has {in_words(card.metrics)} on {card.split} ({card.num_samples} samples)."


FIGURES = {
    "top1": "top-1",
    "top5": "top-5",
    "gmacs": "GMACs",
    "v100_images_per_s": "images/s on a V100",
    "box_ap": "box AP",
    "mask_ap": "mask AP",
    "miou": "mIoU",
    "backbone_gmacs": "GMACs of the backbone",
}


def in_words(figures: Mapping[str, float]) -> str:
    """Figures of a record or a card, each after its name."""
    return ", ".join(f"{FIGURES.get(name, name)} {value:g}" for name, value in figures.items())


def run(benchmark: Benchmark, options: argparse.Namespace, published: str) -> bool:
    """Run what has no result yet, then print and save the figures.

    A sample that cannot be read is named and counted, never replaced; the figures are those of the others, and the same
    command tries it again.

    Returns:
        Whether the figures are of all samples, or ``--skip-invalid`` allows that they are not.

    Raises:
        EvaluationError: not one sample can be used, or the results cannot be written.
    """
    with ResultsFile(options.results, benchmark.origin) as results:
        todo = [one for one in benchmark.ids if one not in results.finished]
        progress = Progress(len(benchmark.ids) - len(todo), len(benchmark.ids), benchmark.noun)
        unusable = []
        for sample, result in benchmark.results(todo):
            if isinstance(result, Exception):
                unusable.append(str(result))
            else:
                results.append(sample, result)
            progress()
        finished = {one: results.finished[one] for one in benchmark.ids if one in results.finished}
    left_out = f"{len(unusable)} of {len(benchmark.ids)} {benchmark.noun} cannot be used: {first_of(unusable)}"
    if not finished:
        raise EvaluationError(left_out)
    metrics = benchmark.metrics(finished)
    report = {**benchmark.origin, benchmark.noun: len(finished), "unusable": unusable, **metrics}
    answered = benchmark.engine.answered
    if others := [name for name in answered if name != benchmark.origin["engine"]]:
        report["batches_answered_by"] = dict(answered)
        print(f"\n{answered[others[0]]} of {answered.total()} batches were answered by {others[0]}.", file=sys.stderr)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{benchmark.table(metrics)}\n\n{published}\nSaved in {options.output}.")
    if unusable:
        print(f"{left_out}\nThe figures are of the other {len(finished)}.", file=sys.stderr)
    return not unusable or options.skip_invalid


class Progress:
    """Counts finished samples on standard error, with the time that the rest will take."""

    def __init__(self, already: int, total: int, noun: str = "images") -> None:
        self.already, self.total, self.noun, self.done, self.start = already, total, noun, 0, time.monotonic()
        if already:
            print(f"{already} of {total} {noun} are finished already.", file=sys.stderr)

    def __call__(self) -> None:
        self.done += 1
        seconds_each = (time.monotonic() - self.start) / self.done
        finished = self.already + self.done
        left = round(seconds_each * (self.total - finished))
        text = f"{finished}/{self.total} {self.noun}, {1 / seconds_each:.2f} a second, {duration(left)} left"
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def duration(seconds: int) -> str:
    """Hours, minutes and seconds, e.g. ``1:02:03``."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
