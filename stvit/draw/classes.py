"""Classes of pixels on a picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from .canvas import Canvas, put_text, size_hw
from .objects import tint
from .palette import OPACITY, class_colours

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


def label_colours(num_labels: int) -> np.ndarray:
    """(K, 3) uint8 RGB: the colour of every label: black for background, then those of the classes."""
    return np.concatenate([np.array([BACKGROUND_COLOUR], np.uint8), class_colours(num_labels - 1)])


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


def draw_classes(canvas: Canvas, labels: np.ndarray, classes: Sequence[str], *, opacity: float = OPACITY) -> None:
    """Draw every class but background in its colour, outlined and named.

    Args:
        canvas: changed.
        labels: (H, W) uint8, background 0.
        classes: names of the labels.
        opacity: of the colours, in [0, 1].

    Raises:
        ValueError: labels of another picture.
    """
    if size_hw(canvas) != labels.shape:
        raise ValueError(f"the picture is {size_hw(canvas)}, the labels belong to {labels.shape}")
    (height, width), colours = labels.shape, label_colours(len(classes))
    tint(canvas, labels, colours[1:], opacity)
    for tag in name_tags(labels):
        at_xy = round(tag.x * width), round(tag.y * height)
        put_text(canvas, [classes[tag.label]], at_xy, fill=colours[tag.label], anchor=(0.5, 0.5))
