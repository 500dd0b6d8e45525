"""Options of ``python -m stvit.video``, checked before anything is loaded, and the models that they name."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path

import torch
from timm.models import is_model
from torch import nn

from stvit.class_names import KINETICS400_CLASSES
from stvit.predict.classifier import Classifier, imagenet_classes
from stvit.predict.clips import ClipClassifier, Sampling
from stvit.predict.detector import Detector
from stvit.predict.load import (
    PRECISIONS,
    BadClasses,
    Source,
    add_ema_arguments,
    add_engine_argument,
    classes_of,
    load_network,
    test_scale,
)
from stvit.pretrained.model_cards import ModelCard, ModelCardError, read_card
from stvit.shell import positive, unknown_model

from .frame_models import FrameClassifier, FrameDetector, WindowClassifier
from .types import Model

MODELS = {
    "classify": "stvit_r_swin_small_224",
    "clusters": "stvit_r_swin_small_224",
    "detect": "stvit_r_swin_small_cascade_mask_rcnn",
    "action": "stvit_video_swin_tiny",
}
KINDS = {"classify": "classify", "clusters": "classify", "detect": "detect", "action": "video"}
VIEWS = {"1x1": (1, 1), "4x3": (4, 3)}


def parse(arguments: list[str] | None, description: str, engine: str = "auto") -> argparse.Namespace:
    """Parse the options and add ``sides``: the model and, if there is one, the baseline. Exits with a message where
    they do not fit.

    Args:
        engine: that runs a single model where none is named.
    """
    parser = _parser(description)
    options = parser.parse_args(arguments)
    if options.task is None:
        tasks = {kind: task for task, kind in reversed(KINDS.items())}
        options.task = tasks.get(options.record.task, "classify") if options.record else "classify"
    model = options.model or (None if options.record else MODELS[options.task])
    sides = [(model, options.checkpoint, options.record)]
    if options.baseline or options.baseline_record:
        sides.append((options.baseline, options.baseline_checkpoint, options.baseline_record))
    options.sides = [
        Source(name or record.model, checkpoint, record, options.use_ema if checkpoint else None)
        for name, checkpoint, record in sides
    ]
    options.engine = options.engine or ("eager" if len(sides) > 1 else engine)
    problem = next(_problems(options), None)
    if problem:
        parser.error(problem)
    return options


def _parser(description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.video", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("source", type=Path, metavar="IN", help="the clip")
    add("target", type=Path, metavar="OUT", help="the new clip, an .mp4")
    add("--task", choices=MODELS, help="(default: that of --record, or classify)")
    which, weights, other = (parser.add_mutually_exclusive_group() for _ in range(3))
    which.add_argument("--model", metavar="NAME", help="a registered model (default: STViT-R-Swin-S)")
    which.add_argument("--record", type=_card, metavar="FILE", help="a trained model by its card, a .json")
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="its weights (default: the published ones)")
    weights.add_argument("--random-weights", action="store_true", help="no weights, so no predictions")
    other.add_argument("--baseline", metavar="NAME", help="a model beside it, each at its real pace")
    other.add_argument("--baseline-record", type=_card, metavar="FILE", help="likewise a trained one")
    add("--baseline-checkpoint", type=Path, metavar="FILE")
    add_ema_arguments(parser)
    add("--records", type=Path, metavar="FILE", help="results on each frame, as JSON lines")
    add("--scale", type=int, nargs=2, metavar=("LONG", "SHORT"), help="of a detector (default: as it was trained)")
    add("--proposals", type=positive, metavar="N", help="regions that a detector's heads look at (default: its own)")
    add(
        "--window",
        type=int,
        nargs=3,
        metavar=("FRAMES", "INTERVAL", "SIZE"),
        help="of a clip model: frames, frames of the clip from one to the next, side in pixels (default: as trained)",
    )
    add("--classes", type=Path, metavar="FILE", help="a clip model's (default: Kinetics-400), one a line")
    add("--views", choices=VIEWS, help="classify the whole clip by clips x crops, too (action only)")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    add("--precision", choices=PRECISIONS, help="(default: the device's fastest)")
    add_engine_argument(parser, "auto for one model, eager beside a baseline and to measure")
    add("--batch-size", type=int, metavar="N", help="of a classifier (default: what suits the device)")
    add("--max-seconds", type=float, default=3600.0, help="longest clip (%(default)s)")
    add("--max-megabytes", type=int, default=4096, help="largest file (%(default)s)")
    return parser


def _card(path: str) -> ModelCard:
    try:
        return read_card(path)
    except ModelCardError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _problems(options: argparse.Namespace) -> Iterator[str]:
    """Yield what is wrong, a sentence each, with what to do."""
    yield from _of_files(options)
    yield from _of_models(options)
    yield from _of_numbers(options)


def _of_files(options: argparse.Namespace) -> Iterator[str]:
    if not options.source.is_file():
        yield f"IN has to be a clip: {options.source} is {'a folder' if options.source.is_dir() else 'not there'}"
    if not os.access(options.source, os.R_OK):
        yield f"{options.source} cannot be read: change its permissions, or copy it"
    if options.target.suffix.lower() != ".mp4":
        yield f"the new clip is an MP4: give it a name that ends in .mp4, not {options.target.name}"
    named = {"IN": options.source, "OUT": options.target, "--records": options.records}
    named = {name: path for name, path in named.items() if path}
    for (first, path), (second, other) in combinations(named.items(), 2):
        if path.resolve() == other.resolve():
            yield f"{first} and {second} are the same file, {path}: give {second} another name"
    for name, path in list(named.items())[1:]:
        if not path.parent.is_dir():
            yield f"{name} cannot be written: there is no folder {path.parent}; make it first"
        if path.is_dir():
            yield f"{name} cannot be written: {path} is a folder; add the name of a file"
        if not os.access(path.parent, os.W_OK | os.X_OK):
            yield f"{name} cannot be written: the folder {path.parent} is read-only; name another"


def _of_models(options: argparse.Namespace) -> Iterator[str]:
    for side in options.sides:
        if not is_model(side.name):
            yield unknown_model(side.name)
        wanted, has = KINDS[options.task], side.card.task if side.card else side.kind
        if side.kind != has:
            yield f"the card says that {side.name} is for {has}, but it is for {side.kind}: correct its task"
        if has != wanted:
            tasks = [task for task, kind in KINDS.items() if kind == has]
            fitting = f"its --task is {' or '.join(tasks)}" if tasks else "no --task here runs it"
            yield f"{side.name} is no model for --task {options.task}: {fitting}"
    if options.engine == "auto" and len(options.sides) > 1:
        yield "two models are compared under the same engine: name it with --engine, not auto"
    if options.baseline_checkpoint and len(options.sides) == 1:
        yield "--baseline-checkpoint is of a baseline: name that with --baseline or --baseline-record"
    if options.baseline_checkpoint and options.random_weights:
        yield "--random-weights leaves out all weights: give it without --baseline-checkpoint"
    if options.use_ema is not None and not (options.checkpoint or options.baseline_checkpoint):
        yield "--use-ema and --no-ema choose among the weights of a file: name it with --checkpoint"
    if options.classes and (options.task != "action" or all(side.card for side in options.sides)):
        yield "--classes names what a clip model without a card knows; others' names stand in their --record"
    if options.views and (options.task != "action" or options.random_weights):
        yield "--views is for clip models with weights: add --task action"
    if options.proposals and options.task != "detect":
        yield "--proposals is of a detector: add --task detect"
    if options.device == "cuda" and not torch.cuda.is_available():
        yield "no CUDA device is available: add --device cpu"


def _of_numbers(options: argparse.Namespace) -> Iterator[str]:
    if min(options.window or [1]) < 1:
        yield "--window takes three numbers from 1 on"
    if min(options.scale or [1]) < 1:
        yield "--scale takes two numbers from 1 on"
    if options.batch_size is not None and options.batch_size < 1:
        yield f"--batch-size takes a number from 1 on, not {options.batch_size}"
    if not options.max_seconds > 0 or options.max_megabytes < 1:
        yield "--max-seconds and --max-megabytes are limits: give them numbers above 0"


def build_models(options: argparse.Namespace) -> list[Model]:
    """Load the model, and the baseline if there is one.

    Raises:
        NoWeights, WeightsUnavailable, CheckpointError: the weights are missing, not those expected, or do not fit.
        BadClasses: the names do not fit the model.
        ModelCardError: its options do not.
    """
    return [_build(options, side) for side in options.sides]


def _build(options: argparse.Namespace, side: Source) -> Model:
    """Load one model, on its device and in its precision."""
    card, predicts = side.card, not options.random_weights
    precision = PRECISIONS[options.precision] if options.precision else None
    network = load_network(side, torch.device(options.device), precision, random=options.random_weights)
    engine = {"engine": options.engine, "wait": options.engine != "auto"}
    if options.task == "detect":
        scale = tuple(options.scale) if options.scale else test_scale(side)
        detector = Detector(network, classes=classes_of(side, network), proposals=options.proposals, **engine)
        return FrameDetector(detector, side.label, scale=scale, predicts=predicts)
    if options.task == "action":
        classes = card.classes if card else _names_in(options.classes, network)
        window = ClipClassifier(network, sampling=_sampling(options, side), classes=classes, **engine)
        return WindowClassifier(window, side.label, predicts=predicts)
    classes = classes_of(side, network) if card else imagenet_classes(all_names=False)
    regions = options.task == "clusters"
    classifier = Classifier(network, classes=classes, scope=side.scope if predicts else None, **engine)
    return FrameClassifier(classifier, side.label, predicts=predicts, regions=regions, batch_size=options.batch_size)


def _names_in(file: Path | None, network: nn.Module) -> tuple[str, ...]:
    """Return the names of a clip model's classes, from a file or those of Kinetics-400.

    Raises:
        BadClasses: it cannot be read, or the names do not fit the model.
    """
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines()) if file else KINETICS400_CLASSES
    except (OSError, UnicodeDecodeError) as error:
        problem = f"The names in {file} cannot be read ({error})."
        raise BadClasses(problem, "Give a text file with one name a line.") from error
    if len(names) != network.num_classes:
        problem = f"The model has {network.num_classes} classes, but there are {len(names)} names."
        raise BadClasses(problem, "Name a file with one on each line by --classes.")
    return names


def _sampling(options: argparse.Namespace, side: Source) -> Sampling:
    """Return the windows of a clip model."""
    if options.window:
        return Sampling(*options.window)
    return Sampling(side.card.frames, side.card.stride, side.card.input_size) if side.card else Sampling()
