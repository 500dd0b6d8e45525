"""One model against baselines on the same input: cost, latency, throughput, memory, in one interleaved run."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torchvision
from torch import nn

from .macs import count_macs
from .timing import LatencySummary, Round, device_name, interleave, peak_memory_bytes, quartiles, summarise


@dataclass(frozen=True)
class ModelCost:
    """What one model costs.

    Attributes:
        macs: multiply-adds that this implementation computes for one input.
        macs_as_published: the same by the papers' way of counting.
        parameters: number of parameters.
        latency: of batch 1.
        throughput: of the larger batch, per forward pass.
        images_per_second: throughput batch size over its median time.
        peak_memory_bytes: at the throughput batch size; ``None`` off CUDA.
    """

    macs: int
    macs_as_published: int
    parameters: int
    latency: LatencySummary
    throughput: LatencySummary
    images_per_second: float
    peak_memory_bytes: int | None


@dataclass(frozen=True)
class SpeedUp:
    """How a model's speed compares with a baseline's.

    Attributes:
        measured: baseline time over model time within a round: first quartile, median, third quartile over the rounds.
        allowed_by_macs: baseline multiply-adds over the model's.
        quotient: median measured speed-up over what the multiply-adds allow.
    """

    measured: tuple[float, float, float]
    allowed_by_macs: float

    @property
    def quotient(self) -> float:
        return self.measured[1] / self.allowed_by_macs


@dataclass(frozen=True)
class Comparison:
    """A finished comparison; the first model is the one that is compared with the others."""

    device: str
    precision: str
    input_shape: tuple[int, int, int]
    batch_size: int
    versions: dict[str, str]
    costs: dict[str, ModelCost]
    latency_speed_up: dict[str, SpeedUp]
    throughput_speed_up: dict[str, SpeedUp]


def compare(
    models: Mapping[str, nn.Module],
    *,
    device: torch.device,
    precision: torch.dtype,
    input_shape: tuple[int, int, int] = (3, 224, 224),
    batch_size: int = 32,
    rounds: int = 30,
    progress: Callable[[str, int, int], Any] = lambda phase, done, total: None,
) -> Comparison:
    """Measure the first model against each of the others, all of them interleaved.

    Args:
        models: by name, on ``device``, in evaluation mode.
        batch_size: batch of the throughput measurement; latency is always that of batch 1.
        rounds: timed forward passes of each model and batch size.
        progress: told the phase (``"latency"`` or ``"throughput"``), finished rounds and all rounds.

    Raises:
        ValueError: fewer than two models.
    """
    if len(models) < 2:
        raise ValueError("a comparison needs a model and at least one baseline")
    images = torch.randn(batch_size, *input_shape, device=device)
    macs = {name: count_macs(model, input_shape) for name, model in models.items()}

    def run(phase: str, batch: torch.Tensor) -> list[Round]:
        finished = []
        for one in interleave(models, batch, rounds=rounds, precision=precision):
            finished.append(one)
            progress(phase, len(finished), rounds)
        return finished

    latency, throughput = run("latency", images[:1]), run("throughput", images)
    costs = {}
    for name, model in models.items():
        batched = summarise([one.times_ms[name] for one in throughput])
        costs[name] = ModelCost(
            macs[name],
            count_macs(model, input_shape, as_published=True),
            sum(p.numel() for p in model.parameters()),
            summarise([one.times_ms[name] for one in latency]),
            batched,
            1e3 * batch_size / batched.median_ms,
            peak_memory_bytes(model, images, precision),
        )
    first, *baselines = models
    return Comparison(
        device_name(device),
        str(precision).removeprefix("torch."),
        input_shape,
        batch_size,
        versions(),
        costs,
        {name: speed_up(latency, first, name, macs) for name in baselines},
        {name: speed_up(throughput, first, name, macs) for name in baselines},
    )


def speed_up(rounds: list[Round], model: str, baseline: str, macs: Mapping[str, int]) -> SpeedUp:
    """Ratio of the two times within each round: what slows the machine down for a while cancels."""
    ratios = quartiles([one.times_ms[baseline] / one.times_ms[model] for one in rounds])
    return SpeedUp(ratios, macs[baseline] / macs[model])


def versions() -> dict[str, str]:
    """Versions of what determines the speed."""
    found = {"python": platform.python_version(), "torch": torch.__version__, "torchvision": torchvision.__version__}
    return found | {"timm": timm.__version__}
