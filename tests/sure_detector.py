"""Makes a detector of random weights sure of something in any picture.

It has learned nothing: its last layers are scaled on one picture so that a few of its hundred detections are likely.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from stvit.detection import CascadeMaskRCNN

PHOTO = Path(__file__).resolve().parents[1] / "assets" / "examples" / "bison.jpg"
SCALE = (533, 320)


def make_sure(detector: CascadeMaskRCNN) -> None:
    """Change the last layers; to be called without gradients."""
    background = torch.zeros(detector.num_classes + 1)
    background[-1] = 6.0
    scale_outputs(detector.rpn_head.rpn_cls, torch.zeros(3), 1.0)
    for head in detector.roi_head.bbox_head:
        scale_outputs(head.fc_cls, background, 3.0)
    for head in detector.roi_head.mask_head:
        scale_outputs(head.conv_logits, torch.ones(detector.num_classes), 2.0)
    with Image.open(PHOTO) as photo:
        detector.predict(np.array(photo.convert("RGB")), SCALE, score_threshold=0.0)


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
