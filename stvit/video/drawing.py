"""What is drawn on a frame: pure functions that change its pixels in place, fast enough for every frame of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from ..detection import COCO_CLASSES, Detections
from ..detection.masks import mask_in_image
from .regions import CLEAR, DROPPED

REGION_OPACITY = 0.5
MASK_OPACITY = 0.45
OUTSIDE_BRIGHTNESS = 0.35
DROPPED_BRIGHTNESS = 0.25
LINE = (255, 255, 255)
UNKNOWN = (200, 200, 200)  # an object that the tracker does not follow yet
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_GOLDEN_DEGREES = 137.508 / 2  # OpenCV's hues go to 180


@cache
def colours(number: int) -> np.ndarray:
    """(number, 3) uint8 RGB, read-only: hues that wander by the golden angle, in three strengths."""
    steps = np.arange(number)
    hsv = np.stack([steps * _GOLDEN_DEGREES % 180, 150 + steps % 3 * 45, 255 - steps % 2 * 60], axis=-1)
    rgb = cv2.cvtColor(np.rint(hsv).astype(np.uint8)[None], cv2.COLOR_HSV2RGB)[0]
    rgb.flags.writeable = False
    return rgb


def draw_regions(
    pixels: np.ndarray, identities: np.ndarray, num_tokens: int, box_xyxy: tuple[float, float, float, float]
) -> None:
    """Tint every region in the colour of its token, with lines between; what lies outside of the grid is dimmed.

    Args:
        pixels: (H, W, 3) uint8 RGB, changed.
        identities: (h, w), numbers in [0, num_tokens), ``CLEAR`` or ``DROPPED``.
        box_xyxy: where the grid lies in the frame.
    """
    (rows, row_slice), (columns, column_slice) = (
        _cells(box_xyxy[axis], box_xyxy[axis + 2], identities.shape[1 - axis], pixels.shape[1 - axis])
        for axis in (1, 0)
    )
    _dim_outside(pixels, row_slice, column_slice)
    inside = pixels[row_slice, column_slice]
    tint = np.where(identities[..., None] >= 0, colours(num_tokens)[identities], 0).astype(np.uint8)
    mixed = cv2.addWeighted(inside, 1 - REGION_OPACITY, _spread(tint, rows, columns), REGION_OPACITY, 0)
    if (identities < 0).any():
        untouched = _spread((identities == CLEAR).astype(np.uint8), rows, columns)
        cv2.copyTo(inside, untouched, mixed)
        dropped = _spread((identities == DROPPED).astype(np.uint8), rows, columns)
        cv2.copyTo(cv2.convertScaleAbs(inside, alpha=DROPPED_BRIGHTNESS), dropped, mixed)
    inside[:] = mixed
    cv2.polylines(pixels, _borders(identities, box_xyxy), False, LINE, 1)


def _cells(start: float, end: float, parts: int, length: int) -> tuple[np.ndarray, slice]:
    """The cell of every pixel along one axis that lies on the grid, and where these pixels are."""
    cells = np.floor((np.arange(length) + 0.5 - start) * parts / (end - start)).astype(np.int64)
    on_grid = np.flatnonzero((cells >= 0) & (cells < parts))
    return cells[on_grid], slice(on_grid[0], on_grid[-1] + 1)


def _spread(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return values.take(columns, axis=1).take(rows, axis=0)


def _dim_outside(pixels: np.ndarray, rows: slice, columns: slice) -> None:
    above, below = np.s_[: rows.start, :], np.s_[rows.stop :, :]
    left, right = np.s_[rows, : columns.start], np.s_[rows, columns.stop :]
    for part in (above, below, left, right):
        if pixels[part].size:
            pixels[part] = cv2.convertScaleAbs(pixels[part], alpha=OUTSIDE_BRIGHTNESS)


def _borders(identities: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> list[np.ndarray]:
    """Lines between cells of different regions, each (2, 2) int32 XY."""
    left, top, right, bottom = box_xyxy
    h, w = identities.shape
    xs = np.rint(left + (right - left) * np.arange(w + 1) / w).astype(np.int32)
    ys = np.rint(top + (bottom - top) * np.arange(h + 1) / h).astype(np.int32)
    visible = np.where(identities == DROPPED, CLEAR, identities)
    rows, columns = np.nonzero(visible[1:] != visible[:-1])
    across = np.stack([xs[columns], ys[rows + 1], xs[columns + 1], ys[rows + 1]], axis=1)
    rows, columns = np.nonzero(visible[:, 1:] != visible[:, :-1])
    down = np.stack([xs[columns + 1], ys[rows], xs[columns + 1], ys[rows + 1]], axis=1)
    return list(np.concatenate([across, down]).reshape(-1, 2, 2))


def draw_objects(
    pixels: np.ndarray,
    found: Detections,
    numbers: np.ndarray,
    least_score: float,
    names: Sequence[str] = COCO_CLASSES,
) -> None:
    """Mask, box, number, name and score of every object, in the colour of its number.

    Args:
        pixels: (H, W, 3) uint8 RGB, changed.
        numbers: (N,) from the tracker, 0 for none.
        least_score: of objects that are drawn.
        names: of the classes.
    """
    size = text_scale(pixels)
    for index in reversed(range(len(found))):  # the surest on top
        score, number = float(found.scores[index]), int(numbers[index])
        if score < least_score:
            continue
        colour = tuple(map(int, colours(48)[number % 48])) if number else UNKNOWN
        mask, (top, left) = mask_in_image(found.mask_probabilities[index], found.boxes[index], found.image_hw)
        part = pixels[top : top + mask.shape[0], left : left + mask.shape[1]]
        if part.size:
            tinted = cv2.addWeighted(part, 1 - MASK_OPACITY, np.full_like(part, colour), MASK_OPACITY, 0)
            cv2.copyTo(tinted, mask.numpy().astype(np.uint8), part)
        x0, y0, x1, y1 = (round(side) for side in found.boxes[index].tolist())
        cv2.rectangle(pixels, (x0, y0), (x1, y1), colour, max(1, round(2 * size)))
        tag = f"#{number} " if number else ""
        name = f"{tag}{names[int(found.labels[index])]} {100 * score:.0f} %"
        put_text(pixels, [name], (x0, y0), size, fill=colour, above=True)


def text_scale(pixels: np.ndarray) -> float:
    """The size of letters that suits a frame."""
    return min(max(min(pixels.shape[:2]) / 720 * 0.8, 0.35), 1.4)


def put_text(
    pixels: np.ndarray,
    lines: Sequence[str],
    at_xy: tuple[int, int],
    scale: float,
    fill: tuple[int, int, int] | None = None,
    above: bool = False,
) -> None:
    """Lines of text on a ground: of a colour, or the picture, darkened. They are made smaller where they would not fit.

    Args:
        pixels: (H, W, 3) uint8 RGB, changed.
        at_xy: the left top corner of the ground, or the left bottom one if it lies ``above``.
    """
    lines = [line.encode("ascii", "replace").decode() for line in lines]  # all that OpenCV's letters have
    height, width = pixels.shape[:2]
    widest = max(cv2.getTextSize(line, _FONT, scale, 1)[0][0] for line in lines)
    scale = min(scale, max(0.2, scale * (width - 6) / max(widest, 1)))
    thick = 2 if scale >= 0.9 else 1
    sizes = [cv2.getTextSize(line, _FONT, scale, thick)[0] for line in lines]
    margin = max(2, round(8 * scale))
    step = max(size[1] for size in sizes) + margin
    ground_w, ground_h = max(size[0] for size in sizes) + 2 * margin, step * len(lines) + margin
    x = min(max(at_xy[0], 0), max(width - ground_w, 0))
    y = min(max(at_xy[1] - (ground_h if above else 0), 0), max(height - ground_h, 0))
    ground = pixels[y : y + ground_h, x : x + ground_w]
    ground[:] = cv2.convertScaleAbs(ground, alpha=0.3) if fill is None else fill
    bright = fill is not None and np.dot(fill, (0.299, 0.587, 0.114)) > 140
    for number, line in enumerate(lines, start=1):
        cv2.putText(
            pixels,
            line,
            (x + margin, y + step * number),
            _FONT,
            scale,
            (0, 0, 0) if bright else LINE,
            thick,
            cv2.LINE_AA,
        )
