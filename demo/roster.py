"""The models that the page offers, and what it calls them: a few methods, each in some sizes and settings."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

PAPER_TABLES = Path(__file__).resolve().parent.parent / "assets" / "paper_tables.json"
SIZE_NAMES = {"tiny": "Tiny", "small": "Small", "base": "Base"}
SIZE_LETTERS = {"tiny": "T", "small": "S", "base": "B"}
SEMANTIC_TOKENS = (16, 36, 64, 100)
SEMANTIC_WINDOWS = (2, 3, 4)
KEEP_RATES = (0.9, 0.7, 0.5)
MERGES = (8, 13, 16)

NEVER_PUBLISHED = "Its weights were never published."
NOT_ON_THE_HUB = (
    "Its authors did not put its weights on the Hugging Face Hub, the only place that this page takes any from."
)
NOT_RETRAINED = "DeiT's weights, not retrained"


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


METHODS = (
    Method("STViT-R-Swin"),
    Method("STViT-Swin", "Tokens per window"),
    Method("STViT-DeiT", "Semantic tokens"),
    Method("EViT-DeiT", "Keep rate"),
    Method("ToMe-DeiT", "Merged per layer"),
    Method("STViT-LV-ViT", "Semantic tokens"),
    Method("EViT-LV-ViT", "Keep rate"),
    Method("Swin", full_tokens=True),
    Method("DeiT", full_tokens=True),
    Method("LV-ViT", full_tokens=True),
)


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
        published: the papers' figures, some of ``top1`` (%), ``gmacs``, ``throughput`` (images/s, V100, batch 128).
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


def find(name: object, choices: tuple[ModelChoice, ...] | None = None) -> ModelChoice:
    """The entry of this name.

    Raises:
        UnknownModel: not one of ``choices``, by default all.
    """
    offered = CHOICES if choices is None else choices
    for choice in offered:
        if choice.name == name:
            return choice
    known = ", ".join(choice.name for choice in offered)
    raise UnknownModel(f"{str(name)[:60]!r} is not offered here. Choose one of: {known}.")


def method_of(name: object) -> Method:
    """The method of this name.

    Raises:
        UnknownModel: there is none.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise UnknownModel(f"There is no method {str(name)[:60]!r}. Choose one of: {', '.join(m.name for m in METHODS)}.")


def sizes_of(method: str) -> tuple[str, ...]:
    """The sizes that a method comes in, small ones first."""
    offered = {choice.size for choice in CHOICES if choice.method == method}
    return tuple(size for size in SIZE_NAMES if size in offered)


def settings_of(method: str, size: str) -> tuple[ModelChoice, ...]:
    """The models of one method and size; the first is the default."""
    return tuple(choice for choice in CHOICES if (choice.method, choice.size) == (method, size))


def published_figures(name: str) -> Mapping[str, float]:
    """What the papers print for a model: ``top1`` (%), ``gmacs``, ``throughput`` (images/s on a V100, batch 128); those
    that they do not print are missing."""
    return find(name).published


@cache
def paper_tables() -> dict[str, Any]:
    """The tables of the papers, from ``assets/paper_tables.json``."""
    return json.loads(PAPER_TABLES.read_text(encoding="utf-8"))


def _choice(
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


def _recovering() -> Iterator[ModelChoice]:
    for size in ("small", "base"):
        model, published = f"stvit_r_swin_{size}_224", paper_tables()["table3_stvit_r"][size]
        about = "36 semantic tokens in stage 3"
        yield _choice("STViT-R-Swin", size, "36 in stage 3", model, {}, about=about, weights=model, published=published)


def _windowed() -> Iterator[ModelChoice]:
    for size in SIZE_NAMES:
        rows = paper_tables()["table2_stvit_swin"][size]["variants"]
        for side in SEMANTIC_WINDOWS:
            tokens = side**2
            yield _choice(
                "STViT-Swin",
                size,
                str(tokens),
                f"stvit_swin_{size}_224",
                {"semantic_window": side},
                f", {tokens} per window",
                about=f"{4 * tokens} semantic tokens in stage 3",
                no_weights=NEVER_PUBLISHED,
                published=_figures(next(row for row in rows if row["tokens_per_window"] == tokens)),
            )


def _semantic(method: str, model: str, size: str) -> Iterator[ModelChoice]:
    rows = paper_tables()["table1_stvit_deit"][size]["variants"] if method == "STViT-DeiT" else []
    for tokens in SEMANTIC_TOKENS:
        yield _choice(
            method,
            size,
            str(tokens),
            model,
            {"num_semantic_tokens": tokens},
            f", {tokens} tokens",
            about=f"{tokens} semantic tokens",
            no_weights=NEVER_PUBLISHED,
            published=next((_figures(row) for row in rows if row["tokens"] == tokens), {}),
        )


def _attentive(method: str, model: str, size: str, **weights: Any) -> Iterator[ModelChoice]:
    for fuse in (True, False):
        for rate in KEEP_RATES:
            note = f"; {NOT_RETRAINED}" if "weights" in weights else ""
            others = "fuses" if fuse else "drops"
            yield _choice(
                method,
                size,
                f"{rate}" if fuse else f"{rate}, without fusion",
                model,
                {"keep_rate": rate} if fuse else {"keep_rate": rate, "fuse_inattentive": False},
                f", keep {rate}" if fuse else f", keep {rate}, no fusion",
                about=f"keeps {rate:.0%} of the tokens three times, {others} the others{note}",
                published=_evit_figures(model, rate) if fuse else {},
                **weights,
            )


def _merging(size: str) -> Iterator[ModelChoice]:
    for r in MERGES:
        yield _choice(
            "ToMe-DeiT",
            size,
            str(r),
            f"tome_deit_{size}_patch16_224",
            {"r": r},
            f", r = {r}",
            about=f"merges {r} pairs of tokens in every layer; {NOT_RETRAINED}",
            weights=_deit(size),
        )


def _full(method: str, size: str, model: str, about: str, **more: Any) -> ModelChoice:
    return _choice(method, size, "all", model, {}, about=about, **more)


def _deit(size: str) -> str:
    return f"deit_{size}_patch16_224"


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: row[key] for key in ("top1", "gmacs", "throughput") if key in row}


def _evit_figures(model: str, rate: float) -> dict[str, float]:
    """EViT's own paper; its throughput is of other hardware than the STViT paper's, so it is left out."""
    tables = paper_tables()
    if model == "evit_lvvit_small_224":
        rows = {row["keep_rate"]: row for row in tables["evit_lvvit_small"]["keep"]}
        return {key: rows[rate][key] for key in ("top1", "gmacs")} if rate in rows else {}
    if model != "evit_deit_small_patch16_224":
        return {}
    found = {}
    for table, key in (("without_training", "top1"), ("with_fusion", "gmacs")):  # top-1 of the weights that run here
        found[key] = next(row[key] for row in tables["evit_deit_small"][table] if row["keep_rate"] == rate)
    return found


def _every_choice() -> Iterator[ModelChoice]:
    yield from _recovering()
    yield from _windowed()
    for size in SIZE_NAMES:
        yield from _semantic("STViT-DeiT", f"stvit_deit_{size}_patch16_224", size)
        yield from _attentive("EViT-DeiT", f"evit_deit_{size}_patch16_224", size, weights=_deit(size))
        yield from _merging(size)
    yield from _semantic("STViT-LV-ViT", "stvit_lvvit_small_224", "small")
    yield from _attentive("EViT-LV-ViT", "evit_lvvit_small_224", "small", no_weights=NOT_ON_THE_HUB)
    tables = paper_tables()
    for size in SIZE_NAMES:
        model, published = f"swin_{size}_patch4_window7_224", tables["table2_stvit_swin"][size]["base"]
        yield _full("Swin", size, model, "all 196 tokens in stage 3", weights=model, published=published)
        model, published = _deit(size), tables["table1_stvit_deit"][size]["base"]
        yield _full("DeiT", size, model, "all 196 tokens", weights=model, published=published)
    published = {key: tables["evit_lvvit_small"]["base"][key] for key in ("top1", "gmacs")}
    yield _full("LV-ViT", "small", "lvvit_small_224", "all 196 tokens", no_weights=NOT_ON_THE_HUB, published=published)


CHOICES = tuple(_every_choice())
MODELS = tuple(choice for choice in CHOICES if not method_of(choice.method).full_tokens)
BASELINES = tuple(choice for choice in CHOICES if method_of(choice.method).full_tokens)
