"""Counting multiply-adds, the unit that the papers call FLOPs, by fvcore's rules.

One multiply-add counts 1 in matrix products, convolutions and attention; LayerNorm costs 5 per element and BatchNorm 2
(5 when it also computes the statistics); softmax, activations, pooling and additions are free.
"""

from __future__ import annotations

import copy
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

aten = torch.ops.aten
LAYER_NORM_COST = 5
BATCH_NORM_COST = 2
BATCH_NORM_TRAINING_COST = 5

#: options of modules that do less work than the published code, and their values there
AS_PUBLISHED = {"project_once": False, "fused_sum": False}

Part = Literal["patch embedding", "image tokens", "STGM", "semantic tokens", "recovery", "head"]
PART_OF_KIND: dict[str, Part] = {
    "image": "image tokens",
    "stgm": "STGM",
    "semantic": "semantic tokens",
    "recovery": "recovery",
}


@dataclass(frozen=True)
class LayerCost:
    """What one transformer layer, or a module outside of them, spends on one input.

    Attributes:
        name: dotted name of the module, e.g. ``"blocks.4"``.
        part: where in the network it is.
        macs: multiply-adds.
        tokens: tokens that its feed-forward network processes, prefix tokens left out; ``None`` outside of layers.
    """

    name: str
    part: Part
    macs: int
    tokens: int | None


@dataclass
class Call:
    """One call of a module during a forward pass.

    Attributes:
        name: dotted name.
        module: the module.
        parent: the call that it happened in; ``None`` for the whole model.
        macs: what it spent itself, outside of the modules that it called.
        output: what it returned.
    """

    name: str
    module: nn.Module
    parent: Call | None
    macs: int = 0
    output: Any = field(default=None, repr=False)

    def lineage(self) -> Iterator[Call]:
        """The call itself, the one around it, and so on."""
        yield self
        if self.parent is not None:
            yield from self.parent.lineage()


def count_macs(model: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224), *, as_published: bool = False) -> int:
    """Multiply-adds of one forward pass on one input.

    The count follows from shapes alone: the model is copied without its weights to the ``meta`` device, so it is the
    same for every device and precision, with fused attention on or off, and costs no computation.

    Args:
        model: any model; it is left as it is.
        input_shape: (C, H, W) of one input.
        as_published: count as the papers did, for comparison with their tables: BatchNorm in training mode, every
            overlapping copy of an image token projected again, and weighted sums in the pooling free. What this
            implementation computes is less.
    """
    return sum(call.macs for call in trace_calls(model, input_shape, as_published=as_published))


def macs_by_module(
    model: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224), *, as_published: bool = False
) -> dict[str, int]:
    """Multiply-adds by the dotted name of the innermost module that spends them (``""`` is the model itself).

    Parameters as for :func:`count_macs`, whose result is the sum.
    """
    totals: dict[str, int] = defaultdict(int)
    for call in trace_calls(model, input_shape, as_published=as_published):
        if call.macs:
            totals[call.name] += call.macs
    return dict(totals)


def macs_by_layer(
    model: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224), *, as_published: bool = False
) -> tuple[LayerCost, ...]:
    """Where the multiply-adds go, in order of execution, for the models here and for timm's transformers.

    Whatever runs before the first transformer layer is patch embedding, whatever runs after the last is head. What lies
    between two layers (patch merging) belongs to the part of the tokens that it works on.

    Parameters as for :func:`count_macs`, whose result is the sum.

    Raises:
        ValueError: the model has no transformer layers.
    """
    calls = trace_calls(model, input_shape, as_published=as_published)
    layers_to_come = sum(is_layer(call.module) for call in calls)
    if not layers_to_come:
        raise ValueError(f"{type(model).__name__} has no transformer layers: use macs_by_module")
    prefix_tokens = getattr(model, "num_prefix_tokens", 0)
    stay = getattr(model, "prefix_tokens_stay", False)  # beside the semantic ones
    rows: dict[str, LayerCost] = {}
    kind, part, tokens = "image", "patch embedding", None
    for call in calls:
        owner = owner_of(call)
        if call is owner:
            if is_layer(call.module):
                kind = kind_of_layer(call.module, kind)
                part, tokens = (
                    PART_OF_KIND[kind],
                    count_tokens(call.output) - (prefix_tokens if stay or kind == "image" else 0),
                )
                layers_to_come -= 1
            elif part != "patch embedding":
                between = "semantic tokens" if kind in ("stgm", "semantic") else "image tokens"
                part, tokens = between if layers_to_come else "head", None
        spent = rows[owner.name].macs if owner.name in rows else 0
        rows[owner.name] = LayerCost(owner.name, part, spent + call.macs, tokens)
    return tuple(row for row in rows.values() if row.macs)


def macs_by_part(layers: Iterable[LayerCost]) -> dict[Part, int]:
    """Sum up what :func:`macs_by_layer` returned; parts that a model does not have cost 0."""
    totals: dict[Part, int] = dict.fromkeys(get_args(Part), 0)
    for layer in layers:
        totals[layer.part] += layer.macs
    return totals


def trace_calls(model: nn.Module, input_shape: tuple[int, ...], *, as_published: bool) -> list[Call]:
    """Every module call of one forward pass without weights, in order of their start; see :func:`count_macs`."""
    skeleton = without_weights(model).eval().requires_grad_(False)  # the counter fails on a parameter passed on
    names = {module: name for name, module in skeleton.named_modules()}
    batch_norm_cost = BATCH_NORM_TRAINING_COST if as_published else BATCH_NORM_COST
    counter = FlopCounterMode(display=False, custom_mapping=norm_costs(batch_norm_cost))
    calls: list[Call] = []
    running: list[tuple[Call, int]] = []

    def enter(module: nn.Module, inputs: Any) -> None:
        calls.append(Call(names[module], module, running[-1][0] if running else None))
        running.append((calls[-1], counter.get_total_flops()))

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        call, flops_before = running.pop()
        call.output = output
        spent = (counter.get_total_flops() - flops_before) // 2  # the counter's flops: two a multiply-add
        call.macs += spent
        if call.parent is not None:
            call.parent.macs -= spent

    for module in skeleton.modules():
        module.register_forward_pre_hook(enter)
        module.register_forward_hook(leave)
        for option, value in AS_PUBLISHED.items():
            if as_published and hasattr(module, option):
                setattr(module, option, value)
    with torch.no_grad(), counter:
        skeleton(torch.empty(1, *input_shape, device="meta"))
    return calls


def is_layer(module: nn.Module) -> bool:
    """Whether it is a pre-norm transformer layer, as timm's and ours are built."""
    return all(hasattr(module, name) for name in ("norm1", "attn", "norm2", "mlp"))


def kind_of_layer(layer: nn.Module, kind_before: str) -> str:
    """The kind of a layer; plain self-attention that follows an STGM works on semantic tokens."""
    return getattr(layer, "kind", "semantic" if kind_before in ("stgm", "semantic") else "image")


def owner_of(call: Call) -> Call:
    """The layer that the call belongs to; else the outermost module around it that has no layers, or itself."""
    owner = call
    for around in call.lineage():
        if is_layer(around.module):
            return around
        if not any(is_layer(module) for module in around.module.modules()):
            owner = around
    return owner


def count_tokens(output: Tensor | tuple[Any, ...]) -> int:
    """Tokens in what a layer returned for one input: (1, ..., C), first of a tuple, windows counted together."""
    tokens = output if isinstance(output, Tensor) else output[0]
    return tokens.numel() // tokens.shape[-1]


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
