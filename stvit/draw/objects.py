"""Detected objects on a picture.

All masks go into one map of object numbers, which a lookup table colours: drawing costs about the same for one object
and for a hundred. Supervision's annotators take a mask of the whole picture for each object, and RGB alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from stvit.detection import Detections
from stvit.detection.detections import mask_in_image

from .canvas import Canvas, draw_box, put_text, size_hw
from .palette import OPACITY, UNKNOWN, class_colours


def object_colours(labels: np.ndarray, numbers: np.ndarray | None = None) -> np.ndarray:
    """(N, 3) uint8 RGB: the colours of the objects' classes.

    Args:
        labels: (N,) of the classes.
        numbers: (N,) of the tracks, where objects are followed: those with 0 are grey.
    """
    colours = class_colours(int(labels.max(initial=-1)) + 1)[labels]
    return colours if numbers is None else np.where(numbers[:, None] > 0, colours, np.uint8(UNKNOWN))


def object_names(found: Detections, classes: Sequence[str], numbers: np.ndarray | None = None) -> list[str]:
    """What is written on objects: the number of the track, where there is one, the class and the score."""
    of_tracks = [0] * len(found) if numbers is None else numbers.tolist()
    return [
        f"{f'#{number} ' if number else ''}{classes[label]} {100 * score:.0f} %"
        for number, label, score in zip(of_tracks, found.labels.tolist(), found.scores.tolist(), strict=True)
    ]


def label_map(found: Detections) -> np.ndarray:
    """(H, W) uint8: 1 + number of the object that each source pixel belongs to, 0 for none.

    Of overlapping objects the smaller one is seen. ValueError for more than 255 objects.
    """
    if len(found) > 255:
        raise ValueError(f"{len(found)} objects do not fit into one map of bytes")
    labels = np.zeros(found.image_hw, np.uint8)
    x0, y0, x1, y1 = found.boxes.numpy().T
    for number in np.argsort(-(x1 - x0) * (y1 - y0), kind="stable").tolist():
        mask, (top, left) = mask_in_image(found.mask_probabilities[number], found.boxes[number], found.image_hw)
        height, width = mask.shape
        np.copyto(labels[top : top + height, left : left + width], number + 1, where=mask.numpy())
    return labels


def draw_objects(
    canvas: Canvas, found: Detections, colours: np.ndarray, names: Sequence[str], *, opacity: float = OPACITY
) -> None:
    """Draw every object's mask, outline, box and name; those of the surest on top.

    Args:
        canvas: changed; of the picture that the boxes belong to.
        colours: (N, 3) uint8 RGB.
        names: N.
        opacity: of the masks, in [0, 1].

    Raises:
        ValueError: objects of another picture, or more than 255.
    """
    if size_hw(canvas) != found.image_hw:
        raise ValueError(f"the picture is {size_hw(canvas)}, the objects belong to {found.image_hw}")
    tint(canvas, label_map(found), colours, opacity)
    boxes = found.boxes.round().int().tolist()
    for box, colour in zip(reversed(boxes), colours[::-1], strict=True):
        draw_box(canvas, box, colour)
    for box, colour, name in zip(reversed(boxes), colours[::-1], reversed(names), strict=True):
        put_text(canvas, [name], (box[0], box[1]), fill=colour, anchor=(0, 1))


def tint(canvas: Canvas, labels: np.ndarray, colours: np.ndarray, opacity: float) -> None:
    """Mix the picture with the colours of regions, whose outlines are drawn at full strength.

    Args:
        canvas: changed.
        labels: (H, W) uint8: 1 + number of the region that each pixel belongs to, 0 for none.
        colours: (N, 3) uint8 RGB, of the regions.
        opacity: of the colours, in [0, 1].
    """
    left, top, width, height = cv2.boundingRect(labels)
    if not width:
        return
    for plane in canvas:
        step = plane.step
        y, x = (max(start // step - 1, 0) for start in (top, left))  # with a margin, where outlines begin
        own = _reduced(labels[y * step : top + height + step, x * step : left + width + step], step)
        part = plane.values[y : y + own.shape[0], x : x + own.shape[1]]
        table = np.zeros((1, 256, *part.shape[2:]), np.uint8)
        table[0, 1 : 1 + len(colours)] = plane.of(colours)
        painted = cv2.LUT(cv2.merge([own] * 3) if part.ndim == 3 else own, table)
        cv2.copyTo(cv2.addWeighted(part, 1 - opacity, painted, opacity, 0), own, part)
        square = np.ones((3, 3), np.uint8)
        outlines = cv2.compare(cv2.erode(own, square), cv2.dilate(own, square), cv2.CMP_NE)
        cv2.copyTo(painted, cv2.bitwise_and(outlines, cv2.compare(own, 0, cv2.CMP_GT)), part)


def _reduced(labels: np.ndarray, step: int) -> np.ndarray:
    """A value for every square of ``step`` pixels a side: that of a region which covers some of it."""
    if step == 1:
        return labels
    whole = np.pad(labels, [(0, -side % step) for side in labels.shape])
    return np.maximum.reduce([whole[y::step, x::step] for y in range(step) for x in range(step)])
