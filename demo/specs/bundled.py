"""The models that this project trained and ships, as the page offers them."""

from __future__ import annotations

from collections.abc import Iterable

from demo.registry import NARROW, Method, ModelSpec
from demo.specs.methods import EVO_VIT_DEIT, METHOD_OF, STVIT_R_SWIN, STVIT_SWIN, TOME_DEIT, method_of
from stvit.pretrained.model_cards import BundledCard
from weights.garments.datasets import MOTIONS

COUNT_WORDS = {8: "eight", 10: "ten"}


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
