"""The roofline of a network: what memory and arithmetic of this machine allow at best (Williams et al., 2009).

A matrix product takes at least as long as its multiply-adds at the machine's peak, and at least as long as its weights
and activations at the machine's bandwidth. A layer on 16 tokens reads as many weights as one on 196, so at batch 1
multiply-adds alone may promise more than any engine can keep.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from .machine import MachineLimits, machine_limits, working_set
from .macs import without_weights

AS_ALLOWED = 0.95  # of what is allowed counts as all of it


@dataclass(frozen=True)
class Operator:
    """A matrix product, convolution or attention on one input.

    Attributes:
        macs: multiply-adds.
        weights: parameters that it reads.
        activations: other values that it reads, and those that it writes.
    """

    macs: int
    weights: int
    activations: int


@dataclass(frozen=True)
class Roofline:
    """What one forward pass moves and computes, and the least time for it.

    Matrix products, convolutions and attention count; what lies between them (normalisation, activation functions) is
    taken as fused into them, so no engine is faster, and eager is slower.

    Attributes:
        batch: inputs in the pass.
        weight_bytes: read once a pass, however large the batch.
        activation_bytes: read and written by the operators.
        macs: multiply-adds.
        bound_ms: the sum over all operators of the longer one of computing and moving.
        limits: of the machine.
    """

    batch: int
    weight_bytes: int
    activation_bytes: int
    macs: int
    bound_ms: float
    limits: MachineLimits

    def share_of_peak(self, measured_ms: float) -> float:
        """Part of the machine's peak that a pass of that time reaches, in [0, 1]."""
        return 1e3 * self.macs / measured_ms / self.limits.macs_per_s


def roofline(network: nn.Module, input_shape: tuple[int, ...] = (3, 224, 224), batch: int = 1) -> Roofline:
    """Bound the time of one forward pass on the device and in the precision of the network.

    Structure alone is looked at, no weights are read. The machine is measured for half a second at the first call and
    for every power of two of the network's size; ask where the device is free.

    Args:
        network: any model; it is left as it is.
        input_shape: (C, H, W) of one input.
        batch: inputs in the pass.
    """
    parameter = next(network.parameters())
    found, width = operators(network, input_shape), parameter.dtype.itemsize
    weights = width * sum(one.weights for one in found)
    limits = machine_limits(parameter.device, parameter.dtype, working_set(weights, parameter.device))
    seconds = (
        max(
            batch * one.macs / limits.macs_per_s,
            width * (one.weights + batch * one.activations) / limits.bytes_per_s,
        )
        for one in found
    )
    activations = batch * width * sum(one.activations for one in found)
    return Roofline(batch, weights, activations, batch * sum(one.macs for one in found), 1e3 * sum(seconds), limits)


def explain(model: Roofline, baseline: Roofline, model_ms: float, baseline_ms: float) -> str:
    """Say in one sentence how much of the saved multiply-adds shows at that batch size, and what keeps the rest back.

    Args:
        model, baseline: rooflines at the same batch size.
        model_ms, baseline_ms: measured times of one pass.
    """
    shown, by_macs, by_roofline = baseline_ms / model_ms, baseline.macs / model.macs, allowed(model, baseline)
    if shown >= AS_ALLOWED * by_macs:
        return f"At batch {model.batch}, time follows the multiply-adds: {shown:.1f}x of {by_macs:.1f}x shows."
    own, others = megabytes(model.weight_bytes), megabytes(baseline.weight_bytes)
    weights = f"both read the same {own} of weights" if own == others else f"{own} and {others} of weights are read"
    limit = f"with time for all {by_macs:.1f}x"
    if by_roofline < AS_ALLOWED * by_macs:
        limit = f"so at most {by_roofline:.1f}x of {by_macs:.1f}x can show"
    sentence = f"At batch {model.batch}, {weights}, {limit}"
    if shown >= AS_ALLOWED * by_roofline:
        return f"{sentence}, and {shown:.1f}x does."
    peaks = (100 * model.share_of_peak(model_ms), 100 * baseline.share_of_peak(baseline_ms))
    reached = "its pass reaches {:.0f} % of the machine's peak and the baseline's {:.0f} %".format(*peaks)
    return f"{sentence}; {reached}, so {shown:.1f}x shows."


def allowed(model: Roofline, baseline: Roofline) -> float:
    """The speed-up of a model over a baseline if both took the least time that the roofline allows."""
    return baseline.bound_ms / model.bound_ms


def megabytes(size: int) -> str:
    """Bytes as people write them: ``"44 MB"``, ``"0.3 MB"``."""
    return f"{size / 1e6:.0f} MB" if size >= 5e6 else f"{size / 1e6:.1f} MB"


def operators(network: nn.Module, input_shape: tuple[int, ...]) -> tuple[Operator, ...]:
    """Matrix products, convolutions and attention of one forward pass on one input, in order.

    Args:
        network: any model; it is copied without its weights.
        input_shape: (C, H, W).
    """
    skeleton = without_weights(network).eval().requires_grad_(False)
    recorder = Recorder({one.untyped_storage()._cdata for one in skeleton.parameters()})
    with torch.no_grad(), recorder.counter, recorder, AttentionAsOne(recorder):
        skeleton(torch.empty(1, *input_shape, device="meta"))
    return tuple(recorder.operators)


class Recorder(TorchDispatchMode):
    """Notes every operator with multiply-adds.

    Args:
        parameters: addresses of their storages.

    Attributes:
        counter: has to be entered before.
        operators: in order.
    """

    def __init__(self, parameters: set[int]) -> None:
        super().__init__()
        self.counter = FlopCounterMode(display=False)
        self.operators: list[Operator] = []
        self._parameters, self._within = parameters, False

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if self._within:
            return function(*args, **(kwargs or {}))
        return self.note(lambda: function(*args, **(kwargs or {})), (args, kwargs))

    def note(self, work: Callable[[], Any], inputs: Any) -> Any:
        """Do some work as one operator: what it takes and what it returns is moved, nothing in between."""
        before, self._within = self.counter.get_total_flops(), True
        try:
            result = work()
        finally:
            self._within = False
        if macs := (self.counter.get_total_flops() - before) // 2:
            read = [one for one in tree_leaves(inputs) if isinstance(one, Tensor)]
            weights = sum(one.numel() for one in read if one.untyped_storage()._cdata in self._parameters)
            moved = sum(one.numel() for one in (*read, *tree_leaves(result)) if isinstance(one, Tensor))
            self.operators.append(Operator(macs, weights, moved - weights))
        return result


class AttentionAsOne(TorchFunctionMode):
    """Lets fused attention be one operator, as its kernels keep the attention map to themselves."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return self._recorder.note(lambda: function(*args, **(kwargs or {})), (args, kwargs))
        return function(*args, **(kwargs or {}))
