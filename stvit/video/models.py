"""The models that ``python -m stvit.video`` runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stvit.checkpoint import CheckpointError, load_checkpoint
from stvit.class_names import KINETICS400_CLASSES
from stvit.errors import UserError
from stvit.factory import create_model
from stvit.layers.attention import wake_layer_scale
from stvit.measure.timing import best_precision
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.model_cards import ModelCard
from stvit.pretrained.records import record
from stvit.pretrained.resolve import resolve_card

from .arguments import PRECISIONS, Side
from .classify import Classifier
from .clip_classifier import ActionClassifier, Sampling
from .detect import Detector
from .types import Model

ELSEWHERE = "Name a file with --checkpoint, or give --random-weights to see regions, speed and cost alone."


class NoWeights(UserError):
    """The published weights of a model cannot be loaded."""


class BadClasses(UserError):
    """The names of the classes do not fit the model."""


def build_models(options: argparse.Namespace) -> list[Model]:
    """The model, and the baseline if there is one.

    Raises:
        NoWeights, WeightsUnavailable, CheckpointError: the weights are missing, not those expected, or do not fit.
        BadClasses: the names do not fit the model.
        ModelCardError: its options do not.
    """
    return [_build(options, side) for side in options.sides]


def _build(options: argparse.Namespace, side: Side) -> Model:
    """One model, on its device and in its precision."""
    network, card = _load(side, options.random_weights), side.card
    device = torch.device(options.device)
    precision = PRECISIONS[options.precision] if options.precision else best_precision(device)
    network = network.to(device, precision).requires_grad_(False)
    common: dict[str, Any] = {"predicts": not options.random_weights}
    if card or options.task == "action":
        common["classes"] = _class_names(card, options.classes, network)
    label = card.name if card else side.name
    if options.task == "detect":
        return Detector(network, label, scale=_scale(options, side), **common)
    if options.task == "action":
        return ActionClassifier(network, label, sampling=_sampling(options, card), **common)
    return Classifier(network, label, regions=options.task == "clusters", batch_size=options.batch_size, **common)


def _load(side: Side, random: bool) -> nn.Module:
    """The network with its weights."""
    if side.card:
        network = side.card.build()
        if not random:
            load_checkpoint(network, side.checkpoint or resolve_card(side.card).path)
    else:
        network = _published(side.name, None if random else side.checkpoint, pretrained=not random)
    if random:
        wake_layer_scale(network)
    return network


def _published(name: str, checkpoint: Path | None, pretrained: bool) -> nn.Module:
    """The network with the weights of a file, else with the published ones if they are wanted."""
    try:
        return create_model(name, checkpoint, pretrained=pretrained and checkpoint is None)
    except CheckpointError:
        raise
    except WeightsUnavailable as error:
        raise NoWeights(error.problem, f"{error.next_step} {ELSEWHERE}") from error
    except (RuntimeError, OSError) as error:  # timm's own download, of weights that are not on the Hub
        raise NoWeights(f"The published weights of {name} cannot be loaded ({error}).", ELSEWHERE) from error


def _class_names(card: ModelCard | None, file: Path | None, network: nn.Module) -> tuple[str, ...]:
    """The names of a network's classes; without a card, those of a clip model."""
    names = card.classes if card else _names_in(file)
    if len(names) != network.num_classes:
        advice = f"Correct {card.name}.json" if card else "Name a file with one on each line by --classes"
        raise BadClasses(f"The model has {network.num_classes} classes, but there are {len(names)} names. {advice}.")
    return names


def _names_in(file: Path | None) -> tuple[str, ...]:
    try:
        return tuple(file.read_text(encoding="utf-8").splitlines()) if file else KINETICS400_CLASSES
    except (OSError, UnicodeDecodeError) as error:
        raise BadClasses(
            f"The names in {file} cannot be read ({error}). Give a text file with one name a line."
        ) from error


def _scale(options: argparse.Namespace, side: Side) -> tuple[int, int]:
    """Bounds of the long and the short side of a detector's input."""
    long, short = record(side.name).test_scale
    card_side = side.card.input_size if side.card else short
    return tuple(options.scale) if options.scale else (round(card_side * long / short), card_side)


def _sampling(options: argparse.Namespace, card: ModelCard | None) -> Sampling:
    """The windows of a clip model."""
    if options.window:
        return Sampling(*options.window)
    return Sampling(card.frames, card.stride, card.input_size) if card else Sampling()
