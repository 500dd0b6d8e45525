"""What is drawn on a picture: functions that change it plane by plane, fast enough for every frame of a clip."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import cv2
import numpy as np

from stvit.class_names import COCO_CLASSES
from stvit.detection import Detections
from stvit.detection.detections import mask_in_image
from stvit.predict.regions import CLEAR, DROPPED
from stvit.video.picture import Canvas, Plane

REGION_OPACITY = 0.5
MASK_OPACITY = 0.45
OUTSIDE_BRIGHTNESS = 0.35
DROPPED_BRIGHTNESS = 0.25
TEXT_GROUND_BRIGHTNESS = 0.3
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


def draw_regions(canvas: Canvas, identities: np.ndarray, box_xyxy: tuple[float, float, float, float]) -> None:
    """Tint every region in the colour of its token, with lines between; what lies outside of the grid is dimmed.

    Args:
        canvas: changed.
        identities: (h, w), numbers from 0, ``CLEAR`` or ``DROPPED``.
        box_xyxy: where the grid lies, in pixels of the picture.
    """
    for plane in canvas:
        _tint(plane, identities, plane.of(colours(max(1, int(identities.max()) + 1))), np.divide(box_xyxy, plane.step))


def _tint(plane: Plane, identities: np.ndarray, values: np.ndarray, box_xyxy: np.ndarray) -> None:
    """``draw_regions`` on one plane.

    Args:
        values: of the tokens' colours, (num_tokens,) or (num_tokens, channels).
        box_xyxy: where the grid lies on the plane.
    """
    (rows, row_slice), (cells, column_slice) = (
        _cells(box_xyxy[axis], box_xyxy[axis + 2], identities.shape[1 - axis], plane.values.shape[1 - axis])
        for axis in (1, 0)
    )
    for outside in _around(plane.values, row_slice, column_slice):
        _darken(plane, outside, OUTSIDE_BRIGHTNESS)
    inside = plane.values[row_slice, column_slice]
    tint = _spread(values[np.maximum(identities, 0)], rows, cells)
    mixed = cv2.addWeighted(inside, 1 - REGION_OPACITY, tint, REGION_OPACITY, 0)
    if (identities < 0).any():
        cv2.copyTo(inside, _spread((identities == CLEAR).astype(np.uint8), rows, cells), mixed)
        dark = inside.copy()
        _darken(plane, dark, DROPPED_BRIGHTNESS)
        cv2.copyTo(dark, _spread((identities == DROPPED).astype(np.uint8), rows, cells), mixed)
    visible = np.where(identities == DROPPED, CLEAR, identities)
    _rule(mixed, visible, rows, cells, plane.of(LINE))
    _rule(mixed.swapaxes(0, 1), visible.T, cells, rows, plane.of(LINE))
    inside[:] = mixed


def _rule(values: np.ndarray, identities: np.ndarray, rows: np.ndarray, cells: np.ndarray, line: np.ndarray) -> None:
    """Draw the lines that run along rows: where one row of cells begins, before cells of another region.

    Args:
        values: of the grid, changed.
        rows, cells: the cell of every row and column of ``values``.
    """
    above = np.flatnonzero(np.diff(rows))
    begins = identities[rows[above]] != identities[rows[above + 1]]
    ruled = values[above + 1]
    ruled[begins[:, cells]] = line
    values[above + 1] = ruled


def _cells(start: float, end: float, parts: int, length: int) -> tuple[np.ndarray, slice]:
    """The cell of every pixel along one axis that lies on the grid, and where these pixels are."""
    cells = np.floor((np.arange(length) + 0.5 - start) * parts / (end - start)).astype(np.int64)
    on_grid = np.flatnonzero((cells >= 0) & (cells < parts))
    return cells[on_grid], slice(on_grid[0], on_grid[-1] + 1)


def _spread(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return values.take(columns, axis=1).take(rows, axis=0)


def _around(values: np.ndarray, rows: slice, columns: slice) -> list[np.ndarray]:
    """What lies above, below, left and right of a part."""
    above, below, beside = values[: rows.start], values[rows.stop :], values[rows]
    return [part for part in (above, below, beside[:, : columns.start], beside[:, columns.stop :]) if part.size]


def _darken(plane: Plane, part: np.ndarray, brightness: float) -> None:
    """Bring part of a plane nearer to black."""
    part[:] = cv2.convertScaleAbs(part, alpha=brightness, beta=(1 - brightness) * plane.black)


def _scalar(plane: Plane, rgb: tuple[int, int, int]) -> tuple[int, ...]:
    """A colour as OpenCV takes it for a plane."""
    return tuple(np.atleast_1d(plane.of(rgb)).tolist())


def draw_objects(
    canvas: Canvas,
    found: Detections,
    numbers: np.ndarray,
    least_score: float,
    names: Sequence[str] = COCO_CLASSES,
) -> None:
    """Mask, box, number, name and score of every object, in the colour of its number.

    Args:
        canvas: changed.
        numbers: (N,) from the tracker, 0 for none.
        least_score: of objects that are drawn.
        names: of the classes.
    """
    size = text_scale(canvas)
    shown = [index for index in reversed(range(len(found))) if found.scores[index] >= least_score]  # the surest on top
    fills = [tuple(colours(48)[number % 48].tolist()) if number else UNKNOWN for number in numbers.tolist()]
    sides = found.boxes.round().int().tolist()
    for index in shown:
        mask, corner_yx = mask_in_image(found.mask_probabilities[index], found.boxes[index], found.image_hw)
        for plane in canvas:
            _tint_mask(plane, mask.numpy(), corner_yx, fills[index])
            x0, y0, x1, y1 = (side // plane.step for side in sides[index])
            thick = max(1, round(2 * size / plane.step))
            cv2.rectangle(plane.values, (x0, y0), (x1, y1), _scalar(plane, fills[index]), thick)
    for index in shown:
        tag = f"#{numbers[index]} " if numbers[index] else ""
        name = f"{tag}{names[int(found.labels[index])]} {100 * float(found.scores[index]):.0f} %"
        put_text(canvas, [name], tuple(sides[index][:2]), size, fill=fills[index], above=True)


def _tint_mask(plane: Plane, mask: np.ndarray, corner_yx: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Tint every value of a plane of which a mask covers some; its corner is that of a pixel of the picture."""
    step, sides = plane.step, mask.shape
    before = [start % step for start in corner_yx]
    after = [-(start + side) % step for start, side in zip(corner_yx, sides, strict=True)]
    whole = np.pad(mask, tuple(zip(before, after, strict=True)))
    covered = np.logical_or.reduce([whole[y::step, x::step] for y in range(step) for x in range(step)])
    top, left = (start // step for start in corner_yx)
    part = plane.values[top : top + covered.shape[0], left : left + covered.shape[1]]
    if part.size:
        tint = np.full_like(part, plane.of(colour))
        tinted = cv2.addWeighted(part, 1 - MASK_OPACITY, tint, MASK_OPACITY, 0)
        cv2.copyTo(tinted, covered.astype(np.uint8), part)


def text_scale(canvas: Canvas) -> float:
    """The size of letters that suits a picture."""
    return min(max(min(canvas[0].values.shape[:2]) / 720 * 0.8, 0.35), 1.4)


def put_text(
    canvas: Canvas,
    lines: Sequence[str],
    at_xy: tuple[int, int],
    scale: float,
    fill: tuple[int, int, int] | None = None,
    above: bool = False,
) -> None:
    """Lines of text on a ground: of a colour, or the picture, darkened. They are made smaller where they would not fit.

    Args:
        canvas: changed.
        at_xy: the left top corner of the ground, or the left bottom one if it lies ``above``.
    """
    lines = [line.encode("ascii", "replace").decode() for line in lines]  # all that OpenCV's letters have
    height, width = canvas[0].values.shape[:2]
    widest = max(cv2.getTextSize(line, _FONT, scale, 1)[0][0] for line in lines)
    scale = min(scale, max(0.2, scale * (width - 6) / max(widest, 1)))
    thick = 2 if scale >= 0.9 else 1
    sizes = [cv2.getTextSize(line, _FONT, scale, thick)[0] for line in lines]
    margin = max(2, round(8 * scale))
    line_h = max(size[1] for size in sizes) + margin
    ground_w, ground_h = max(size[0] for size in sizes) + 2 * margin, line_h * len(lines) + margin
    x = min(max(at_xy[0], 0), max(width - ground_w, 0))
    y = min(max(at_xy[1] - (ground_h if above else 0), 0), max(height - ground_h, 0))
    bright = fill is not None and np.dot(fill, (0.299, 0.587, 0.114)) > 140
    for plane in canvas:
        step = plane.step
        ground = plane.values[y // step : (y + ground_h) // step, x // step : (x + ground_w) // step]
        if fill is None:
            _darken(plane, ground, TEXT_GROUND_BRIGHTNESS)
        else:
            ground[:] = plane.of(fill)
        letters = _scalar(plane, (0, 0, 0) if bright else LINE)
        for number, line in enumerate(lines, start=1):
            at = ((x + margin) // step, (y + line_h * number) // step)
            cv2.putText(plane.values, line, at, _FONT, scale / step, letters, max(1, thick // step), cv2.LINE_AA)
