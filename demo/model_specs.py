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
SHARED_ELSEWHERE = "Its authors share its weights on {}: this page takes none from there."
NO_SUCH_WEIGHTS = "No weights of this method on DeiT were ever published."
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
DYNAMICVIT_DEIT = Method("DynamicViT-DeiT", "DeiT", "Keep rate")
EVO_VIT_DEIT = Method("Evo-ViT-DeiT", "DeiT", "Slow tokens")
AVIT_DEIT = Method("A-ViT-DeiT", "DeiT", "Gate")
ATC_DEIT = Method("ATC-DeiT", "DeiT", "Keep rate")
DIFFRATE_DEIT = Method("DiffRate-DeiT", "DeiT", "Multiply-adds")
TOKENLEARNER_DEIT = Method("TokenLearner-DeiT", "DeiT", "Learned tokens")
DYNAMICSWIN = Method("DynamicSwin", "Swin", "Keep rate")
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
    "dynamicvit_deit": DYNAMICVIT_DEIT,
    "evo_vit_deit": EVO_VIT_DEIT,
    "avit": AVIT_DEIT,
    "atc_deit": ATC_DEIT,
    "diffrate_deit": DIFFRATE_DEIT,
    "tokenlearner_deit": TOKENLEARNER_DEIT,
    "dynamicswin": DYNAMICSWIN,
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
    yield from _rivals()
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


def _rivals() -> Iterator[ModelSpec]:
    """Methods beside STViT, EViT and ToMe: those of the STViT paper's Table 4 with public code, and later ones."""
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
    return _spec(
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
        yield _spec(
            "classify",
            ATC_DEIT,
            size,
            f"{rate}{other}",
            f"atc_deit_{size}_patch16_224",
            {"keep_rate": rate} | ({"linkage": linkage} if other else {}),
            suffix=f", keep {rate}{other}",
            about=f"clusters the tokens three times, {rate:.0%} stay each time; {NOT_RETRAINED}",
            weights=_deit(size),
            published={},
        )


def _diffrate(size: str) -> Iterator[ModelSpec]:
    model = f"diffrate_deit_{size}_patch16_224"
    for budget in {"small": ("2.9G", "2.3G"), "base": ("11.5G", "8.7G")}[size]:
        yield _spec(
            "classify",
            DIFFRATE_DEIT,
            size,
            f"{budget[:-1]} G",
            model,
            {"schedule": budget},
            suffix=f", {budget[:-1]} G",
            about=f"prunes and merges some tokens in every layer, for {budget[:-1]} G multiply-adds; {NOT_RETRAINED}",
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
    found = [_bundled(card, method) for card in cards if (method := method_of(card.model))]
    return sorted(found, key=lambda spec: order.index(spec.method))


def known_classes(card: BundledCard) -> str:
    """Say what a bundled model knows, in a few words; a segmenter's background is not counted."""
    what = "motions" if set(card.classes) <= set(MOTIONS) else "kinds"
    number = len(set(card.classes) - {"background"})
    return f"{COUNT_WORDS.get(number, number)} {what} of garments"


def method_of(model: str) -> Method | None:
    """Find the method of a registered model; ``None`` of families that the page has none for."""
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
    if method is EVO_VIT_DEIT:
        return "half", ", half wait"
    if method is STVIT_SWIN:
        tokens = options.get("semantic_window", 3) ** 2
        return f"{tokens}", f", {tokens} per window"
    if method is STVIT_R_SWIN:
        return "36 in stage 3" if card.task == "classify" else "9 for each 7×7 window", ""
    return "all" if method.full_tokens else "semantic", ""
