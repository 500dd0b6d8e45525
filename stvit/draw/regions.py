"""Drawings of token regions on a picture: pure functions of (picture, clusters, geometry).

The token grid is coarse, and it is shown as it is: every source pixel gets the value of the one image token that covers
it, without smoothing.
"""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np

from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import DROPPED, TokenRegions

OUTSIDE_BRIGHTNESS = 0.3
HEAT_OPACITY = 0.55
LINE_COLOUR = (255, 255, 255)
FUSED_COLOUR = (214, 138, 38)
DROPPED_COLOUR = (9, 14, 22)
DROPPED_OPACITY = 0.78

# Candidate colours in CIELAB: bright and strong enough to be told apart through the picture, never neon.
_LIGHTNESSES = (50, 60, 70, 80)
_CHROMAS = (36, 54)
_HUES = 24
_RED_GREEN_WEIGHT = 0.4  # one man in twelve hardly sees this axis, so colours shall not depend on it
_NEIGHBOURHOOD = 3.5  # in steps of the grid


@cache
def token_colours(num_tokens: int, columns: int | None = None) -> np.ndarray:
    """(M, 3) uint8 RGB, read-only: colours that tell tokens apart that are neighbours in their grid.

    Each token in raster order takes the colour that differs most from those given to its neighbourhood so far, where
    nearer tokens count more.

    Args:
        num_tokens: M.
        columns: width of the token grid; a square grid's if not given.
    """
    columns = columns or max(1, math.isqrt(num_tokens))
    places = np.stack(np.divmod(np.arange(num_tokens), columns), axis=1)
    candidates, contrast = _candidate_colours()
    chosen = np.zeros(num_tokens, np.int64)
    for token in range(1, num_tokens):
        steps = np.linalg.norm(places[:token] - places[token], axis=1)
        near = steps <= _NEIGHBOURHOOD
        chosen[token] = (contrast[:, chosen[:token][near]] * steps[near] ** 1.5).min(axis=1).argmax()
    colours = candidates[chosen]
    colours.flags.writeable = False
    return colours


def label_map(clusters: TokenRegions, geometry: InputGeometry) -> np.ndarray:
    """(H, W) int16: the semantic token that each source pixel belongs to, -1 outside the crop."""
    return geometry.spread(clusters.assignment, outside=-1)


def draw_clusters(
    pixels: np.ndarray,
    clusters: TokenRegions,
    geometry: InputGeometry,
    *,
    opacity: float = 0.55,
    boundaries: bool = True,
) -> np.ndarray:
    """The picture with each region in the colour of its semantic token; dimmed where the model sees nothing.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture that ``geometry`` belongs to.
        opacity: of the colours, in [0, 1].
        boundaries: whether to draw lines, two pixels wide, between regions.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    colours = token_colours(clusters.num_tokens, clusters.semantic_grid_hw[1])
    drawn = _tint(pixels, colours[clusters.assignment], geometry, opacity)
    if boundaries:
        drawn[_borders(label_map(clusters, geometry))] = LINE_COLOUR
    return drawn


def draw_attention(pixels: np.ndarray, clusters: TokenRegions, token: int, geometry: InputGeometry) -> np.ndarray:
    """The picture with one semantic token's attention as heat, from dark (none) to yellow (its strongest).

    A line encloses the token's own region.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture that ``geometry`` belongs to.
        token: index in raster order of the semantic grid.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: no such token, or the attention was not kept.
    """
    if clusters.attention is None:
        raise ValueError(f"the attention of {clusters.layer} was not kept")
    if not 0 <= token < clusters.num_tokens:
        raise ValueError(f"token {token} lies outside [0, {clusters.num_tokens})")
    attention = clusters.attention[token]
    levels = np.rint(attention / (attention.max() or 1) * 255).astype(np.uint8)
    heat = cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO)[..., ::-1]
    drawn = _tint(pixels, heat, geometry, HEAT_OPACITY)
    drawn[_borders(label_map(clusters, geometry) == token)] = LINE_COLOUR
    return drawn


def group_colours(reduction: TokenRegions) -> np.ndarray:
    """(T, 3) uint8 RGB: a colour for each token of the layer, only meant for those that stand for several image tokens.

    A group is coloured by its first image token, so that it keeps its colour while it grows from layer to layer.
    """
    if reduction.kind == "fused":
        return np.tile(np.array(FUSED_COLOUR, np.uint8), (reduction.num_tokens, 1))
    rows, columns = reduction.image_grid_hw
    first = np.zeros(reduction.num_tokens, np.int64)
    tokens, cells = np.unique(reduction.assignment, return_index=True)
    first[tokens[tokens >= 0]] = cells[tokens >= 0]
    return token_colours(rows * columns, columns)[first]


def draw_reduction(
    pixels: np.ndarray, reduction: TokenRegions, geometry: InputGeometry, *, opacity: float = 0.55
) -> np.ndarray:
    """The picture with image tokens that go on by themselves left clear, dropped ones dark, joined ones tinted.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture that ``geometry`` belongs to.
        opacity: of the tint, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.
    """
    together, dropped = reduction.together(), reduction.assignment == DROPPED
    colours = np.where(dropped[..., None], DROPPED_COLOUR, group_colours(reduction)[reduction.assignment])
    clear = _tint(pixels, colours.astype(np.uint8), geometry, 0.0)
    drawn = clear.copy()
    for cells, strength in ((together, opacity), (dropped, DROPPED_OPACITY)):
        where = geometry.spread(cells.astype(np.uint8), outside=0).astype(bool)
        drawn[where] = _tint(pixels, colours.astype(np.uint8), geometry, strength)[where]
    labels = geometry.spread(np.where(together, reduction.assignment, -1).astype(np.int16), outside=-2)
    drawn[_borders(labels) & (geometry.spread(together.astype(np.uint8), outside=0) > 0)] = LINE_COLOUR
    return drawn


def _tint(pixels: np.ndarray, token_rgb: np.ndarray, geometry: InputGeometry, opacity: float) -> np.ndarray:
    """The picture mixed with one colour for each image token, (h, w, 3) uint8."""
    if pixels.shape[:2] != geometry.source_hw:
        raise ValueError(f"the picture is {pixels.shape[:2]}, the geometry belongs to {geometry.source_hw}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity lies in [0, 1], not {opacity}")
    inside = geometry.crop_slices()
    colours = geometry.spread(token_rgb, outside=0)
    drawn = cv2.convertScaleAbs(pixels, alpha=OUTSIDE_BRIGHTNESS)
    drawn[inside] = cv2.addWeighted(pixels[inside], 1 - opacity, colours[inside], opacity, 0)
    return drawn


def _borders(labels: np.ndarray) -> np.ndarray:
    """(H, W) bool: pixels with another label beside, above or below them."""
    borders = np.zeros(labels.shape, bool)
    vertical = labels[1:] != labels[:-1]
    horizontal = labels[:, 1:] != labels[:, :-1]
    borders[1:] |= vertical
    borders[:-1] |= vertical
    borders[:, 1:] |= horizontal
    borders[:, :-1] |= horizontal
    return borders


@cache
def _candidate_colours() -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) uint8 RGB and (P, P) float32: how well each is told from each other."""
    angles = np.arange(_HUES) * (2 * np.pi / _HUES)
    lightness, chroma, angle = np.meshgrid(_LIGHTNESSES, _CHROMAS, angles, indexing="ij")
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1).astype(np.float32)
    rgb = np.rint(cv2.cvtColor(lab.reshape(1, -1, 3), cv2.COLOR_LAB2RGB)[0].clip(0, 1) * 255).astype(np.uint8)
    shown = cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    in_gamut = np.linalg.norm(shown - lab.reshape(-1, 3), axis=1) < 4
    weighted = shown[in_gamut] * np.float32([1, _RED_GREEN_WEIGHT, 1])
    return rgb[in_gamut], np.linalg.norm(weighted[:, None] - weighted[None], axis=2)
