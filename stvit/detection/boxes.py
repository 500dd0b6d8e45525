"""Boxes as (..., 4) XYXY in pixels, and the deltas that a head predicts to move one box onto another."""

from __future__ import annotations

import math

import torch
from torch import Tensor

#: a head may shrink or grow a box by this factor at most
MAX_LOG_RATIO = math.log(1000 / 16)


def decode_deltas(boxes: Tensor, deltas: Tensor, stds: tuple[float, float, float, float]) -> Tensor:
    """Move boxes (N, 4) by normalised deltas (N, ..., 4) of centre and logarithmic size -> (N, ..., 4).

    Args:
        stds: the deviations that the deltas (dx, dy, dw, dh) are measured in.
    """
    boxes = boxes.view(len(boxes), *[1] * (deltas.ndim - 2), 4)
    size = boxes[..., 2:] - boxes[..., :2]
    centre = (boxes[..., :2] + boxes[..., 2:]) * 0.5
    deltas = deltas * deltas.new_tensor(stds)
    new_centre = centre + size * deltas[..., :2]
    new_size = size * deltas[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp()
    return torch.cat([new_centre - new_size * 0.5, new_centre + new_size * 0.5], dim=-1)


def encode_deltas(boxes: Tensor, targets: Tensor, stds: tuple[float, float, float, float]) -> Tensor:
    """The deltas (N, 4) that move boxes (N, 4) of positive area onto targets (N, 4); inverse of :func:`decode_deltas`
    as long as no side changes by more than the allowed factor."""
    size, target_size = boxes[:, 2:] - boxes[:, :2], targets[:, 2:] - targets[:, :2]
    shift = ((targets[:, :2] + targets[:, 2:]) - (boxes[:, :2] + boxes[:, 2:])) * 0.5 / size
    return torch.cat([shift, (target_size / size).log()], dim=1) / boxes.new_tensor(stds)
