"""Detected objects on a picture: pure functions of (picture, detections).

All masks go into one map of object numbers, which a lookup table colours: drawing costs about the same for one object
and for a hundred.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stvit.class_names import COCO_CLASSES
from stvit.detection import Detections
from stvit.detection.detections import mask_in_image

from .regions import token_colours

MASK_OPACITY = 0.5
PALETTE = token_colours(16, 4)
SCORE_SHOWN = 0.5  # of the picture to keep, and where the page's slider starts
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_PIXELS_PER_LINE = 420  # of the picture's shorter side, for each pixel of line width


def object_colours(labels: np.ndarray) -> np.ndarray:
    """(N, 3) uint8 RGB: one colour for each class, given out in the order in which classes come."""
    order = {label: number for number, label in enumerate(dict.fromkeys(labels.tolist()))}
    return PALETTE[[order[label] % len(PALETTE) for label in labels.tolist()]].reshape(-1, 3)


def label_map(found: Detections) -> np.ndarray:
    """(H, W) uint8: 1 + number of the object that each source pixel belongs to, 0 for none.

    Of overlapping objects the smaller one is seen. ValueError for more than 255 objects.
    """
    if len(found) > 255:
        raise ValueError(f"{len(found)} objects do not fit into one map of bytes")
    labels = np.zeros(found.image_hw, np.uint8)
    for number in np.argsort(-box_areas(found), kind="stable").tolist():
        mask, (top, left) = mask_in_image(found.mask_probabilities[number], found.boxes[number], found.image_hw)
        height, width = mask.shape
        np.copyto(labels[top : top + height, left : left + width], number + 1, where=mask.numpy())
    return labels


def box_areas(found: Detections) -> np.ndarray:
    """(N,) float: areas of the boxes in source pixels."""
    x0, y0, x1, y1 = found.boxes.numpy().T
    return (x1 - x0) * (y1 - y0)


def draw_objects(
    pixels: np.ndarray, found: Detections, *, opacity: float = MASK_OPACITY, classes: Sequence[str] = COCO_CLASSES
) -> np.ndarray:
    """The picture with every object's mask, outline, box, name and score.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture that the boxes belong to.
        opacity: of the masks, in [0, 1].
        classes: names of the labels.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    if pixels.shape[:2] != found.image_hw:
        raise ValueError(f"the picture is {pixels.shape[:2]}, the objects belong to {found.image_hw}")
    colours = object_colours(found.labels.numpy())
    drawn = tint(pixels, label_map(found), colours, opacity)
    line = line_width(found.image_hw)
    for number in reversed(range(len(found))):  # the surest on top
        tag = f"{classes[int(found.labels[number])]} {100 * float(found.scores[number]):.0f} %"
        _draw_box(drawn, found.boxes[number].tolist(), tag, tuple(map(int, colours[number])), line)
    return drawn


def tint(pixels: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float) -> np.ndarray:
    """The picture mixed with the colours of regions, whose outlines are drawn at full strength.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        labels: (H, W) uint8: 1 + number of the region that each pixel belongs to, 0 for none.
        colours: (N, 3) uint8 RGB, of the regions.
        opacity: of the colours, in [0, 1].
    """
    table = np.zeros((1, 256, 3), np.uint8)
    table[0, 1 : 1 + len(colours)] = colours
    painted = cv2.LUT(cv2.merge([labels] * 3), table)
    drawn = pixels.copy()
    cv2.copyTo(cv2.addWeighted(pixels, 1 - opacity, painted, opacity, 0), labels, drawn)
    square = np.ones((3, 3), np.uint8)
    inner = cv2.compare(cv2.erode(labels, square), cv2.dilate(labels, square), cv2.CMP_NE)
    cv2.copyTo(painted, cv2.bitwise_and(inner, cv2.compare(labels, 0, cv2.CMP_GT)), drawn)
    return drawn


def _draw_box(drawn: np.ndarray, box: Sequence[float], text: str, colour: tuple[int, int, int], line: int) -> None:
    left, top, right, bottom = (round(value) for value in box)
    cv2.rectangle(drawn, (left, top), (right, bottom), colour, line, cv2.LINE_AA)
    draw_tag(drawn, left, top, text, colour, line)


def line_width(image_hw: tuple[int, int]) -> int:
    """Pixels of a line that is seen well on a picture of this size."""
    return max(1, round(min(image_hw) / _PIXELS_PER_LINE))


def tag_size(text: str, line: int) -> tuple[int, int]:
    """Width and height of a name on its ground."""
    (width, height), below = cv2.getTextSize(text, _FONT, _font_scale(line), line)
    return width + 2 * _margin(line), height + below + 2 * _margin(line)


def draw_tag(drawn: np.ndarray, left: int, bottom: int, text: str, colour: tuple[int, int, int], line: int) -> None:
    """A name on a ground of its colour, with its lower left corner here, or as near as the picture's edges allow."""
    (width, height), margin = tag_size(text, line), _margin(line)
    below = cv2.getTextSize(text, _FONT, _font_scale(line), line)[1]
    x, y = min(max(left, 0), max(drawn.shape[1] - width, 0)), max(bottom, height)
    cv2.rectangle(drawn, (x, y - height), (x + width, y), colour, cv2.FILLED)
    ink = (0, 0, 0) if np.dot(colour, (0.299, 0.587, 0.114)) > 140 else (255, 255, 255)
    cv2.putText(drawn, text, (x + margin, y - below - margin), _FONT, _font_scale(line), ink, line, cv2.LINE_AA)


def _font_scale(line: int) -> float:
    return 0.4 + 0.12 * line


def _margin(line: int) -> int:
    return 2 + line
