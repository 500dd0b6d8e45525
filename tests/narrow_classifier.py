"""Classifiers of the registered kinds, but narrow, so that a clip takes seconds."""

from __future__ import annotations

from typing import Any

import pytest

from demo.registry import ModelChoice, find

MODEL, BASELINE = "stvit_r_swin_small_224", "swin_small_patch4_window7_224"
NARROW: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8)}


def narrow_choices() -> list[ModelChoice]:
    """The page's first model and its baseline."""
    return [find(MODEL), find(BASELINE)]


def make_narrow() -> None:
    """Let both be narrow, in a process of their own."""
    for choice in narrow_choices():
        choice.options.update(NARROW)


def make_narrow_for(patch: pytest.MonkeyPatch) -> None:
    """Let both be narrow until the patch is undone."""
    for choice in narrow_choices():
        for name, value in NARROW.items():
            patch.setitem(choice.options, name, value)
