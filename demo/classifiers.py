"""The classifiers that the page offers: a few methods, each in some sizes and settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from demo.model_spec import PUBLISHED_SIZES, Method, ModelChoice, make_choice, paper_tables

SEMANTIC_TOKENS = (16, 36, 64, 100)
SEMANTIC_WINDOWS = (2, 3, 4)
KEEP_RATES = (0.9, 0.7, 0.5)
MERGES = (8, 13, 16)

NEVER_PUBLISHED = "Its weights were never published."
NOT_ON_THE_HUB = (
    "Its authors did not put its weights on the Hugging Face Hub, the only place that this page takes any from."
)
NOT_RETRAINED = "DeiT's weights, not retrained"

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


def _recovering() -> Iterator[ModelChoice]:
    for size in ("small", "base"):
        model, published = f"stvit_r_swin_{size}_224", paper_tables()["table3_stvit_r"][size]
        about = "36 semantic tokens in stage 3"
        yield make_choice(
            "STViT-R-Swin", size, "36 in stage 3", model, {}, about=about, weights=model, published=published
        )


def _windowed() -> Iterator[ModelChoice]:
    for size in PUBLISHED_SIZES:
        rows = {row["tokens_per_window"]: row for row in paper_tables()["table2_stvit_swin"][size]["variants"]}
        for side in SEMANTIC_WINDOWS:
            tokens = side**2
            yield make_choice(
                "STViT-Swin",
                size,
                str(tokens),
                f"stvit_swin_{size}_224",
                {"semantic_window": side},
                f", {tokens} per window",
                about=f"{4 * tokens} semantic tokens in stage 3",
                no_weights=NEVER_PUBLISHED,
                published=_figures(rows[tokens]),
            )
        yield make_choice(
            "STViT-Swin",
            size,
            "9, from earlier on",
            f"stvit_swin_{size}_224",
            {"semantic_window": 3, "stgm_position": "moved"},
            ", 9 per window, earlier",
            about="36 semantic tokens in stage 3, generated earlier",
            no_weights=NEVER_PUBLISHED,
            published=_figures(rows["moved_9"]),
        )


def _semantic(method: str, model: str, size: str) -> Iterator[ModelChoice]:
    rows = paper_tables()["table1_stvit_deit"][size]["variants"] if method == "STViT-DeiT" else []
    for tokens in SEMANTIC_TOKENS:
        yield make_choice(
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
            yield make_choice(
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
        yield make_choice(
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
    return make_choice(method, size, "all", model, {}, about=about, **more)


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


def _every_classifier() -> Iterator[ModelChoice]:
    yield from _recovering()
    yield from _windowed()
    for size in PUBLISHED_SIZES:
        yield from _semantic("STViT-DeiT", f"stvit_deit_{size}_patch16_224", size)
        yield from _attentive("EViT-DeiT", f"evit_deit_{size}_patch16_224", size, weights=_deit(size))
        yield from _merging(size)
    yield from _semantic("STViT-LV-ViT", "stvit_lvvit_small_224", "small")
    yield from _attentive("EViT-LV-ViT", "evit_lvvit_small_224", "small", no_weights=NOT_ON_THE_HUB)
    tables = paper_tables()
    for size in PUBLISHED_SIZES:
        model, published = f"swin_{size}_patch4_window7_224", tables["table2_stvit_swin"][size]["base"]
        yield _full("Swin", size, model, "all 196 tokens in stage 3", weights=model, published=published)
        model, published = _deit(size), tables["table1_stvit_deit"][size]["base"]
        yield _full("DeiT", size, model, "all 196 tokens", weights=model, published=published)
    published = {key: tables["evit_lvvit_small"]["base"][key] for key in ("top1", "gmacs")}
    yield _full("LV-ViT", "small", "lvvit_small_224", "all 196 tokens", no_weights=NOT_ON_THE_HUB, published=published)


CLASSIFIERS = tuple(_every_classifier())
