"""Clip models of the registered kinds, but narrow, so that a window takes a moment."""

from __future__ import annotations

from typing import Any

import pytest

from demo.video_models import PUBLISHED_CLIP_MODELS

NARROW: dict[str, Any] = {"embed_dim": 8, "depths": (1, 1, 4, 1), "num_heads": (1, 2, 4, 8)}
TINY = [choice for choice in PUBLISHED_CLIP_MODELS if choice.size == "tiny"]


def make_narrow() -> None:
    """Let the tiny clip models be narrow, in a process of their own."""
    for choice in TINY:
        choice.options.update(NARROW)


def make_narrow_for(patch: pytest.MonkeyPatch) -> None:
    """Let the tiny clip models be narrow until the patch is undone."""
    for choice in TINY:
        for name, value in NARROW.items():
            patch.setitem(choice.options, name, value)
