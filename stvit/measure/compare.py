"""Several models on the same input: cost, latency, throughput and memory, all of them interleaved in one run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import timm
import torch
import torchvision
from torch import nn

from stvit.predict.device import device_name

from .macs import count_macs
from .memory import peak_memory_bytes
from .roofline import Roofline, allowed, roofline
from .timing import LatencySummary, Quartiles, Round, interleave, speed_up, summarise

Phase = Literal["latency", "throughput"]


@dataclass(frozen=True)
class ModelCost:
    """What one model costs.

    Attributes:
        macs: multiply-adds that this implementation computes for one input.
        macs_as_published: the same by the papers' way of counting.
        parameters: number of parameters.
        latency: of batch 1; ``None`` where only throughput was measured.
        throughput: of the larger batch, per forward pass.
        images_per_second: throughput batch size over its median time.
        peak_memory_bytes: at the throughput batch size, see :func:`stvit.measure.memory.peak_memory_bytes`.
    """

    macs: int
    macs_as_published: int
    parameters: int
    latency: LatencySummary | None
    throughput: LatencySummary
    images_per_second: float
    peak_memory_bytes: int


@dataclass(frozen=True)
class SpeedUp:
    """How a model's speed compares with a baseline's.

    Attributes:
        measured: see :func:`stvit.measure.timing.speed_up`.
        allowed_by_macs: baseline multiply-adds over the model's.
        quotient: median measured speed-up over what the multiply-adds allow.
        allowed_by_roofline: see :func:`stvit.measure.roofline.allowed`.
    """

    measured: Quartiles
    allowed_by_macs: float
    quotient: float
    allowed_by_roofline: float


@dataclass(frozen=True)
class Comparison:
    """Finished measurements of several models.

    Attributes:
        device: device in words.
        precision: of weights and activations, e.g. ``"bfloat16"``.
        input_shape: (C, H, W).
        batch_size: of the throughput measurement.
        versions: of what determines the speed.
        costs: by model.
        rounds: the raw times of each phase.
        rooflines: of a pass of each phase, by model.
    """

    device: str
    precision: str
    input_shape: tuple[int, int, int]
    batch_size: int
    versions: dict[str, str]
    costs: dict[str, ModelCost]
    rounds: dict[Phase, list[Round]]
    rooflines: dict[Phase, dict[str, Roofline]]

    def speed_up(self, model: str, baseline: str, phase: Phase) -> SpeedUp:
        """Compare a model's speed in one phase with a baseline's."""
        times = ([one.times_ms[name] for one in self.rounds[phase]] for name in (model, baseline))
        measured = speed_up(*times)
        by_macs = self.costs[baseline].macs / self.costs[model].macs
        bounds = self.rooflines[phase]
        by_roofline = allowed(bounds[model], bounds[baseline])
        return SpeedUp(measured, by_macs, measured.median / by_macs, by_roofline)


def compare(
    models: Mapping[str, nn.Module],
    *,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    batch_size: int = 32,
    rounds: int = 30,
    phases: tuple[Phase, ...] = ("latency", "throughput"),
    progress: Callable[[str, int, int], Any] = lambda phase, done, total: None,
) -> Comparison:
    """Measure all models, interleaved.

    Args:
        models: by name, in evaluation mode, on one device and in one precision.
        batch_size: batch of the throughput measurement; latency is always that of batch 1.
        rounds: timed forward passes of each model and batch size.
        phases: what to measure; throughput always is.
        progress: told the phase, finished rounds and all rounds.

    Raises:
        ValueError: fewer than two models, or models on several devices or in several precisions.
    """
    if len(models) < 2:
        raise ValueError("a comparison needs a model and at least one baseline")
    kinds = {(p.device, p.dtype) for model in models.values() for p in model.parameters()}
    if len(kinds) > 1:
        raise ValueError(f"the models have parameters of several kinds: {sorted(map(str, kinds))}")
    device, precision = kinds.pop()
    images = torch.randn(batch_size, *input_shape, device=device, dtype=precision)
    batches = {"latency": images[:1], "throughput": images}
    finished: dict[Phase, list[Round]] = {}
    for phase in phases:
        finished[phase] = []
        for one in interleave(models, batches[phase], rounds=rounds):
            finished[phase].append(one)
            progress(phase, len(finished[phase]), rounds)
    return Comparison(
        device_name(device),
        str(precision).removeprefix("torch."),
        input_shape,
        batch_size,
        versions(),
        {name: model_cost(name, model, images, finished) for name, model in models.items()},
        finished,
        {
            phase: {name: roofline(model, input_shape, len(batches[phase])) for name, model in models.items()}
            for phase in phases
        },
    )


def model_cost(name: str, model: nn.Module, images: torch.Tensor, finished: dict[Phase, list[Round]]) -> ModelCost:
    """Everything about one model."""
    shape = tuple(images.shape[1:])
    latency = [one.times_ms[name] for one in finished.get("latency", [])]
    throughput = summarise([one.times_ms[name] for one in finished["throughput"]])
    return ModelCost(
        count_macs(model, shape),
        count_macs(model, shape, as_published=True),
        sum(p.numel() for p in model.parameters()),
        summarise(latency) if latency else None,
        throughput,
        1e3 * len(images) / throughput.median_ms,
        peak_memory_bytes(model, images),
    )


def versions() -> dict[str, str]:
    """Versions of what determines the speed."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return found | {"timm": timm.__version__}
