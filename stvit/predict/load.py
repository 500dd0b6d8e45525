"""Networks for the shell's commands: a registered name, a checkpoint or a model card -> a network on its device."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from timm.models import model_entrypoint
from torch import nn

from stvit.checkpoint import CheckpointError, load_checkpoint
from stvit.class_names import ADE20K_CLASSES, COCO_CLASSES
from stvit.detection import detector
from stvit.errors import UserError
from stvit.factory import create_model
from stvit.layers.attention import wake_layer_scale
from stvit.models import stvit_video_swin, video_swin
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.model_cards import ModelCard
from stvit.pretrained.records import record
from stvit.pretrained.resolve import resolve_card
from stvit.pretrained.scope import ScopeRow
from stvit.segmentation import upernet

from .classifier import imagenet_classes
from .device import best_precision
from .engines import ENGINES

Kind = Literal["classify", "detect", "segment", "video"]
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
ELSEWHERE = "Name a file with --checkpoint, or give --random-weights to see regions, speed and cost alone."
MODULES: dict[str, Kind] = {
    detector.__name__: "detect",
    upernet.__name__: "segment",
    video_swin.__name__: "video",
    stvit_video_swin.__name__: "video",
}
CLASSES: dict[Kind, Sequence[str]] = {"detect": COCO_CLASSES, "segment": ADE20K_CLASSES}


class NoWeights(UserError):
    """The published weights of a model cannot be loaded."""


class BadClasses(UserError):
    """The names of the classes do not fit the model."""


@dataclass(frozen=True)
class Source:
    """A model that somebody asked for.

    Attributes:
        name: registered name.
        checkpoint: its weights; ``None`` for the published ones, or those beside its card.
        card: of a trained model.
        use_ema: which weights of a checkpoint with averaged ones, see :func:`stvit.checkpoint.read_checkpoint`.
    """

    name: str
    checkpoint: Path | None = None
    card: ModelCard | None = None
    use_ema: bool | None = None

    @property
    def label(self) -> str:
        """What it is called in the output."""
        return self.card.name if self.card else self.name

    @property
    def scope(self) -> ScopeRow | None:
        """What tells pictures of its classes from others; ``None`` where it cannot, or has other weights than its
        card's."""
        return self.card.scope if self.card and not self.checkpoint else None

    @property
    def kind(self) -> Kind:
        """What the registered model does."""
        return MODULES.get(model_entrypoint(self.name).__module__, "classify")


def load_network(
    source: Source, device: torch.device, precision: torch.dtype | None = None, *, random: bool = False
) -> nn.Module:
    """Build a network with its weights, in evaluation mode.

    Args:
        precision: by default the device's fastest.
        random: leave out all weights.

    Raises:
        NoWeights, WeightsUnavailable, CheckpointError: the weights are missing, not those expected, or do not fit.
        ModelCardError: the options in the card do not fit the model.
    """
    if source.card:
        network = source.card.build()
        if not random:
            load_checkpoint(network, source.checkpoint or resolve_card(source.card).path, source.use_ema)
    else:
        network = _published(source, None if random else source.checkpoint, pretrained=not random)
    if random:
        wake_layer_scale(network)
    return network.to(device, precision or best_precision(device)).requires_grad_(False)


def add_ema_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a command ``--use-ema`` and ``--no-ema``; ``use_ema`` is ``None`` without either."""
    ema = parser.add_mutually_exclusive_group()
    ema.add_argument("--use-ema", action="store_true", default=None, help="averaged weights of --checkpoint")
    ema.add_argument("--no-ema", dest="use_ema", action="store_false", help="the others, where it holds both")


def add_engine_argument(parser: argparse.ArgumentParser, default: str, choices: Sequence[str] = ENGINES) -> None:
    """Give a command ``--engine``; ``engine`` is ``None`` without it.

    Args:
        default: which engine that stands for, in words.
    """
    what = (
        "what runs the network. auto goes on in eager while a graph is made and measured; any other is made before the "
        f"first answer, which takes up to a minute once for a model and an input size (default: {default})"
    )
    parser.add_argument("--engine", choices=choices, help=what)


def _published(source: Source, checkpoint: Path | None, pretrained: bool) -> nn.Module:
    """The network with the weights of a file, else with the published ones if they are wanted."""
    try:
        return create_model(
            source.name, checkpoint, pretrained=pretrained and checkpoint is None, use_ema=source.use_ema
        )
    except CheckpointError:
        raise
    except WeightsUnavailable as error:
        step = "" if error.reason in ("unpublished", "by hand") else f"{error.next_step} "  # of these, for Python
        raise NoWeights(error.problem, step + ELSEWHERE) from error
    except (RuntimeError, ValueError, OSError) as error:  # timm's own download, and models without published weights
        raise NoWeights(f"The published weights of {source.name} cannot be loaded ({error}).", ELSEWHERE) from error


def classes_of(source: Source, network: nn.Module) -> Sequence[str]:
    """The names of a model's classes: those of its card, else those of the data that its published weights saw.

    Raises:
        BadClasses: they are not as many as the network has.
    """
    names = source.card.classes if source.card else CLASSES.get(source.kind) or imagenet_classes()
    if len(names) != network.num_classes:
        problem = f"The model has {network.num_classes} classes, but there are {len(names)} names."
        step = f"Correct {source.card.name}.json." if source.card else "Name its card, which holds them, with --record."
        raise BadClasses(problem, step)
    return names


def test_scale(source: Source) -> tuple[int, int]:
    """The longest and the shortest side of a detector's or segmenter's input, pixels: as its card says, or as the
    published ones were tested."""
    if source.card and source.card.scale:
        return source.card.scale
    long, short = record(source.name).test_scale or upernet.TEST_SCALE  # segmenters' records name none
    side = source.card.input_size if source.card else short
    return round(side * long / short), side
