"""The models that this project trained on garments, as entries of the roster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from demo.model_spec import NARROW, ModelChoice
from stvit.pretrained.model_cards import BundledCard
from weights.garments.datasets import MOTIONS

METHOD_OF = {  # start of the registered name: method
    "stvit_r_swin": "STViT-R-Swin",
    "stvit_swin": "STViT-Swin",
    "stvit_deit": "STViT-DeiT",
    "evit_deit": "EViT-DeiT",
    "tome_deit": "ToMe-DeiT",
    "stvit_lvvit": "STViT-LV-ViT",
    "evit_lvvit": "EViT-LV-ViT",
    "swin": "Swin",
    "deit": "DeiT",
    "lvvit": "LV-ViT",
    "stvit_video_swin": "STViT-Video-Swin",
    "video_swin": "Video-Swin",
}
NUMBERS = {8: "eight", 10: "ten"}
DENSE = ("detect", "segment")


def garment_choices(records: Iterable[BundledCard]) -> tuple[ModelChoice, ...]:
    """Entries of bundled models, by method; those of families that the page has no method for are left out."""
    order = list(METHOD_OF.values())
    found = [_choice(record, method) for record in records if (method := _method(record.model))]
    return tuple(sorted(found, key=lambda choice: order.index(choice.method)))


def narrow_peer(choice: ModelChoice, others: Iterable[ModelChoice]) -> ModelChoice | None:
    """What a bundled model is best compared with: the full-token one on the same network, and of a full-token one, the
    first that reduces its tokens; ``None`` where there is none.

    Args:
        choice: the bundled model.
        others: entries for the same task, of which the bundled ones count.
    """
    network, alike = _network(choice.method), [other for other in others if other.bundled and other != choice]
    on_same = [other for other in alike if _network(other.method) == network]
    if choice.method == network:
        return next(iter(on_same), None)
    return next((other for other in on_same if other.method == network), None)


def knows_the_same(one: ModelChoice, other: ModelChoice) -> bool:
    """Whether two models answer with the same classes."""
    return one.classes == other.classes


def known(record: BundledCard) -> str:
    """What a bundled model knows, in a few words; a segmenter's background is not counted."""
    what = "motions" if set(record.classes) <= set(MOTIONS) else "kinds"
    number = len(set(record.classes) - {"background"})
    return f"{NUMBERS.get(number, number)} {what} of garments"


def _method(model: str) -> str | None:
    matching = [start for start in METHOD_OF if model.startswith(f"{start}_")]
    return METHOD_OF[max(matching, key=len)] if matching else None


def _network(method: str) -> str:
    """The full-token network that a method is applied to; of one of them, itself."""
    return next((name for name in ("Video-Swin", "LV-ViT", "Swin", "DeiT") if method.endswith(name)), method)


def _choice(record: BundledCard, method: str) -> ModelChoice:
    setting, suffix = _setting(method, record)
    tokens = suffix.removeprefix(", ") or ("all image tokens" if method == _network(method) else "semantic tokens")
    return ModelChoice(
        name=record.name,
        label=f"{method}, narrow{suffix}",
        about=f"{tokens}; knows {known(record)}",
        method=method,
        size=NARROW,
        setting=setting,
        model=record.model,
        options=record.options,
        bundled=record,
    )


def _setting(method: str, record: BundledCard) -> tuple[str, str]:
    """The entry of the third picker, and what it adds to the label."""
    options: Mapping[str, Any] = record.options
    if method.startswith("EViT"):
        rate = options.get("keep_rate", 0.7)
        return f"{rate}", f", keep {rate}"
    if method.startswith("ToMe"):
        merged = options.get("r", 13)
        return f"{merged}", f", r = {merged}"
    if method in ("STViT-DeiT", "STViT-LV-ViT"):
        tokens = options.get("num_semantic_tokens", 16)
        return f"{tokens}", f", {tokens} tokens"
    if method == "STViT-Swin":
        tokens = options.get("semantic_window", 3) ** 2
        return f"{tokens}", f", {tokens} per window"
    if method == "STViT-R-Swin":
        return "9 for each 7×7 window" if record.task in DENSE else "36 in stage 3", ""
    return "all" if method == _network(method) else "semantic", ""
