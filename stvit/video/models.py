"""The models that ``python -m stvit.video`` runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stvit.checkpoint import CheckpointError
from stvit.class_names import KINETICS400_CLASSES
from stvit.factory import create_model
from stvit.layers.attention import wake_layer_scale
from stvit.measure.timing import best_precision

from .arguments import PRECISIONS, Side
from .classify import Classifier
from .clip_classifier import ActionClassifier, Sampling
from .detect import Detector
from .model_card import BadDescription, Description
from .types import Model

PUBLISHED_SCALE = (1333, 800)


class NoWeights(ValueError):
    """The weights of a model cannot be had; the message is for the user."""


class BadClasses(ValueError):
    """The names do not fit the model; the message is for the user."""


def build_models(options: argparse.Namespace) -> list[Model]:
    """The model, and the baseline if there is one.

    Raises:
        NoWeights, CheckpointError: there are no weights, or they are no safe file or do not fit.
        BadClasses: the names do not fit the model.
        BadDescription: its options do not.
    """
    return [_build(options, side) for side in options.sides]


def _build(options: argparse.Namespace, side: Side) -> Model:
    """One model, on its device and in its precision."""
    network, described = _load(side, options.random_weights), side.description
    device = torch.device(options.device)
    precision = PRECISIONS[options.precision] if options.precision else best_precision(device)
    network = network.to(device, precision).requires_grad_(False)
    common: dict[str, Any] = {"predicts": not options.random_weights}
    if described or options.task == "action":
        common["classes"] = _class_names(described, options.classes, network)
    label = described.name if described else side.name
    if options.task == "detect":
        return Detector(network, label, scale=_scale(options, described), **common)
    if options.task == "action":
        return ActionClassifier(network, label, sampling=_sampling(options, described), **common)
    if described:  # such models learn from whole pictures
        common |= {"input_size": described.input_size, "crop_pct": 1.0}
    return Classifier(network, label, regions=options.task == "clusters", batch_size=options.batch_size, **common)


def _load(side: Side, random: bool) -> nn.Module:
    """The network with its weights."""
    described = side.description
    checkpoint = None if random else side.checkpoint or (described and described.weights)
    try:
        network = create_model(
            side.name,
            checkpoint,
            pretrained=not random and checkpoint is None,
            **(described.options if described else {}),
        )
    except CheckpointError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError, OSError) as error:  # timm's, and the Hub's client's
        if described:
            raise BadDescription(
                f"{side.name} cannot be made with the options in {described.name}.json ({error}). Correct them there."
            ) from error
        raise NoWeights(
            f"The published weights of {side.name} cannot be had ({error}). Name a file with --checkpoint, or give "
            "--random-weights to see regions, speed and cost alone."
        ) from error
    if random:
        wake_layer_scale(network)
    return network


def _class_names(described: Description | None, file: Path | None, network: nn.Module) -> tuple[str, ...]:
    """The names of a network's classes; without a description, those of a clip model."""
    names = described.classes if described else _names_in(file)
    if len(names) != network.num_classes:
        advice = f"Correct {described.name}.json" if described else "Name a file with one on each line by --classes"
        raise BadClasses(f"The model has {network.num_classes} classes, but there are {len(names)} names. {advice}.")
    return names


def _names_in(file: Path | None) -> tuple[str, ...]:
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines()) if file else KINETICS400_CLASSES
    except (OSError, UnicodeDecodeError) as error:
        raise BadClasses(
            f"The names in {file} cannot be read ({error}). Give a text file with one name a line."
        ) from error


def _scale(options: argparse.Namespace, described: Description | None) -> tuple[int, int]:
    """Bounds of the long and the short side of a detector's input."""
    long, short = PUBLISHED_SCALE
    side = described.input_size if described else short
    return tuple(options.scale) if options.scale else (round(side * long / short), side)


def _sampling(options: argparse.Namespace, described: Description | None) -> Sampling:
    """The windows of a clip model."""
    if options.window:
        return Sampling(*options.window)
    return Sampling(described.frames, described.stride, described.input_size) if described else Sampling()
