"""The models that the page offers, and what it calls them. A new model is one more line."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

PAPER_TABLES = Path(__file__).resolve().parent.parent / "assets" / "paper_tables.json"


class UnknownModel(ValueError):
    """A name that the page does not offer; the message is for the user."""


@dataclass(frozen=True)
class ModelChoice:
    """One entry of a picker.

    Attributes:
        name: registered name, also the name of the record in the catalogue of weights.
        label: what people call the model.
        about: one line for the picker and the API.
        published: where ``assets/paper_tables.json`` has its figures, a path of keys.
    """

    name: str
    label: str
    about: str
    published: tuple[str, ...]


MODELS = (
    ModelChoice(
        "stvit_r_swin_small_224", "STViT-R-Swin-S", "36 semantic tokens in stage 3", ("table3_stvit_r", "small")
    ),
    ModelChoice("stvit_r_swin_base_224", "STViT-R-Swin-B", "36 semantic tokens in stage 3", ("table3_stvit_r", "base")),
)
BASELINES = (
    ModelChoice(
        "swin_small_patch4_window7_224", "Swin-S", "all 196 tokens in stage 3", ("table2_stvit_swin", "small", "base")
    ),
    ModelChoice(
        "swin_base_patch4_window7_224", "Swin-B", "all 196 tokens in stage 3", ("table2_stvit_swin", "base", "base")
    ),
    ModelChoice("deit_tiny_patch16_224", "DeiT-T", "all 196 tokens", ("table1_stvit_deit", "tiny", "base")),
    ModelChoice("deit_small_patch16_224", "DeiT-S", "all 196 tokens", ("table1_stvit_deit", "small", "base")),
    ModelChoice("deit_base_patch16_224", "DeiT-B", "all 196 tokens", ("table1_stvit_deit", "base", "base")),
)


def find(name: object, choices: tuple[ModelChoice, ...] = MODELS + BASELINES) -> ModelChoice:
    """The entry with this registered name.

    Raises:
        UnknownModel: not one of ``choices``.
    """
    for choice in choices:
        if choice.name == name:
            return choice
    known = ", ".join(choice.name for choice in choices)
    raise UnknownModel(f"{str(name)[:60]!r} is not offered here. Choose one of: {known}.")


def published_figures(name: str) -> dict[str, Any]:
    """What the paper prints for a model: ``top1`` (%), ``gmacs``, ``throughput`` (images/s on a V100, batch 128)."""
    figures: Any = _paper_tables()
    for key in find(name).published:
        figures = figures[key]
    return figures


@cache
def _paper_tables() -> dict[str, Any]:
    return json.loads(PAPER_TABLES.read_text(encoding="utf-8"))
