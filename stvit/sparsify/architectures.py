"""Architectures of timm that can be sparsified: their names, and their structure without weights."""

from __future__ import annotations

from functools import cache

import timm
import torch
from torch import nn

MODULES = ("vision_transformer", "vision_transformer_hybrid", "deit", "eva", "swin_transformer")


@cache
def architectures() -> tuple[str, ...]:
    """Names of timm's networks that are a ``VisionTransformer``, ``Eva`` or ``SwinTransformer``; a few of them have
    layers that cannot be sparsified, see :func:`stvit.sparsify.fit.why_not`."""
    return tuple(timm.list_models(module=MODULES))


def skeleton(name: str) -> nn.Module:
    """The network of that name on the ``meta`` device, where weights take neither time nor memory."""
    with torch.device("meta"):
        return timm.create_model(name).eval()


def input_shape(network: nn.Module) -> tuple[int, int, int]:
    """(C, H, W) that a network was made for."""
    size = getattr(network, "_traits", {}).get("img_size") or network.pretrained_cfg["input_size"][1:]
    return (network.in_chans, *size)
