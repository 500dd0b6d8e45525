"""Counting multiply-adds, the unit that the papers call FLOPs, by fvcore's rules.

One multiply-add counts 1 in matrix products, convolutions and attention; LayerNorm costs 5 per element and BatchNorm 2
(5 when it also computes the statistics); softmax, activations, pooling and additions are free.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
LAYER_NORM_COST = 5
BATCH_NORM_COST = 2
BATCH_NORM_TRAINING_COST = 5


def count_macs(model: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224), *, as_published: bool = False) -> int:
    """Multiply-adds of one forward pass on one input.

    The count follows from shapes alone: the model is copied without its weights to the ``meta`` device, so it is the
    same for every device and precision, with fused attention on or off, and costs no computation.

    Args:
        model: any model; it is left as it is.
        input_shape: (C, H, W) of one input.
        as_published: count as the papers did, for comparison with their tables: BatchNorm in training mode, and every
            overlapping copy of an image token projected anew. What this implementation computes is less.
    """
    return sum(macs_by_module(model, input_shape, as_published=as_published).values())


def macs_by_module(
    model: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224), *, as_published: bool = False
) -> dict[str, int]:
    """Multiply-adds by the dotted name of the innermost module that spends them (``""`` is the model itself).

    Parameters as for :func:`count_macs`, whose result is the sum.
    """
    skeleton = without_weights(model).eval()
    for module in skeleton.modules():
        if as_published and hasattr(module, "project_once"):
            module.project_once = False
    batch_norm_cost = BATCH_NORM_TRAINING_COST if as_published else BATCH_NORM_COST
    counter = FlopCounterMode(display=False, custom_mapping=norm_costs(batch_norm_cost))
    with torch.no_grad(), counter:
        skeleton(torch.empty(1, *input_shape, device="meta"))
    root = type(skeleton).__name__
    totals = {
        name.removeprefix(root).removeprefix("."): sum(ops.values()) // 2  # the counter's flops: two a multiply-add
        for name, ops in counter.get_flop_counts().items()
        if name.split(".")[0] == root
    }
    return {name: own for name, total in totals.items() if (own := total - children_total(name, totals))}


def children_total(name: str, totals: dict[str, int]) -> int:
    """What the nearest counted descendants of a module spend together."""
    prefix = f"{name}." if name else ""
    below = [other for other in totals if other != name and other.startswith(prefix)]
    nearest = [b for b in below if not any(b != o and b.startswith(f"{o}.") for o in below)]
    return sum(totals[b] for b in nearest)


def without_weights(model: nn.Module) -> nn.Module:
    """A copy of the model on the ``meta`` device; the weights are never duplicated."""
    tensors = [*model.parameters(), *model.buffers()]
    memo: dict[int, Any] = {
        id(t): nn.Parameter(t.detach().to("meta").float()) if isinstance(t, nn.Parameter) else to_meta(t)
        for t in tensors
    }
    return copy.deepcopy(model, memo)


def to_meta(buffer: torch.Tensor) -> torch.Tensor:
    """A buffer's shape; floating point becomes float32, so that halved models count like others."""
    buffer = buffer.to("meta")
    return buffer.float() if buffer.is_floating_point() else buffer


def norm_costs(batch_norm_cost: int) -> dict[Any, Callable[..., int]]:
    """Cost of normalisation layers, in flops of the counter (two a multiply-add)."""

    def layer_norm(input_shape: tuple[int, ...], *_: Any, **__: Any) -> int:
        return 2 * LAYER_NORM_COST * math.prod(input_shape)

    def batch_norm(input_shape: tuple[int, ...], *_: Any, **__: Any) -> int:
        return 2 * batch_norm_cost * math.prod(input_shape)

    return {
        aten.native_layer_norm: layer_norm,
        aten.native_batch_norm: batch_norm,
        aten._native_batch_norm_legit_no_training: batch_norm,
    }
