"""What is drawn on: the planes of a picture, of RGB pixels or of a clip's brightness and colour; and text on them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import ArrayLike

from .palette import LINE, TEXT_GROUND_BRIGHTNESS

_FONT = cv2.FONT_HERSHEY_SIMPLEX
_LUMA = (0.299, 0.587, 0.114)
_BRIGHT = 140  # grounds of more luma take black letters
_PIXELS_PER_LINE = 420  # of the picture's shorter side, for each pixel of line width


@dataclass(frozen=True)
class Plane:
    """A part of a picture, to be drawn on.

    Attributes:
        values: (h, w) or (h, w, channels) uint8.
        step: along both sides, how many pixels of the picture one value stands for.
        weights: (3,) or (3, channels), which make values of a colour: ``rgb @ weights + black``.
        black: value of black.
    """

    values: np.ndarray
    step: int
    weights: np.ndarray
    black: int

    def of(self, rgb: ArrayLike) -> np.ndarray:
        """Values of colours (..., 3) in [0, 255]: (...) or (..., channels) uint8."""
        return np.rint(np.asarray(rgb) @ self.weights + self.black).astype(np.uint8)

    def scalar(self, rgb: ArrayLike) -> tuple[int, ...]:
        """Values of one colour, as OpenCV's drawing functions take them."""
        return tuple(np.atleast_1d(self.of(rgb)).tolist())

    def darken(self, part: np.ndarray, brightness: float) -> None:
        """Bring a part of the values nearer to black, in place."""
        part[:] = cv2.convertScaleAbs(part, alpha=brightness, beta=(1 - brightness) * self.black)


Canvas = tuple[Plane, ...]  # the first plane has a value for every pixel


def rgb_canvas(pixels: np.ndarray) -> Canvas:
    """Pixels (H, W, 3) uint8 RGB to draw on."""
    return (Plane(pixels, 1, np.eye(3), 0),)


def columns(canvas: Canvas, start: int, stop: int) -> Canvas:
    """The part of a canvas between two of its pixels' columns, both even."""
    return tuple(
        Plane(plane.values[:, start // plane.step : stop // plane.step], plane.step, plane.weights, plane.black)
        for plane in canvas
    )


def rows(canvas: Canvas, start: int, stop: int | None = None) -> Canvas:
    """The part of a canvas between two of its pixels' rows, both even; to its end by default."""
    return tuple(
        Plane(
            plane.values[start // plane.step : None if stop is None else stop // plane.step],
            plane.step,
            plane.weights,
            plane.black,
        )
        for plane in canvas
    )


def fill(canvas: Canvas, colour: ArrayLike) -> None:
    """Give all of a canvas one colour."""
    for plane in canvas:
        plane.values[:] = plane.of(colour)


def size_hw(canvas: Canvas) -> tuple[int, int]:
    """Size of the picture in pixels."""
    return canvas[0].values.shape[:2]


def draw_box(canvas: Canvas, box_xyxy: Sequence[int], colour: ArrayLike) -> None:
    """Outline a box; its sides may lie outside of the picture."""
    line = max(1, round(min(size_hw(canvas)) / _PIXELS_PER_LINE))
    for plane in canvas:
        x0, y0, x1, y1 = (side // plane.step for side in box_xyxy)
        cv2.rectangle(plane.values, (x0, y0), (x1, y1), plane.scalar(colour), max(1, round(line / plane.step)))


def text_scale(canvas: Canvas) -> float:
    """Size of letters that suits a picture."""
    return min(max(min(size_hw(canvas)) / 720 * 0.8, 0.35), 1.4)


def put_text(
    canvas: Canvas,
    lines: Sequence[str],
    at_xy: tuple[int, int],
    fill: ArrayLike | None = None,
    anchor: tuple[float, float] = (0.0, 0.0),
    scale: float | None = None,
) -> None:
    """Draw lines of text on a ground: of a colour, or the picture, darkened. They are made smaller where they would
    not fit, and moved into the picture.

    Args:
        canvas: changed.
        at_xy: pixel at which the ground's anchor lies.
        anchor: part of the ground's width and height, from its top left corner.
        scale: size of letters, 1 for lines of some 28 pixels; by default what suits the picture.
    """
    lines = [line.encode("ascii", "replace").decode() for line in lines]  # all that OpenCV's letters have
    (height, width), scale = size_hw(canvas), scale or text_scale(canvas)
    widest = max(cv2.getTextSize(line, _FONT, scale, 1)[0][0] for line in lines)
    scale = min(scale, max(0.2, scale * (width - 6) / max(widest, 1)))
    thick = 2 if scale >= 0.9 else 1
    sizes = [cv2.getTextSize(line, _FONT, scale, thick)[0] for line in lines]
    margin = max(2, round(8 * scale))
    line_h = max(size[1] for size in sizes) + margin
    ground_w, ground_h = max(size[0] for size in sizes) + 2 * margin, line_h * len(lines) + margin
    x = min(max(at_xy[0] - round(anchor[0] * ground_w), 0), max(width - ground_w, 0))
    y = min(max(at_xy[1] - round(anchor[1] * ground_h), 0), max(height - ground_h, 0))
    ink = (0, 0, 0) if fill is not None and np.dot(fill, _LUMA) > _BRIGHT else LINE
    for plane in canvas:
        step = plane.step
        ground = plane.values[y // step : (y + ground_h) // step, x // step : (x + ground_w) // step]
        if fill is None:
            plane.darken(ground, TEXT_GROUND_BRIGHTNESS)
        else:
            ground[:] = plane.of(fill)
        for number, line in enumerate(lines, start=1):
            at = ((x + margin) // step, (y + line_h * number) // step)
            thick_here = max(1, thick // step)
            cv2.putText(plane.values, line, at, _FONT, scale / step, plane.scalar(ink), thick_here, cv2.LINE_AA)
