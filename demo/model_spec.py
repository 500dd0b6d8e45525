"""What an entry of the roster is, and what entries are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from stvit.pretrained.model_cards import BundledCard
from stvit.pretrained.records import record

PAPER_TABLES = Path(__file__).resolve().parent.parent / "assets" / "paper_tables.json"
PUBLISHED_SIZES = ("tiny", "small", "base")
NARROW = "narrow"
SIZE_NAMES = {"tiny": "Tiny", "small": "Small", "base": "Base", NARROW: "Narrow, garments"}
SIZE_LETTERS = {"tiny": "T", "small": "S", "base": "B"}


class UnknownModel(ValueError):
    """A name that the page does not offer; the message is for the user."""


@dataclass(frozen=True)
class Method:
    """A group of models in the pickers.

    Attributes:
        name: what people call it, with the network that it is applied to.
        setting: what its third picker chooses.
        full_tokens: whether it keeps all image tokens.
    """

    name: str
    setting: str = "Tokens"
    full_tokens: bool = False


@dataclass(frozen=True)
class ModelChoice:
    """One model that can be chosen.

    Attributes:
        name: stable key, the registered name and the options, e.g. ``"evit_deit_small_patch16_224:keep_rate=0.7"``; of
            a bundled model, the name of its record.
        label: what people call the model.
        about: one line for the page and the API.
        method: name of a :class:`Method`.
        size: key of ``SIZE_NAMES``.
        setting: its entry in the third picker.
        model: registered name.
        options: arguments of the model.
        weights: name of its record in the catalogue of weights; ``None`` where there is none to be had.
        no_weights: why there is none, one sentence.
        published: the papers' figures, some of ``top1`` (%), ``gmacs``, ``throughput`` (images/s, V100, batch 128),
            ``box_ap`` and ``mask_ap`` (%, COCO), ``backbone_gmacs`` (at 800x1333).
        bundled: its record, where this project trained it and ships its weights.
    """

    name: str
    label: str
    about: str
    method: str
    size: str
    setting: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    weights: str | None = None
    no_weights: str = ""
    published: Mapping[str, float] = field(default_factory=dict)
    bundled: BundledCard | None = None

    @property
    def has_weights(self) -> bool:
        """Whether there are weights for it, here or on the Hub."""
        return self.weights is not None or self.bundled is not None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """What it knows; ``None`` stands for the names of ImageNet, of a detector for those of COCO."""
        return self.bundled.classes if self.bundled else None

    @property
    def input_size(self) -> int:
        """Side of a classifier's input, pixels."""
        return self.bundled.input_size if self.bundled else record(self.model).input_size[-1]

    @property
    def crop_pct(self) -> float:
        """Share of a picture's shorter side that a classifier sees."""
        return (self.bundled or record(self.model)).crop_pct


@cache
def paper_tables() -> dict[str, Any]:
    """The tables of the papers, from ``assets/paper_tables.json``."""
    return json.loads(PAPER_TABLES.read_text(encoding="utf-8"))


def make_choice(
    method: str, size: str, setting: str, model: str, options: Mapping[str, Any], suffix: str = "", **more: Any
) -> ModelChoice:
    """An entry named and labelled as all are."""
    key = model + (":" + ",".join(f"{name}={value}" for name, value in options.items()) if options else "")
    return ModelChoice(
        name=key,
        label=f"{method}-{SIZE_LETTERS[size]}{suffix}",
        method=method,
        size=size,
        setting=setting,
        model=model,
        options=options,
        **more,
    )
