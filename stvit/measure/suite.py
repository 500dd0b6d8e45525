"""The papers' comparison in one process: every method beside the full-token model that it makes cheaper."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import timm
import torch

from stvit.factory import create_model

from .compare import Comparison, compare
from .macs import count_macs

SIZES = ("tiny", "small", "base")
MOST_MERGES = 16  # ToMe's r for DeiT: 12 layers of 16 leave 4 of 196 tokens


@dataclass(frozen=True)
class Contestant:
    """A model and what a table calls it."""

    label: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)


def groups() -> dict[str, Callable[[], tuple[Contestant, ...]]]:
    """The groups of the suite by name; the first model of each is the full-token one."""
    deit = {f"deit_{size}": lambda size=size: deit_group(size) for size in SIZES}
    swin = {f"swin_{size}": lambda size=size: swin_group(size) for size in SIZES}
    return deit | swin


def deit_group(size: str) -> tuple[Contestant, ...]:
    """DeiT in full, with semantic tokens, with EViT, and with ToMe at the cost of 16 semantic tokens."""
    stvit = f"stvit_deit_{size}_patch16_224"
    semantic = [Contestant(f"STViT, {n} tokens", stvit, {"num_semantic_tokens": n}) for n in (16, 36, 64, 100)]
    evit = [Contestant(f"EViT, {rate}", f"evit_deit_{size}_patch16_224", {"keep_rate": rate}) for rate in (0.7, 0.5)]
    r = merges_nearest_in_cost(f"tome_deit_{size}_patch16_224", semantic[0])
    tome = Contestant(f"ToMe, r = {r}", f"tome_deit_{size}_patch16_224", {"r": r})
    return (Contestant("DeiT", f"deit_{size}_patch16_224"), *semantic, *evit, tome)


def swin_group(size: str) -> tuple[Contestant, ...]:
    """Swin in full, with 4, 9 or 16 semantic tokens per window, and STViT-R where there is one."""
    windows = [
        Contestant(f"STViT, {side**2} per window", f"stvit_swin_{size}_224", {"semantic_window": side})
        for side in (2, 3, 4)
    ]
    recovering = [] if size == "tiny" else [Contestant("STViT-R", f"stvit_r_swin_{size}_224")]
    return (Contestant("Swin", f"swin_{size}_patch4_window7_224"), *windows, *recovering)


def merges_nearest_in_cost(tome: str, target: Contestant) -> int:
    """The r with which ToMe's multiply-adds come nearest to the target's."""
    with torch.device("meta"):
        goal = count_macs(timm.create_model(target.model, **target.options))
        model = timm.create_model(tome)
    costs = {}
    for r in range(MOST_MERGES + 1):
        model.r = r
        costs[r] = abs(count_macs(model) - goal)
    return min(costs, key=costs.get)


def run_suite(
    names: list[str], device: torch.device, precision: torch.dtype, **how: Any
) -> Iterator[tuple[str, Comparison]]:
    """Measure the throughput of one group after the other.

    Args:
        names: which of :func:`groups`.
        device, precision: where and in which type the models run.
        how: arguments of :func:`compare`.
    """
    for name in names:
        contestants = groups()[name]()
        models = {c.label: create_model(c.model, **c.options).to(device, precision) for c in contestants}
        yield name, compare(models, phases=("throughput",), **how)


def table(name: str, comparison: Comparison) -> str:
    """One group as text, each model against the first."""
    full, *others = comparison.costs
    lines = [
        f"{name}: {comparison.device}, {comparison.precision}, batch {comparison.batch_size}",
        f"{'model':24} {'GMACs':>7} {'images/s':>9} {'faster by (IQR)':>22} {'MACs allow':>11} {'quotient':>9}",
        f"{full:24} {comparison.costs[full].macs / 1e9:7.3f} {comparison.costs[full].images_per_second:9.1f}",
    ]
    for label in others:
        cost, ratio = comparison.costs[label], comparison.speed_up(label, full, "throughput")
        q1, median, q3 = ratio.measured
        spread = f"{median:.2f}x ({q1:.2f} to {q3:.2f})"
        lines.append(
            f"{label:24} {cost.macs / 1e9:7.3f} {cost.images_per_second:9.1f} {spread:>22} "
            f"{ratio.allowed_by_macs:10.2f}x {ratio.quotient:9.2f}"
        )
    return "\n".join(lines)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """One group as plain data."""
    data = asdict(comparison)
    del data["rounds"]
    full, *others = comparison.costs
    ratios = {label: asdict(comparison.speed_up(label, full, "throughput")) for label in others}
    return data | {"full_token_model": full, "speed_up_over_full_tokens": ratios}
