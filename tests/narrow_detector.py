"""A detector of the registered kind, but narrow, and with weights that make it sure of something in any picture."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import pytest
import torch

import stvit
from demo.detectors import DETECTORS, FULL_TOKEN_DETECTORS
from tests.sure_detector import make_sure

NARROW: dict[str, Any] = {
    "embed_dim": 16,
    "depths": (1, 1, 6, 1),
    "num_heads": (1, 2, 4, 8),
    "fpn_channels": 16,
    "box_hidden": 32,
}
DETECTOR = DETECTORS[0].name


def make_narrow() -> None:
    """Let the page's detectors be narrow, in a process of their own."""
    for choice in DETECTORS + FULL_TOKEN_DETECTORS:
        choice.options.update(NARROW)


def make_narrow_for(patch: pytest.MonkeyPatch) -> None:
    """Let the page's detectors be narrow until the patch is undone."""
    for choice in DETECTORS + FULL_TOKEN_DETECTORS:
        for name, value in NARROW.items():
            patch.setitem(choice.options, name, value)


@cache
def checkpoint() -> bytes:
    """The weights in the container that the published detectors come in."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        detector = stvit.create_model(DETECTOR, **NARROW)
        make_sure(detector)
    buffer = io.BytesIO()
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    torch.save({"meta": {"epoch": 36}, "state_dict": state, "optimizer": {}}, buffer)
    return buffer.getvalue()
