"""Gradient checkpointing: activations inside a layer are computed again in the backward pass instead of being kept."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from timm.models import checkpoint


class RecomputedLayers:
    """Mixin for modules that run layers: :meth:`set_grad_checkpointing` reaches all such modules below.

    Attributes:
        grad_checkpointing: whether the layers that this module runs are recomputed.
    """

    grad_checkpointing: bool = False

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Switch gradient checkpointing on or off; timm's interface."""
        for module in self.modules():
            if isinstance(module, RecomputedLayers):
                module.grad_checkpointing = enable

    def run_layer(self, layer: Callable[..., Any], *arguments: Any) -> Any:
        """``layer(*arguments)``; with gradient checkpointing, only the arguments are kept for the backward pass."""
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, *arguments)
        return layer(*arguments)
