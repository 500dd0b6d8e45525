"""A detector of the registered kind, but narrow, and with weights that make it sure of something in any picture.

It has learned nothing: its last layers are scaled on one picture so that a few of its hundred detections are likely.
"""

from __future__ import annotations

import io
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import stvit
from demo.detectors import DETECTORS, FULL_TOKEN_DETECTORS

NARROW: dict[str, Any] = {
    "embed_dim": 16,
    "depths": (1, 1, 6, 1),
    "num_heads": (1, 2, 4, 8),
    "fpn_channels": 16,
    "box_hidden": 32,
}
DETECTOR = DETECTORS[0].name
PHOTO = Path(__file__).resolve().parents[1] / "assets" / "examples" / "bison.jpg"
SCALE = (533, 320)


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
        background = torch.zeros(81)
        background[-1] = 6.0
        scale_outputs(detector.rpn_head.rpn_cls, torch.zeros(3), 1.0)
        for head in detector.roi_head.bbox_head:
            scale_outputs(head.fc_cls, background, 3.0)
        for head in detector.roi_head.mask_head:
            scale_outputs(head.conv_logits, torch.ones(80), 2.0)
        with Image.open(PHOTO) as photo:
            detector.predict(np.array(photo.convert("RGB")), SCALE, score_threshold=0.0)
    buffer = io.BytesIO()
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    torch.save({"meta": {"epoch": 36}, "state_dict": state, "optimizer": {}}, buffer)
    return buffer.getvalue()


def scale_outputs(layer: nn.Conv2d | nn.Linear, means: Tensor, deviation: float) -> None:
    """Give a layer's outputs, when it next runs, these means and this deviation over everything but the channels."""

    def hook(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
        handle.remove()
        rest = [axis for axis in range(output.ndim) if axis != 1]
        gain = deviation / output.std(rest).clamp(min=1e-6)
        module.bias.copy_((module.bias - output.mean(rest)) * gain + means)
        module.weight.mul_(gain.view(-1, *[1] * (module.weight.ndim - 1)))
        return module(*inputs)

    handle = layer.register_forward_hook(hook)
