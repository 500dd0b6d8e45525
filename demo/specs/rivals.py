"""The methods beside STViT, EViT and ToMe: those of the STViT paper's Table 4 with public code, and later ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from demo.registry import Method, ModelSpec
from demo.specs.methods import (
    ATC_DEIT,
    AVIT_DEIT,
    DIFFRATE_DEIT,
    DYNAMICSWIN,
    DYNAMICVIT_DEIT,
    EVO_VIT_DEIT,
    TOKENLEARNER_DEIT,
)
from demo.specs.published import NOT_RETRAINED, SIZES, deit_name, published_spec
from stvit.pretrained.records import record

SHARED_ELSEWHERE = "Its authors share its weights on {}: this page takes none from there."
NO_SUCH_WEIGHTS = "No weights of this method on DeiT were ever published."


def rivals() -> Iterator[ModelSpec]:
    """Describe their models, method by method."""
    for size in ("small", "base"):
        for rate in (0.7, 0.5):
            about = f"drops all but {rate:.0%}, {rate**2:.0%} and {rate**3:.0%} of the tokens, by learned scores"
            model = f"dynamicvit_deit_{size}_patch16_224"
            yield _rival(DYNAMICVIT_DEIT, size, f"{rate}", model, {"keep_rate": rate}, f", keep {rate}", about)
    for size in SIZES:
        about = "half of the tokens wait, unchanged, while four layers process the others; then all are sorted again"
        yield _rival(EVO_VIT_DEIT, size, "half", f"evo_vit_deit_{size}_patch16_224", {}, "", about)
    for size in ("tiny", "small"):
        about = "each token halts when a gate says so; with random weights none does, and it costs what DeiT costs"
        yield _rival(AVIT_DEIT, size, "as published", f"avit_{size}_patch16_224", {}, "", about)
    for size in SIZES:
        yield from _atc(size)
    for size in ("small", "base"):
        yield from _diffrate(size)
    for size in ("small", "base"):
        about, model = "8 learned tokens from the seventh layer on", f"tokenlearner_deit_{size}_patch16_224"
        yield _rival(TOKENLEARNER_DEIT, size, "8", model, {}, "", about)
    for size in SIZES:
        for rate in (0.7, 0.9):
            model, options = f"dynamicswin_{size}_224", {"keep_rate": rate}
            rates = ", ".join(f"{rate - step:.0%}" for step in (0.0, 0.2, 0.4))
            about = f"in stage 3, {rates} of the tokens get the full feed-forward network, the others a linear layer"
            yield _rival(DYNAMICSWIN, size, f"{rate}", model, options, f", keep {rate}", about)


def _rival(
    method: Method, size: str, setting: str, model: str, options: Mapping[str, Any], suffix: str, about: str
) -> ModelSpec:
    """A model whose weights this page cannot fetch; the published figures hold for the first of its settings."""
    known, default = record(model), options.get("keep_rate", 0.7) == 0.7
    no_weights = SHARED_ELSEWHERE.format(known.weights_page) if known.weights_page else NO_SUCH_WEIGHTS
    return published_spec(
        "classify",
        method,
        size,
        setting,
        model,
        options,
        suffix=suffix,
        about=about,
        no_weights=no_weights,
        published=known.published if default else {},
    )


def _atc(size: str) -> Iterator[ModelSpec]:
    settings = [(rate, "average") for rate in (0.7, 0.9, 0.5, 0.25)] + [(0.7, "complete"), (0.7, "single")]
    for rate, linkage in settings:
        other = "" if linkage == "average" else f", {linkage} linkage"
        yield published_spec(
            "classify",
            ATC_DEIT,
            size,
            f"{rate}{other}",
            f"atc_deit_{size}_patch16_224",
            {"keep_rate": rate} | ({"linkage": linkage} if other else {}),
            suffix=f", keep {rate}{other}",
            about=f"clusters the tokens three times, {rate:.0%} stay each time; {NOT_RETRAINED}",
            weights=deit_name(size),
            published={},
        )


def _diffrate(size: str) -> Iterator[ModelSpec]:
    model = f"diffrate_deit_{size}_patch16_224"
    for budget in {"small": ("2.9G", "2.3G"), "base": ("11.5G", "8.7G")}[size]:
        yield published_spec(
            "classify",
            DIFFRATE_DEIT,
            size,
            f"{budget[:-1]} G",
            model,
            {"schedule": budget},
            suffix=f", {budget[:-1]} G",
            about=f"prunes and merges some tokens in every layer, for {budget[:-1]} G multiply-adds; {NOT_RETRAINED}",
            weights=deit_name(size),
            published={},
        )
