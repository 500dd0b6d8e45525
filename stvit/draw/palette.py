"""Colours, opacities and brightnesses of everything that is drawn on pictures."""

from __future__ import annotations

import math
from functools import cache

import cv2
import numpy as np

OPACITY = 0.45  # of the colours of regions, objects and classes
OUTSIDE_BRIGHTNESS = 0.3  # of what a model does not see
DROPPED_BRIGHTNESS = 0.25  # of image tokens that go on no more
FATE_BRIGHTNESS = {"dropped": DROPPED_BRIGHTNESS, "halted": DROPPED_BRIGHTNESS, "waiting": 0.52, "fast": 0.67}
MARK_OPACITY = 0.45  # of the white patterns that tell fates apart
UNSEEN_BRIGHTNESS = 0.33  # of what a token does not look at
GLOW, GLOW_OPACITY = (255, 176, 72), 0.3  # of what it looks at most
TEXT_GROUND_BRIGHTNESS = 0.3
LINE = (255, 255, 255)
FUSED = (196, 148, 84)  # image tokens that EViT joins into one
UNKNOWN = (200, 200, 200)  # an object that the tracker does not follow yet

# Candidate colours in CIELAB: differences lie in lightness first, which everybody sees; muted, so that the picture
# beneath stays the stronger one.
_LIGHTNESSES = (42, 56, 70, 84)
_CHROMAS = (24, 42)
_HUES = 24
_FIRST_HUE = 0.5  # of the circle: teal
_MOST_VIVID = 170  # from the weakest channel to the strongest
_RED_GREEN_WEIGHT = 0.4  # one man in twelve hardly sees this axis, so colours shall not depend on it
_OF_THEIR_OWN = 49  # so many tokens have colours that no other has
_NEIGHBOURHOOD = 3.5  # in steps of the grid


@cache
def token_colours(num_tokens: int, columns: int | None = None) -> np.ndarray:
    """(M, 3) uint8 RGB, read-only: colours that tell tokens apart that are neighbours in their grid.

    Each token in raster order takes the colour that differs most from those given to its neighbourhood so far, where
    nearer tokens count more; of up to 49 tokens, each has a colour of its own.

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
        differs = (contrast[:, chosen[:token][near]] * steps[near] ** 1.5).min(axis=1)
        if num_tokens <= _OF_THEIR_OWN:
            differs[chosen[:token]] = 0
        chosen[token] = differs.argmax()
    colours = candidates[chosen]
    colours.flags.writeable = False
    return colours


@cache
def _candidate_colours() -> tuple[np.ndarray, np.ndarray]:
    """(P, 3) uint8 RGB and (P, P) float32: how well each is told from each other."""
    angles = 2 * np.pi * (np.arange(_HUES) / _HUES + _FIRST_HUE)
    lightness, chroma, angle = np.meshgrid(_LIGHTNESSES, _CHROMAS, angles, indexing="ij")
    lab = np.stack([lightness, chroma * np.cos(angle), chroma * np.sin(angle)], axis=-1).astype(np.float32)
    rgb = np.rint(cv2.cvtColor(lab.reshape(1, -1, 3), cv2.COLOR_LAB2RGB)[0].clip(0, 1) * 255).astype(np.uint8)
    shown = cv2.cvtColor(rgb[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    in_gamut = np.linalg.norm(shown - lab.reshape(-1, 3), axis=1) < 4
    offered = in_gamut & (np.ptp(rgb.astype(int), axis=1) <= _MOST_VIVID)
    weighted = shown[offered] * np.float32([1, _RED_GREEN_WEIGHT, 1])
    return rgb[offered], np.linalg.norm(weighted[:, None] - weighted[None], axis=2)


@cache
def class_colours(num_classes: int) -> np.ndarray:
    """(K, 3) uint8 RGB, read-only: the colour of every class, background not among them, the same wherever it is drawn.

    Each class in turn takes the colour that differs most from those of the classes before it, so the first few differ
    most; more classes than there are colours begin again.
    """
    candidates, contrast = _candidate_colours()
    chosen = [0]
    while len(chosen) < min(num_classes, len(candidates)):
        chosen.append(int(contrast[:, chosen].min(axis=1).argmax()))
    colours = candidates[np.resize(chosen, num_classes)]
    colours.flags.writeable = False
    return colours
