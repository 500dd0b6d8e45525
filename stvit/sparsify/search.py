"""Settings that reach a speed-up: as many multiply-adds as it leaves."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from timm.models.swin_transformer import SwinTransformer
from torch import nn

from stvit.measure.macs import count_macs
from stvit.measure.timing import interleave, speed_up
from stvit.predict.device import best_precision

from .convert import sparsify
from .fit import CannotSparsify, Method, check_structure, tokens_that_fit

ROUNDS = 12  # of one measurement


@dataclass(frozen=True)
class Setting:
    """Settings and what they cost.

    Attributes:
        num_semantic_tokens, stgm_position: see :func:`stvit.sparsify.convert.sparsify`.
        macs: multiply-adds of one input.
    """

    num_semantic_tokens: int
    stgm_position: int | None
    macs: int

    def __str__(self) -> str:
        """In words."""
        after = "" if self.stgm_position is None else f" after {self.stgm_position} layers"
        return f"{self.num_semantic_tokens} semantic tokens{after}"


def settings(
    model: nn.Module, input_shape: tuple[int, ...], method: Method = "stvit", stgm_layers: int = 2
) -> list[Setting]:
    """All numbers of tokens up to half of the image tokens and all positions, the one with most multiply-adds first.

    Raises:
        CannotSparsify: the network has another structure, or too few tokens or layers.
    """
    found = []
    for side, position in _candidates(model, method, stgm_layers):
        sparse = sparsify(model, side**2, position, stgm_layers, method)
        found.append(Setting(side**2, position, count_macs(sparse, input_shape)))
    if not found:
        raise CannotSparsify("There are too few image tokens or layers to choose among.", "Name --tokens instead.")
    return sorted(found, key=lambda one: one.macs, reverse=True)


def _candidates(model: nn.Module, method: Method, stgm_layers: int) -> Iterator[tuple[int, int | None]]:
    check_structure(model, method)
    if isinstance(model, SwinTransformer):
        cells, depth = model.layers[2].blocks[0].window_area, len(model.layers[2].blocks)
    else:
        cells, depth = math.prod(model.patch_embed.grid_size), len(model.blocks)
    largest, _ = tokens_that_fit(model)
    positions = range(depth - stgm_layers + 1) if method == "stvit" else [None]
    for side in range(2, min(math.isqrt(cells // 2), largest) + 1):
        for position in positions:
            yield side, position


def search(candidates: list[Setting], target: float, measured: Callable[[Setting], float]) -> tuple[Setting, float]:
    """The setting with most multiply-adds that is fast enough, by bisection: fewer are taken to be faster.

    Args:
        candidates: at least one; most multiply-adds first.
        target: times the original's speed.
        measured: the speed-up of a setting.

    Returns:
        The setting and its measured speed-up.

    Raises:
        CannotSparsify: not even the last one reaches the target.
    """
    low, high = 0, len(candidates) - 1
    best = candidates[high], measured(candidates[high])
    if best[1] < target:
        raise CannotSparsify(
            f"No setting is {target:g} times as fast as the original here: {best[0]} reach {best[1]:.2f}.",
            "Lower --target-speedup.",
        )
    while low < high:
        middle = (low + high) // 2
        gain = measured(candidates[middle])
        if gain >= target:
            high, best = middle, (candidates[middle], gain)
        else:
            low = middle + 1
    return best


def placed(models: dict[str, nn.Module], device: str) -> dict[str, nn.Module]:
    """The models on a device, in its fastest precision; in a module that processes which measure can import."""
    where = torch.device(device)
    return {name: model.to(where, best_precision(where)).eval() for name, model in models.items()}


def gain_of(sparse: nn.Module, original: nn.Module, images: torch.Tensor) -> float:
    """How many times as fast as the original it is on these images, in eager; median of interleaved rounds."""
    rounds = [one.times_ms for one in interleave({"sparse": sparse, "original": original}, images, rounds=ROUNDS)]
    return speed_up([one["sparse"] for one in rounds], [one["original"] for one in rounds]).median
