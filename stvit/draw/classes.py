"""Classes of pixels drawn on a picture: pure functions of (picture, labels)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .objects import MASK_OPACITY, PALETTE, draw_tag, line_width, tag_size, tint

BACKGROUND = 0
BACKGROUND_COLOUR = (0, 0, 0)
TAG_SIDE = 640  # names are placed on a copy of the map of this size
TAGGED = 0.004  # part of the picture that a region covers at least to be named


@dataclass(frozen=True)
class Tag:
    """A name for a region.

    Attributes:
        label: the class.
        x, y: the place deepest inside the region, in [0, 1] of the picture's width and height.
    """

    label: int
    x: float
    y: float


def class_colours(num_classes: int) -> np.ndarray:
    """(K, 3) uint8 RGB: the colour of every class, the same in every picture; background is black."""
    garments = PALETTE[np.arange(num_classes - 1) % len(PALETTE)]
    return np.concatenate([np.array([BACKGROUND_COLOUR], np.uint8), garments])


def name_tags(labels: np.ndarray) -> tuple[Tag, ...]:
    """A tag for every connected region of a class that is large enough; none for background.

    Args:
        labels: (H, W) uint8, background 0.
    """
    height, width = labels.shape
    scale = min(1.0, TAG_SIDE / max(height, width))
    small_wh = max(1, round(width * scale)), max(1, round(height * scale))
    small = cv2.resize(labels, small_wh, interpolation=cv2.INTER_NEAREST)
    return tuple(tag for label in np.unique(small).tolist() if label != BACKGROUND for tag in _tags_of(label, small))


def _tags_of(label: int, labels: np.ndarray) -> list[Tag]:
    number, regions, figures, _ = cv2.connectedComponentsWithStats((labels == label).astype(np.uint8))
    framed = cv2.copyMakeBorder((labels == label).astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(framed, cv2.DIST_L2, 3)[1:-1, 1:-1]
    tags = []
    for region in range(1, number):
        if figures[region, cv2.CC_STAT_AREA] < TAGGED * labels.size:
            continue
        row, column = np.unravel_index(np.where(regions == region, depth, 0).argmax(), labels.shape)
        tags.append(Tag(label, (column + 0.5) / labels.shape[1], (row + 0.5) / labels.shape[0]))
    return tags


def draw_classes(
    pixels: np.ndarray, labels: np.ndarray, classes: Sequence[str], *, opacity: float = MASK_OPACITY
) -> np.ndarray:
    """The picture with every class but background in its colour, outlined and named.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8, background 0.
        classes: names of the labels.
        opacity: of the colours, in [0, 1].

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: labels of another picture.
    """
    if pixels.shape[:2] != labels.shape:
        raise ValueError(f"the picture is {pixels.shape[:2]}, the labels belong to {labels.shape}")
    colours, line = class_colours(len(classes)), line_width(labels.shape)
    drawn = tint(pixels, labels, colours[1:], opacity)
    for tag in name_tags(labels):
        name = classes[tag.label]
        width, height = tag_size(name, line)
        left, bottom = round(tag.x * labels.shape[1] - width / 2), round(tag.y * labels.shape[0] + height / 2)
        draw_tag(drawn, left, bottom, name, tuple(map(int, colours[tag.label])), line)
    return drawn
