"""Drawing on both kinds of canvas: RGB pixels, and the planes of a clip's picture."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from stvit.draw.canvas import Canvas, rgb_canvas
from stvit.video.picture import Matrix, Picture

GREY = 120
WAYS = pytest.mark.parametrize("matrix", [None, *Matrix])


def drawn(paint: Callable[[Canvas], None], pixels: np.ndarray, matrix: Matrix | None = None) -> np.ndarray:
    """``pixels`` after ``paint``, (H, W, 3) int: painted as RGB, or by way of a picture."""
    if matrix is None:
        own = pixels.copy()
        paint(rgb_canvas(own))
        return own.astype(int)
    picture = Picture.from_rgb(pixels, matrix)
    paint(picture.canvas)
    return picture.rgb().astype(int)


def ground(size_hw: tuple[int, int] = (96, 160)) -> np.ndarray:
    return np.full((*size_hw, 3), GREY, np.uint8)


def mixed(colour: np.ndarray, opacity: float) -> np.ndarray:
    """The ground mixed with a colour."""
    return GREY * (1 - opacity) + colour * opacity
