"""Comparisons of methods in one process, each beside the full-token model that it makes cheaper: those of the STViT
paper, and Table 4 with every method that has public code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

import timm
import torch
from torch import nn

from stvit.factory import create_model
from stvit.pretrained.records import record

from .compare import Comparison, compare
from .engines import EngineComparison, compare_engines
from .macs import count_macs

SIZES = ("tiny", "small", "base")
STVIT_16, STVIT_R, TOME_16, EVIT_HALF = "STViT, 16 tokens", "STViT-R", "ToMe, r = 16", "EViT, 0.5"
USUAL_SIDE = 3  # of the semantic tokens of a window, STViT-Swin's default
MOST_MERGES = 16  # ToMe's r for DeiT: 12 layers of 16 leave 4 of 196 tokens


@dataclass(frozen=True)
class Contestant:
    """A model and what a table calls it.

    Attributes:
        caution: why its measured figures are not those of the published model.
    """

    label: str
    model: str
    options: dict[str, Any] = field(default_factory=dict)
    caution: str = ""

    def published(self) -> dict[str, Any]:
        """Figures of its record, with the setting that they hold for; nothing where options change the model."""
        found = record(self.model)
        if self.options or not found.published:
            return {}
        return {**found.published, "note": found.published_note} if found.published_note else dict(found.published)


NOTHING_HALTS = (
    "random weights: no token halts, so time and multiply-adds are those of all tokens. Graphs have fixed shapes: they "
    "mask halted tokens, so with trained weights eager alone saves time"
)
SUITES = ("paper", "table4", "aims")


def groups_of(suite: str) -> dict[str, Callable[[], tuple[Contestant, ...]]]:
    """The groups of one of ``SUITES`` by name; the first model of each is the full-token one."""
    return {"paper": groups, "table4": table4_groups, "aims": aims_groups}[suite]()


def table4_groups() -> dict[str, Callable[[], tuple[Contestant, ...]]]:
    """The groups that compare STViT with the methods of its Table 4 and with later ones, as their papers set them."""
    deit = {f"deit_{size}": lambda size=size: table4_deit(size) for size in ("small", "base")}
    return deit | {f"swin_{size}": lambda size=size: table4_swin(size) for size in SIZES}


def table4_deit(size: str) -> tuple[Contestant, ...]:
    """DeiT in full, and every method on it in its default setting."""
    methods = {
        STVIT_16: f"stvit_deit_{size}_patch16_224",
        "DynamicViT, 0.7": f"dynamicvit_deit_{size}_patch16_224",
        "EViT, 0.7": f"evit_deit_{size}_patch16_224",
        "Evo-ViT": f"evo_vit_deit_{size}_patch16_224",
        "ToMe, r = 13": f"tome_deit_{size}_patch16_224",
        "ATC, 0.7": f"atc_deit_{size}_patch16_224",
        "DiffRate": f"diffrate_deit_{size}_patch16_224",
        "TokenLearner, 8": f"tokenlearner_deit_{size}_patch16_224",
    }
    found = [Contestant("DeiT", f"deit_{size}_patch16_224"), *(Contestant(*item) for item in methods.items())]
    if size == "small":
        found.append(Contestant("A-ViT (nothing halts)", "avit_small_patch16_224", caution=NOTHING_HALTS))
    return tuple(found)


def table4_swin(size: str) -> tuple[Contestant, ...]:
    """Swin in full, STViT-R where there is one, STViT and DynamicSwin."""
    full, *others = swin_group(size)
    ours = [one for one in others if one.label in ("STViT, 9 per window", STVIT_R)]
    return (full, *ours, Contestant("DynamicSwin, 0.7", f"dynamicswin_{size}_224"))


def aims_groups() -> dict[str, Callable[[], tuple[Contestant, ...]]]:
    """The groups of :data:`stvit.measure.aims.AIMS`: STViT at 16 tokens beside methods of its cost, and STViT-R."""
    full, stvit, *_ = deit_group("small")
    tome = Contestant(TOME_16, "tome_deit_small_patch16_224", {"r": 16})
    evit = Contestant(EVIT_HALF, "evit_deit_small_patch16_224", {"keep_rate": 0.5})
    swin, *_, recovering = swin_group("small")
    return {"deit_small": lambda: (full, stvit, tome, evit), "swin_small": lambda: (swin, recovering)}


def groups() -> dict[str, Callable[[], tuple[Contestant, ...]]]:
    """The groups of the papers' own tables."""
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
    stvit = f"stvit_swin_{size}_224"
    windows = [
        Contestant(f"STViT, {side**2} per window", stvit, {} if side == USUAL_SIDE else {"semantic_window": side})
        for side in (2, USUAL_SIDE, 4)
    ]
    recovering = [] if size == "tiny" else [Contestant(STVIT_R, f"stvit_r_swin_{size}_224")]
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
    """Measure the throughput of one group of the papers' tables after the other.

    Args:
        names: which groups.
        device, precision: where and in which type the models run.
        how: arguments of :func:`compare`.
    """
    for name in names:
        yield name, compare(built(groups()[name](), device, precision), phases=("throughput",), **how)


def run_suite_under_engines(
    suite: str, names: list[str], engines: list[str], device: torch.device, precision: torch.dtype, **how: Any
) -> Iterator[tuple[str, tuple[Contestant, ...], EngineComparison]]:
    """Measure one group after the other under several engines.

    Args:
        suite: one of ``SUITES``.
        names, device, precision: as of :func:`run_suite`.
        engines: names of :data:`stvit.predict.engines.ENGINES`.
        how: arguments of :func:`compare_engines`.
    """
    for name in names:
        full, *others = groups_of(suite)[name]()
        contestants = (*others, full)  # engines are compared with the last model
        yield name, contestants, compare_engines(partial(built, contestants, device, precision), engines, **how)


def built(contestants: tuple[Contestant, ...], device: torch.device, precision: torch.dtype) -> dict[str, nn.Module]:
    """The models by label, with random weights."""
    return {c.label: create_model(c.model, **c.options).to(device, precision) for c in contestants}


def known_of(contestants: tuple[Contestant, ...]) -> dict[str, dict[str, Any]]:
    """What stands beside the measured figures in a file: published ones, and cautions, by label."""
    published = {c.label: figures for c in contestants if (figures := c.published())}
    return {"published": published, "cautions": {c.label: c.caution for c in contestants if c.caution}}


def table(name: str, comparison: Comparison) -> str:
    """One group as text, each model against the first."""
    full, *others = comparison.costs
    lines = [
        f"{name}: {comparison.device}, {comparison.precision}, batch {comparison.batch_size}",
        f"{'model':24} {'GMACs':>7} {'images/s':>9} {'faster by (IQR)':>22} {'fewer MACs':>11} {'share':>9}",
    ]
    for label, cost in comparison.costs.items():
        line = f"{label:24} {cost.macs / 1e9:7.3f} {cost.images_per_second:9.1f}"
        if label in others:
            ratio = comparison.speed_up(label, full, "throughput")
            q1, median, q3 = ratio.measured
            spread = f"{median:.2f}x ({q1:.2f} to {q3:.2f})"
            line += f" {spread:>22} {ratio.allowed_by_macs:10.2f}x {ratio.quotient:9.2f}"
        lines.append(line)
    return "\n".join(lines)


def as_json(comparison: Comparison) -> dict[str, Any]:
    """One group as plain data."""
    data = asdict(comparison)
    del data["rounds"]
    full, *others = comparison.costs
    ratios = {label: asdict(comparison.speed_up(label, full, "throughput")) for label in others}
    return data | {"full_token_model": full, "speed_up_over_full_tokens": ratios}
