"""The models that ``python -m stvit.video`` runs."""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import nn

from stvit.class_names import KINETICS400_CLASSES
from stvit.predict.classifier import Classifier, imagenet_classes
from stvit.predict.clip_classifier import ClipClassifier
from stvit.predict.clip_views import Sampling
from stvit.predict.detector import Detector
from stvit.predict.load import BadClasses, Source, classes_of, load_network, test_scale

from .arguments import PRECISIONS
from .frame_models import FrameClassifier, FrameDetector, WindowClassifier
from .types import Model


def build_models(options: argparse.Namespace) -> list[Model]:
    """The model, and the baseline if there is one.

    Raises:
        NoWeights, WeightsUnavailable, CheckpointError: the weights are missing, not those expected, or do not fit.
        BadClasses: the names do not fit the model.
        ModelCardError: its options do not.
    """
    return [_build(options, side) for side in options.sides]


def _build(options: argparse.Namespace, side: Source) -> Model:
    """One model, on its device and in its precision."""
    card, predicts = side.card, not options.random_weights
    precision = PRECISIONS[options.precision] if options.precision else None
    network = load_network(side, torch.device(options.device), precision, random=options.random_weights)
    if options.task == "detect":
        scale = tuple(options.scale) if options.scale else test_scale(side)
        return FrameDetector(
            Detector(network, classes=classes_of(side, network)), side.label, scale=scale, predicts=predicts
        )
    if options.task == "action":
        classes = card.classes if card else _names_in(options.classes, network)
        window = ClipClassifier(network, sampling=_sampling(options, side), classes=classes)
        return WindowClassifier(window, side.label, predicts=predicts)
    classes = classes_of(side, network) if card else imagenet_classes(all_names=False)
    regions = options.task == "clusters"
    classifier = Classifier(network, classes=classes)
    return FrameClassifier(classifier, side.label, predicts=predicts, regions=regions, batch_size=options.batch_size)


def _names_in(file: Path | None, network: nn.Module) -> tuple[str, ...]:
    """The names of a clip model's classes, from a file where there is one.

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
    """The windows of a clip model."""
    if options.window:
        return Sampling(*options.window)
    return Sampling(side.card.frames, side.card.stride, side.card.input_size) if side.card else Sampling()
