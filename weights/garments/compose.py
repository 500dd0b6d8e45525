"""Composing: a garment becomes a tile with an alpha channel, a tile is placed on a canvas.

Canvas coordinates are pixels, the centre of the first pixel at (0.5, 0.5); angles are degrees, clockwise on the screen.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .sources import CLASS_NAMES

TILE = 84  # pixels per side of a tile; smooth enough for canvases of several hundred pixels
OPAQUE_FROM = 0.1  # grey value, of 1, from which a pixel belongs wholly to the garment
OPEN_CLASSES = (CLASS_NAMES.index("sandal"), CLASS_NAMES.index("bag"))  # one looks through their holes
EDGE = 2.5  # steepness of the outline after enlargement
DARKEST = 0.2  # share of the colour that is left in the garment's darkest parts
HALO = 0.45  # how much the surroundings are darkened close to the garment
MASK_FROM = 0.5  # alpha from which a pixel counts as the garment's


class Draws:
    """The random numbers of one sample, a pure function of the key: no order of calls elsewhere, no worker, no restart
    and no global seed changes them.

    Args:
        key: non-negative integers that name the sample, e.g. seed, data set, split, index.
    """

    def __init__(self, *key: int) -> None:
        self._next = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).random

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from ``low`` to ``high``."""
        return low + (high - low) * self._next()

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``."""
        return int(self._next() * count)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._next() < probability


@dataclass(frozen=True)
class Tile:
    """A garment ready to be placed.

    Attributes:
        layers: (3, TILE, TILE) float32 in [0, 1]: shade, alpha, and a soft halo around the garment.
        colour: RGB in [0, 1] that the shade is multiplied with.
        centre: of the garment's box, in tile coordinates from -1 to 1 (x, y).
        extent: longer side of the garment's box, as a share of the tile.
    """

    layers: Tensor
    colour: tuple[float, float, float]
    centre: tuple[float, float]
    extent: float


@dataclass(frozen=True)
class Placement:
    """Where a garment goes.

    Attributes:
        x, y: centre of the garment's box before it is turned, in canvas pixels.
        length: longer side of that box in pixels.
        angle: degrees, clockwise.
        mirrored: left and right swapped.
    """

    x: float
    y: float
    length: float
    angle: float = 0.0
    mirrored: bool = False


def make_tile(image: np.ndarray, label: int, colour: tuple[float, float, float]) -> Tile:
    """Cut a garment out of its black ground.

    Args:
        image: (28, 28) uint8.
        label: its class; holes of sandals and bags stay open, those of other garments are dark prints or folds.
        colour: RGB in [0, 1].
    """
    grey = image.astype(np.float32) / max(int(image.max()), 1)
    alpha = np.minimum(grey / OPAQUE_FROM, 1)
    if label not in OPEN_CLASSES:
        alpha[_enclosed(alpha >= MASK_FROM)] = 1
    rows, columns = (np.flatnonzero((alpha >= MASK_FROM).any(axis)) for axis in (1, 0))
    top, left, bottom, right = (rows[0], columns[0], rows[-1] + 1, columns[-1] + 1) if len(rows) else (0, 0, 28, 28)
    small = torch.from_numpy(np.stack([grey, alpha]))[None]
    halo = F.avg_pool2d(small[:, 1:], 5, stride=1, padding=2)
    layers = F.interpolate(torch.cat([small, halo], 1), (TILE, TILE), mode="bicubic", align_corners=False)[0]
    side = len(image)
    return Tile(
        layers.clamp_(0, 1),
        colour,
        centre=((left + right) / side - 1, (top + bottom) / side - 1),
        extent=max(bottom - top, right - left) / side,
    )


def _enclosed(mask: np.ndarray) -> np.ndarray:
    """Pixels that have pixels of the mask on all four sides."""
    sides = [np.maximum.accumulate(mask, axis) for axis in (0, 1)]
    sides += [np.flip(np.maximum.accumulate(np.flip(mask, axis), axis), axis) for axis in (0, 1)]
    return np.logical_and.reduce(sides)


def draw_colour(draws: Draws) -> tuple[float, float, float]:
    """A colour, not too dark."""
    return colorsys.hsv_to_rgb(draws.uniform(), draws.uniform(0.1, 0.9), draws.uniform(0.6, 1.0))


def draw_background(photos: tuple[Tensor, ...], canvas_hw: tuple[int, int], draws: Draws) -> Tensor:
    """(3, H, W) float32 in [0, 255]: a random part of a random photograph, perhaps mirrored, its brightness changed."""
    photo = photos[draws.below(len(photos))]
    height, width = photo.shape[1:]
    largest = min(height / canvas_hw[0], width / canvas_hw[1])
    zoom = largest * draws.uniform(0.5, 1.0)
    rows, columns = (max(int(side * zoom), 1) for side in canvas_hw)
    top, left = draws.below(height - rows + 1), draws.below(width - columns + 1)
    part = photo[:, top : top + rows, left : left + columns]
    if draws.chance(0.5):
        part = part.flip(-1)
    resized = F.interpolate(part[None], canvas_hw, mode="bilinear", antialias=True, align_corners=False)[0]
    return resized.float() * draws.uniform(0.6, 1.0)


def paste(canvas: Tensor, tile: Tile, placement: Placement) -> Tensor:
    """Put a garment on the canvas, in place.

    Args:
        canvas: (3, H, W) float32 in [0, 255].

    Returns:
        (H, W) bool, the pixels that show the garment.
    """
    H, W = canvas.shape[1:]
    side = placement.length / tile.extent  # of the whole tile, in pixels
    reach = side * math.sqrt(2)  # the tile and its halo stay within, however turned and off centre
    top, bottom = max(int(placement.y - reach), 0), min(int(placement.y + reach) + 1, H)
    left, right = max(int(placement.x - reach), 0), min(int(placement.x + reach) + 1, W)
    mask = torch.zeros(H, W, dtype=torch.bool)
    if top >= bottom or left >= right:
        return mask
    grid = _tile_grid(tile, placement, side, (top, bottom), (left, right))
    shade, alpha, halo = F.grid_sample(tile.layers[None], grid[None], align_corners=False)[0]
    alpha = ((alpha - MASK_FROM) * EDGE + MASK_FROM).clamp_(0, 1)
    colour = 255 * torch.tensor(tile.colour)[:, None, None] * (DARKEST + (1 - DARKEST) * shade)
    window = canvas[:, top:bottom, left:right]
    window.mul_(1 - HALO * halo).lerp_(colour, alpha)
    mask[top:bottom, left:right] = alpha >= MASK_FROM
    return mask


def _tile_grid(
    tile: Tile, placement: Placement, side: float, rows: tuple[int, int], columns: tuple[int, int]
) -> Tensor:
    """(h, w, 2): for every pixel of a part of the canvas, where it lies on the tile, from -1 to 1 (x, y)."""
    dx = (torch.arange(*columns) + 0.5 - placement.x) * (2 / side)
    dy = (torch.arange(*rows)[:, None] + 0.5 - placement.y) * (2 / side)
    cos, sin = math.cos(math.radians(placement.angle)), math.sin(math.radians(placement.angle))
    across = cos * dx + sin * dy
    down = cos * dy - sin * dx
    if placement.mirrored:
        across = -across
    return torch.stack([across + tile.centre[0], down + tile.centre[1]], dim=-1)


def tight_boxes(masks: Tensor) -> Tensor:
    """(N, H, W) bool, none empty -> (N, 4) float32, XYXY pixels: the smallest box that holds every set pixel."""
    boxes = torch.zeros(len(masks), 4)
    for first, axis in enumerate((1, 2)):  # collapse rows for x, columns for y
        hit = masks.any(dim=axis).float()
        boxes[:, first] = hit.argmax(dim=1)
        boxes[:, first + 2] = hit.shape[1] - hit.flip(1).argmax(dim=1)
    return boxes


def to_uint8(canvas: Tensor) -> Tensor:
    """[0, 255] float -> uint8, rounded."""
    return canvas.round_().clamp_(0, 255).to(torch.uint8)
