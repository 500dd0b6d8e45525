"""The models that the page offers: the published ones of the papers, and those that this project trained."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from demo.registry import NARROW, Method, ModelSpec, Registry, Task
from stvit.pretrained.model_cards import BundledCard
from stvit.pretrained.records import record
from weights import BUNDLED_MODELS
from weights.garments.datasets import MOTIONS

PAPER_TABLES = Path(__file__).resolve().parent.parent / "assets" / "paper_tables.json"
SIZE_LETTERS = {"tiny": "T", "small": "S", "base": "B"}
SIZES = tuple(SIZE_LETTERS)

NEVER_PUBLISHED = "Its weights were never published."
NOT_ON_THE_HUB = (
    "Its authors did not put its weights on the Hugging Face Hub, the only place that this page takes any from."
)
NOT_RETRAINED = "DeiT's weights, not retrained"
NO_FULL_TOKEN_DETECTOR = "This page knows of no public weights for the full-token Swin detector."
NO_SEMANTIC_CLIP_MODEL = "No weights of STViT on Video Swin were ever published."
NO_FULL_TOKEN_CLIP_MODEL = (
    "Its authors publish its weights on GitHub, and torchvision on a server of its own: no official repository on the "
    "Hugging Face Hub is known, the only place that this page takes any from."
)

STVIT_R_SWIN = Method("STViT-R-Swin", "Swin")
STVIT_SWIN = Method("STViT-Swin", "Swin", "Tokens per window")
STVIT_DEIT = Method("STViT-DeiT", "DeiT", "Semantic tokens")
EVIT_DEIT = Method("EViT-DeiT", "DeiT", "Keep rate")
TOME_DEIT = Method("ToMe-DeiT", "DeiT", "Merged per layer")
STVIT_LVVIT = Method("STViT-LV-ViT", "LV-ViT", "Semantic tokens")
EVIT_LVVIT = Method("EViT-LV-ViT", "LV-ViT", "Keep rate")
SWIN, DEIT, LVVIT = (Method(name, name) for name in ("Swin", "DeiT", "LV-ViT"))
STVIT_VIDEO_SWIN, VIDEO_SWIN = Method("STViT-Video-Swin", "Video-Swin"), Method("Video-Swin", "Video-Swin")

METHOD_OF = {  # start of the registered name: method, in the order of the lists
    "stvit_r_swin": STVIT_R_SWIN,
    "stvit_swin": STVIT_SWIN,
    "stvit_deit": STVIT_DEIT,
    "evit_deit": EVIT_DEIT,
    "tome_deit": TOME_DEIT,
    "stvit_lvvit": STVIT_LVVIT,
    "evit_lvvit": EVIT_LVVIT,
    "swin": SWIN,
    "deit": DEIT,
    "lvvit": LVVIT,
    "stvit_video_swin": STVIT_VIDEO_SWIN,
    "video_swin": VIDEO_SWIN,
}
FIGURES = {"v100_images_per_s": "throughput"}  # names of a record's figures that are others on the page
COUNT_WORDS = {8: "eight", 10: "ten"}


def build_registry(bundled: Mapping[str, BundledCard] = BUNDLED_MODELS) -> Registry:
    """Build the registry of all that the page offers, published models before bundled ones of the same task.

    Raises:
        ModelCardError: the card of a bundled model is damaged or incomplete.
    """
    specs = [*_classifiers(), *_detectors(), *_clip_models(), *bundled_specs(bundled.values())]
    return Registry(specs)


@cache
def paper_tables() -> dict[str, Any]:
    """Read the tables of the papers from ``assets/paper_tables.json``."""
    return json.loads(PAPER_TABLES.read_text(encoding="utf-8"))


def _spec(
    task: Task,
    method: Method,
    size: str,
    setting: str,
    model: str,
    options: Mapping[str, Any] | None = None,
    *,
    suffix: str = "",
    weights: str | None = None,
    published: Mapping[str, float] | None = None,
    **more: Any,
) -> ModelSpec:
    """A published model.

    Args:
        suffix: ends its label.
        weights: names its record.
        published: figures; by default those of the record.
    """
    options, known = options or {}, record(weights) if weights else None
    if published is None:
        published = {FIGURES.get(name, name): value for name, value in known.published.items()} if known else {}
    return ModelSpec(
        name=model + (":" + ",".join(f"{name}={value}" for name, value in options.items()) if options else ""),
        label=f"{method.name}-{SIZE_LETTERS[size]}{suffix}",
        task=task,
        method=method,
        size=size,
        setting=setting,
        model=model,
        options=options,
        record=known,
        published=published,
        **more,
    )


def _classifiers() -> Iterator[ModelSpec]:
    for size in ("small", "base"):
        model, about = f"stvit_r_swin_{size}_224", "36 semantic tokens in stage 3"
        yield _spec("classify", STVIT_R_SWIN, size, "36 in stage 3", model, about=about, weights=model)
    for size in SIZES:
        yield from _stvit_swin(size)
    for size in SIZES:
        yield from _stvit(STVIT_DEIT, f"stvit_deit_{size}_patch16_224", size)
        yield from _evit(EVIT_DEIT, f"evit_deit_{size}_patch16_224", size, weights=_deit(size))
        yield from _tome(size)
    yield from _stvit(STVIT_LVVIT, "stvit_lvvit_small_224", "small")
    yield from _evit(EVIT_LVVIT, "evit_lvvit_small_224", "small", no_weights=NOT_ON_THE_HUB)
    for size in SIZES:
        model, about = f"swin_{size}_patch4_window7_224", "all 196 tokens in stage 3"
        yield _spec("classify", SWIN, size, "all", model, about=about, weights=model)
        yield _spec("classify", DEIT, size, "all", _deit(size), about="all 196 tokens", weights=_deit(size))
    yield _spec(
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
        yield _spec(
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
        yield _spec(
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
            yield _spec(
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
        yield _spec(
            "classify",
            TOME_DEIT,
            size,
            str(r),
            f"tome_deit_{size}_patch16_224",
            {"r": r},
            suffix=f", r = {r}",
            about=f"merges {r} pairs of tokens in every layer; {NOT_RETRAINED}",
            weights=_deit(size),
            published={},
        )


def _deit(size: str) -> str:
    return f"deit_{size}_patch16_224"


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


def _detectors() -> Iterator[ModelSpec]:
    """STViT-R's, and the full-token detectors that they are measured against."""
    tables = paper_tables()["table5_coco"]
    for size in ("small", "base"):
        model, setting = f"stvit_r_swin_{size}_cascade_mask_rcnn", "9 for each 7×7 window"
        about = "9 semantic tokens for each 7×7 window of stage 3"
        published = tables[f"stvit_r_swin_{size}"]
        yield _spec("detect", STVIT_R_SWIN, size, setting, model, about=about, weights=model, published=published)
    for size in ("small", "base"):
        yield _spec(
            "detect",
            SWIN,
            size,
            "all",
            f"swin_{size}_cascade_mask_rcnn",
            about="all image tokens in stage 3",
            no_weights=NO_FULL_TOKEN_DETECTOR,
            published=tables[f"swin_{size}"],
            offered=False,
        )


def _clip_models() -> Iterator[ModelSpec]:
    table = paper_tables()["table6_video"]
    semantic, full = "36 semantic tokens in stage 3, frame by frame", "all 196 tokens of each token frame in stage 3"
    for method, setting, row, about, no_weights in (
        (STVIT_VIDEO_SWIN, "36 a frame", "stvit_swin", semantic, NO_SEMANTIC_CLIP_MODEL),
        (VIDEO_SWIN, "all", "swin", full, NO_FULL_TOKEN_CLIP_MODEL),
    ):
        for size in ("tiny", "small"):
            yield _spec(
                "video",
                method,
                size,
                setting,
                f"{'' if method.full_tokens else 'stvit_'}video_swin_{size}",
                about=f"{about}; Kinetics-400, windows of 32 frames",
                no_weights=no_weights,
                published={key: table[f"{row}_{size}"][key] for key in ("top1", "gmacs")},
            )


def bundled_specs(cards: Iterable[BundledCard]) -> list[ModelSpec]:
    """Describe models that this project trained, by method; families that the page has no method for are left out."""
    order = list(METHOD_OF.values())
    found = [_bundled(card, method) for card in cards if (method := _method_of(card.model))]
    return sorted(found, key=lambda spec: order.index(spec.method))


def known_classes(card: BundledCard) -> str:
    """Say what a bundled model knows, in a few words; a segmenter's background is not counted."""
    what = "motions" if set(card.classes) <= set(MOTIONS) else "kinds"
    number = len(set(card.classes) - {"background"})
    return f"{COUNT_WORDS.get(number, number)} {what} of garments"


def _method_of(model: str) -> Method | None:
    matching = [start for start in METHOD_OF if model.startswith(f"{start}_")]
    return METHOD_OF[max(matching, key=len)] if matching else None


def _bundled(card: BundledCard, method: Method) -> ModelSpec:
    setting, suffix = _bundled_setting(method, card)
    tokens = suffix.removeprefix(", ") or ("all image tokens" if method.full_tokens else "semantic tokens")
    return ModelSpec(
        name=card.name,
        label=f"{method.name}, narrow{suffix}",
        about=f"{tokens}; knows {known_classes(card)}",
        task=card.task,
        method=method,
        size=NARROW,
        setting=setting,
        model=card.model,
        options=card.options,
        bundled=card,
    )


def _bundled_setting(method: Method, card: BundledCard) -> tuple[str, str]:
    """Its entry in the list of settings, and what that adds to its label."""
    options = card.options
    if method.setting == "Keep rate":
        rate = options.get("keep_rate", 0.7)
        return f"{rate}", f", keep {rate}"
    if method is TOME_DEIT:
        merged = options.get("r", 13)
        return f"{merged}", f", r = {merged}"
    if method.setting == "Semantic tokens":
        tokens = options.get("num_semantic_tokens", 16)
        return f"{tokens}", f", {tokens} tokens"
    if method is STVIT_SWIN:
        tokens = options.get("semantic_window", 3) ** 2
        return f"{tokens}", f", {tokens} per window"
    if method is STVIT_R_SWIN:
        return "36 in stage 3" if card.task == "classify" else "9 for each 7×7 window", ""
    return "all" if method.full_tokens else "semantic", ""
