"""What the tokens of one layer stand for: one type, made of a network's answer here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

import numpy as np
import torch

from stvit.trace import Fate, LayerRegions, LayerTrace

Wanted = Literal["none", "last", "all", "attention"]
"""Regions of which layers: of none, of the one that is shown, of all, of all with their attention maps."""

RegionKind = Literal["stgm", "recovery", "fused", "merged"]
DROPPED = -1  # in an assignment: the image token is not processed in full; ``TokenRegions.fate`` says why
CLEAR = -2  # in ``TokenRegions.grouped`` alone: the image token goes on by itself


@dataclass(frozen=True)
class TokenRegions:
    """The image regions that the tokens of one layer stand for, on one picture or one token frame of a clip.

    Attributes:
        kind: ``stgm`` and ``recovery`` layers tie semantic tokens to image tokens by attention; where image tokens are
            reduced, those that do not go on by themselves are ``fused`` into one (EViT) or ``merged`` into many (ToMe);
            where they are only left out, none has company.
        layer: its name, e.g. ``"STGM 2"``.
        assignment: (h, w) int16, number of the token that each image token belongs to, ``DROPPED`` where it has none.
        num_tokens: tokens that the layer puts out, a class token left out; all numbers lie below it.
        unit: 1-based dumbbell unit; 0 where the network has no units.
        semantic_grid_hw: rows and columns of the grid of semantic tokens; ``None`` where image tokens are reduced.
        attention: (num_tokens, h, w) float32, head-averaged attention between every semantic token and the image
            tokens; ``None`` where it was not asked for, or there is none.
        fate: what became of the image tokens of ``DROPPED``.

    Raises:
        ValueError: the fields contradict each other.
    """

    kind: RegionKind
    layer: str
    assignment: np.ndarray
    num_tokens: int
    unit: int = 0
    semantic_grid_hw: tuple[int, int] | None = None
    attention: np.ndarray | None = None
    fate: Fate = "dropped"

    def __post_init__(self) -> None:
        if self.assignment.ndim != 2 or not self.assignment.size:
            raise ValueError(f"assignment is a grid of image tokens, not of shape {self.assignment.shape}")
        if self.assignment.min() < DROPPED or self.assignment.max() >= self.num_tokens:
            raise ValueError(f"assignment names tokens outside [{DROPPED}, {self.num_tokens})")
        if self.semantic_grid_hw is not None and math.prod(self.semantic_grid_hw) != self.num_tokens:
            raise ValueError(f"{self.num_tokens} tokens do not fill a semantic grid of {self.semantic_grid_hw}")
        if self.attention is not None and self.attention.shape != (self.num_tokens, *self.image_grid_hw):
            expected = (self.num_tokens, *self.image_grid_hw)
            raise ValueError(f"attention is {self.attention.shape}, expected {expected}")

    @property
    def image_grid_hw(self) -> tuple[int, int]:
        """Rows and columns of the grid of image tokens."""
        return self.assignment.shape

    @property
    def reduces(self) -> bool:
        """Whether the layer drops, fuses or merges image tokens, instead of making semantic ones."""
        return self.kind in ("fused", "merged")

    def group_sizes(self) -> np.ndarray:
        """(num_tokens,) int64: how many image tokens each token stands for."""
        return np.bincount(self.assignment[self.assignment >= 0], minlength=self.num_tokens)

    def together(self) -> np.ndarray:
        """(h, w) bool: image tokens that share their token with others."""
        return (self.assignment >= 0) & (self.group_sizes()[self.assignment] > 1)

    def grouped(self) -> np.ndarray:
        """(h, w) int16: the assignment, with ``CLEAR`` where layers that reduce image tokens leave one by itself."""
        if not self.reduces:
            return self.assignment
        numbered = np.where(self.together(), self.assignment, CLEAR)
        return np.where(self.assignment == DROPPED, DROPPED, numbered).astype(np.int16)


Layer = TypeVar("Layer", LayerTrace, LayerRegions, TokenRegions)


def last_region_layer(layers: Sequence[Layer]) -> Layer | None:
    """The layer to show where one has to do: the last that makes semantic tokens, else the last; ``None`` of none."""
    made = [layer for layer in layers if layer.kind == "stgm"]
    return next(reversed(made or list(layers)), None)


def wanted_layers(layers: Sequence[Layer], wanted: Wanted) -> Sequence[Layer]:
    """Those of the layers with regions that are wanted."""
    if wanted == "none" or not layers:
        return ()
    return [last_region_layer(layers)] if wanted == "last" else layers


def coherence(assignment: np.ndarray) -> float:
    """Measure how connected the regions of a grid are, as Cohen's kappa of neighbouring image tokens.

    Returns:
        How often two image tokens side by side share their token, beyond what their shares of the grid alone make
        expected: 1 where all do but along few lines, 0 for tokens that are scattered at random or for a single region.

    Args:
        assignment: (h, w) integers.
    """
    pairs = (assignment[:, 1:], assignment[:, :-1]), (assignment[1:], assignment[:-1])
    agree = np.concatenate([(first == second).ravel() for first, second in pairs])
    shares = np.unique(assignment, return_counts=True)[1] / assignment.size
    by_chance = float(np.square(shares).sum())
    return 0.0 if by_chance == 1 else float((agree.mean() - by_chance) / (1 - by_chance))


def most_coherent(layers: Sequence[TokenRegions]) -> TokenRegions | None:
    """The layer whose regions a person reads best: the most coherent one that has semantic tokens; where image tokens
    are reduced, the last, which shows all that was done; ``None`` of none."""
    semantic = [regions for regions in layers if not regions.reduces]
    if not semantic:
        return layers[-1] if layers else None
    return max(semantic, key=lambda regions: coherence(regions.assignment))


def regions_of_batch(layers: Sequence[LayerRegions], batch_size: int) -> list[tuple[TokenRegions, ...]]:
    """The regions of every image of a batch, or of every token frame of its clips, layer by layer."""
    if not layers:
        return [()] * batch_size
    return list(zip(*map(regions_of, layers), strict=True))


def regions_of(found: LayerRegions) -> tuple[TokenRegions, ...]:
    """The regions of one layer, for every image of the batch or every token frame of its clips."""
    layer = found.layer
    grids = found.assignment.unflatten(1, layer.image_grid_hw).to(torch.int16).cpu().numpy()
    maps: Sequence[np.ndarray | None] = [None] * len(grids)
    if found.attention is not None:
        maps = found.attention.unflatten(2, layer.image_grid_hw).float().cpu().numpy()
    return tuple(
        TokenRegions(
            kind=("fused" if layer.fuses else "merged") if layer.reduces else layer.kind,
            layer=layer.name,
            assignment=grid,
            num_tokens=layer.num_tokens,
            unit=layer.unit,
            semantic_grid_hw=layer.semantic_grid_hw,
            attention=strength,
            fate=layer.fate,
        )
        for grid, strength in zip(grids, maps, strict=True)
    )
