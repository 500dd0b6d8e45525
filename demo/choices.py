"""What an entry of the roster is, and what entries are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PAPER_TABLES = Path(__file__).resolve().parent.parent / "assets" / "paper_tables.json"
SIZE_NAMES = {"tiny": "Tiny", "small": "Small", "base": "Base"}
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
        name: stable key, the registered name and the options, e.g. ``"evit_deit_small_patch16_224:keep_rate=0.7"``.
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
