"""Model cards: a trained model is ``NAME.safetensors`` and, beside it, its card ``NAME.json``."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import is_model
from torch import nn

from stvit.checkpoint import load_checkpoint
from stvit.errors import UserError
from stvit.factory import create_model

from .resolve import resolve_card, sha256_of
from .scope import ScopeRow

CardTask = Literal["classify", "detect", "segment", "video"]
Names = Annotated[tuple[str, ...], Field(min_length=1)]

WEIGHT_OPTIONS = ("checkpoint", "pretrained")  # beginnings of timm's options that take weights from elsewhere


class ModelCardError(UserError):
    """A model card cannot be read, or does not describe a model that can be built."""


class ModelCard(BaseModel):
    """A trained model: how to build it, prepare its input and name its outputs. Other entries are left aside.

    Attributes:
        model: registered name.
        options: arguments of the model.
        task: what it does.
        classes: in the order of its outputs; of a segmenter, background first.
        input_size: side of its square input, or shorter side of a detector's, pixels.
        crop_pct: share of a picture's shorter side that it sees.
        interpolation, mean, std: of a classifier's input, see :class:`stvit.predict.preprocess.Preprocessing`; by
            default as ``stvit.training`` prepares pictures.
        scale: of a detector or segmenter, bounds of the long and the short side of its input, pixels.
        frames, stride: of a clip model, frames of its input, and frames of the clip from one to the next.
        sha256: of the weights.
        scope: of a classifier, what tells pictures of its classes from others.
        name: of card and weights, without suffix; that of the file if left out.
        path: the weights beside the card; set by :func:`read_card`, never read from it.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    model: str
    options: dict[str, Any]
    task: CardTask
    classes: Names
    input_size: PositiveInt
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    interpolation: Literal["bicubic", "bilinear"] = "bicubic"
    mean: tuple[float, float, float] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, float, float] = IMAGENET_DEFAULT_STD
    scale: tuple[PositiveInt, PositiveInt] | None = None
    frames: PositiveInt | None = None
    stride: PositiveInt | None = None
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    scope: ScopeRow | None = None
    name: str = ""
    path: Path = Field(default=Path(), exclude=True, repr=False)

    @field_validator("model")
    @classmethod
    def _is_registered(cls, model: str) -> str:
        if not is_model(model):
            raise ValueError("no such model is registered")
        return model

    @field_validator("options")
    @classmethod
    def _name_no_weights(cls, options: dict[str, Any]) -> dict[str, Any]:
        if any(name.startswith(WEIGHT_OPTIONS) for name in options):
            raise ValueError("weights are not named here but lie beside the card")
        return options

    @model_validator(mode="after")
    def _clips_have_a_length(self) -> ModelCard:
        if self.task == "video" and None in (self.frames, self.stride):
            raise ValueError("frames or stride of clips is missing")
        return self

    def build(self) -> nn.Module:
        """The model in evaluation mode, without its weights; its ``pretrained_cfg`` holds the card's preprocessing.

        Raises:
            ModelCardError: the options do not fit the model.
        """
        seen: dict[str, Any] = {"input_size": (3, self.input_size, self.input_size), "crop_pct": self.crop_pct}
        if self.task == "classify":  # whatever the published weights saw
            seen |= {"mean": self.mean, "std": self.std, "interpolation": self.interpolation}
        try:
            return create_model(self.model, pretrained_cfg_overlay=seen, **self.options)
        except (AssertionError, KeyError, RuntimeError, TypeError, ValueError) as error:  # what networks and timm raise
            raise ModelCardError(
                f"{self.model} cannot be made with the options in {self.name}.json ({error}).", "Correct them there."
            ) from error


def _as_lines(value: object) -> object:
    """One command may be a text alone."""
    return (value,) if isinstance(value, str) else tuple(value) if isinstance(value, list) else value


class BundledCard(ModelCard):
    """A model that this project trained and ships, with where it comes from and what it reaches.

    Attributes:
        metrics: measured by this project on the split, percent: e.g. ``top1``, or ``box_ap`` and ``mask_ap``.
        metrics_split: name of the split, and the number of its samples.
        macs: multiply-adds for one input.
        data: what it was trained on, one sentence.
        seed, recipe: of the training.
        command: shell commands that trained it, in their order.
        trained_on: the hardware, in words.
        licence: of the weights.
        epochs, samples_seen: of the last run, and of all runs that led to it, where that is known.
    """

    metrics: dict[str, float]
    metrics_split: tuple[str, NonNegativeInt]
    macs: NonNegativeInt
    data: str
    seed: NonNegativeInt
    recipe: str
    command: Annotated[Names, BeforeValidator(_as_lines)]
    trained_on: str
    licence: str
    epochs: PositiveFloat | None = None
    samples_seen: PositiveInt | None = None

    @property
    def split(self) -> str:
        """Name of the split of ``metrics``."""
        return self.metrics_split[0]

    @property
    def num_samples(self) -> int:
        """Number of samples in the split."""
        return self.metrics_split[1]


Card = TypeVar("Card", bound=ModelCard)


def read_card(path: str | PathLike[str], kind: type[Card] = ModelCard) -> Card:
    """Read ``NAME.json``; the weights are ``NAME.safetensors`` beside it.

    Raises:
        ModelCardError: it cannot be read, or an entry is missing or is not what it has to be.
    """
    path = Path(path)
    wrong = f"{path} does not describe a trained model"
    advice = f"Its entries are those of {kind.__module__}.{kind.__name__}."
    try:
        card = kind.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        reason = _named(error) if isinstance(error, ValidationError) else error.strerror
        raise ModelCardError(f"{wrong}: {reason}.", advice) from error
    if card.name not in ("", path.stem):
        raise ModelCardError(f"{wrong}: name is {card.name!r}, not that of the file.", advice)
    return card.model_copy(update={"name": path.stem, "path": path.with_suffix(".safetensors")})


def write_card(weights: Path, entries: Mapping[str, Any], kind: type[Card] = ModelCard) -> Card:
    """Write the card ``NAME.json`` of the weights ``NAME.safetensors`` beside them, whole or not at all.

    Args:
        weights: the finished file; the card gets its sha256.
        entries: those of ``kind``, as plain data.

    Raises:
        ModelCardError: the entries do not describe a model; nothing is written.
    """
    path = weights.with_suffix(".json")
    partial = path.with_name(f"{path.name}.partial")
    try:
        text = json.dumps({**entries, "sha256": sha256_of(weights)}, indent=1) + "\n"
        kind.model_validate_json(text)
    except (TypeError, ValidationError) as error:
        reason = _named(error) if isinstance(error, ValidationError) else str(error)
        raise ModelCardError(f"{weights} cannot be described by a card: {reason}.", "Describe it yourself.") from error
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return read_card(path, kind)


def numbered_classes(count: int) -> tuple[str, ...]:
    """Names of classes that have none: ``"class 0"``, ``"class 1"``, ..."""
    return tuple(f"class {number}" for number in range(count))


def load_card(path: str | PathLike[str], **options: Any) -> tuple[nn.Module, ModelCard]:
    """A trained model with its verified weights, in evaluation mode, and its card.

    Args:
        path: of the card.
        options: of the model, in the place of the card's.

    Raises:
        ModelCardError: the card is wrong, or its options do not fit the model.
        WeightsUnavailable: the weights are missing, or not those that the card describes.
        CheckpointError: they do not fit the model.
    """
    card = read_card(path)
    if options:
        card = card.model_copy(update={"options": card.options | options})
    network = card.build()
    load_checkpoint(network, resolve_card(card).path)
    return network, card


class BundledModels(Mapping[str, BundledCard]):
    """The cards in a folder by name, in alphabetical order, read at the first use.

    Raises (from every use until they are mended):
        ModelCardError: a card is damaged or incomplete.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> BundledCard:
        return self._cards[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._cards)

    def __len__(self) -> int:
        return len(self._cards)

    def of_task(self, task: CardTask) -> tuple[BundledCard, ...]:
        """The models for one task."""
        return tuple(card for card in self.values() if card.task == task)

    @cached_property
    def _cards(self) -> dict[str, BundledCard]:
        return {path.stem: read_card(path, BundledCard) for path in sorted(self.folder.glob("*.json"))}


def _named(error: ValidationError, shown: int = 3) -> str:
    """The first wrong entries, each with what is wrong with it."""
    problems = []
    for each in error.errors(include_url=False)[:shown]:
        entry = ".".join(map(str, each["loc"]))
        reason = re.sub("^(Input|String|Tuple) should", "it should", each["msg"].removeprefix("Value error, "))
        if each["type"] == "missing":
            reason = f"{entry} is missing"
        elif entry:
            reason = f"{entry} is {each['input']!r:.60}: {reason}"
        problems.append(reason)
    return "; ".join(problems)
