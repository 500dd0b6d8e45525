"""The published classifiers: of the STViT and EViT papers, ToMe, and the networks that they are made from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from demo.registry import Method, ModelSpec
from demo.specs.methods import (
    DEIT,
    EVIT_DEIT,
    EVIT_LVVIT,
    LVVIT,
    STVIT_DEIT,
    STVIT_LVVIT,
    STVIT_R_SWIN,
    STVIT_SWIN,
    SWIN,
    TOME_DEIT,
)
from demo.specs.published import NOT_RETRAINED, SIZES, deit_name, paper_tables, published_spec
from demo.specs.rivals import rivals

NEVER_PUBLISHED = "Its weights were never published."
NOT_ON_THE_HUB = (
    "Its authors did not put its weights on the Hugging Face Hub, the only place that this page takes any from."
)


def classifiers() -> Iterator[ModelSpec]:
    """Describe them in the order of the lists, the other methods among them."""
    for size in ("small", "base"):
        model, about = f"stvit_r_swin_{size}_224", "36 semantic tokens in stage 3"
        yield published_spec("classify", STVIT_R_SWIN, size, "36 in stage 3", model, about=about, weights=model)
    for size in SIZES:
        yield from _stvit_swin(size)
    for size in SIZES:
        yield from _stvit(STVIT_DEIT, f"stvit_deit_{size}_patch16_224", size)
        yield from _evit(EVIT_DEIT, f"evit_deit_{size}_patch16_224", size, weights=deit_name(size))
        yield from _tome(size)
    yield from rivals()
    yield from _stvit(STVIT_LVVIT, "stvit_lvvit_small_224", "small")
    yield from _evit(EVIT_LVVIT, "evit_lvvit_small_224", "small", no_weights=NOT_ON_THE_HUB)
    for size in SIZES:
        model, about = f"swin_{size}_patch4_window7_224", "all 196 tokens in stage 3"
        yield published_spec("classify", SWIN, size, "all", model, about=about, weights=model)
        yield published_spec(
            "classify", DEIT, size, "all", deit_name(size), about="all 196 tokens", weights=deit_name(size)
        )
    yield published_spec(
        "classify",
        LVVIT,
        "small",
        "all",
        "lvvit_small_224",
        about="all 196 tokens",
        no_weights=NOT_ON_THE_HUB,
        published={key: paper_tables()["evit_lvvit_small"]["base"][key] for key in ("top1", "gmacs")},
    )


def _stvit_swin(size: str) -> Iterator[ModelSpec]:
    rows = {row["tokens_per_window"]: row for row in paper_tables()["table2_stvit_swin"][size]["variants"]}
    stage_3 = "semantic tokens in stage 3"
    settings = [
        (str(side**2), {"semantic_window": side}, f", {side**2} per window", f"{4 * side**2} {stage_3}")
        for side in (2, 3, 4)
    ]
    earlier = {"semantic_window": 3, "stgm_position": "moved"}
    settings.append(("9, from earlier on", earlier, ", 9 per window, earlier", f"36 {stage_3}, generated earlier"))
    for setting, options, suffix, about in settings:
        yield published_spec(
            "classify",
            STVIT_SWIN,
            size,
            setting,
            f"stvit_swin_{size}_224",
            options,
            suffix=suffix,
            about=about,
            no_weights=NEVER_PUBLISHED,
            published=_figures(rows["moved_9" if options is earlier else options["semantic_window"] ** 2]),
        )


def _stvit(method: Method, model: str, size: str) -> Iterator[ModelSpec]:
    rows = paper_tables()["table1_stvit_deit"][size]["variants"] if method is STVIT_DEIT else []
    for tokens in (16, 36, 64, 100):
        yield published_spec(
            "classify",
            method,
            size,
            str(tokens),
            model,
            {"num_semantic_tokens": tokens},
            suffix=f", {tokens} tokens",
            about=f"{tokens} semantic tokens",
            no_weights=NEVER_PUBLISHED,
            published=next((_figures(row) for row in rows if row["tokens"] == tokens), {}),
        )


def _evit(method: Method, model: str, size: str, **weights: Any) -> Iterator[ModelSpec]:
    note = f"; {NOT_RETRAINED}" if "weights" in weights else ""
    for fuse in (True, False):
        for rate in (0.9, 0.7, 0.5):
            yield published_spec(
                "classify",
                method,
                size,
                f"{rate}" if fuse else f"{rate}, without fusion",
                model,
                {"keep_rate": rate} if fuse else {"keep_rate": rate, "fuse_inattentive": False},
                suffix=f", keep {rate}" if fuse else f", keep {rate}, no fusion",
                about=f"keeps {rate:.0%} of the tokens three times, {'fuses' if fuse else 'drops'} the others{note}",
                published=_evit_figures(model, rate) if fuse else {},
                **weights,
            )


def _tome(size: str) -> Iterator[ModelSpec]:
    for r in (8, 13, 16):
        yield published_spec(
            "classify",
            TOME_DEIT,
            size,
            str(r),
            f"tome_deit_{size}_patch16_224",
            {"r": r},
            suffix=f", r = {r}",
            about=f"merges {r} pairs of tokens in every layer; {NOT_RETRAINED}",
            weights=deit_name(size),
            published={},
        )


def _figures(row: Mapping[str, Any]) -> dict[str, float]:
    return {key: row[key] for key in ("top1", "gmacs", "throughput") if key in row}


def _evit_figures(model: str, rate: float) -> dict[str, float]:
    """Figures of EViT's own paper, without its throughput, which is of other hardware than the STViT paper's."""
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
