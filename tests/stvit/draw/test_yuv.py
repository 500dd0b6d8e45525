from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from stvit.detection import Detections
from stvit.draw.yuv import (
    LINE,
    MASK_OPACITY,
    OUTSIDE_BRIGHTNESS,
    REGION_OPACITY,
    _tint_mask,
    colours,
    draw_objects,
    draw_regions,
    put_text,
    text_scale,
)
from stvit.predict.regions import CLEAR, DROPPED
from stvit.video.picture import Canvas, Matrix, Picture, rgb_canvas

GREY = 120


def drawn(paint: Callable[[Canvas], None], pixels: np.ndarray, matrix: Matrix | None) -> np.ndarray:
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
    return GREY * (1 - opacity) + colour * opacity


WAYS = pytest.mark.parametrize("matrix", [None, *Matrix])


@WAYS
def test_regions_are_tinted_and_what_lies_outside_is_dimmed(matrix: Matrix | None) -> None:
    identities = np.array([[0, 1, 2], [CLEAR, DROPPED, 5]])
    pixels = drawn(lambda canvas: draw_regions(canvas, identities, (32.0, 0.0, 128.0, 96.0)), ground(), matrix)
    for (row, column), number in np.ndenumerate(identities):
        centre = pixels[48 * row + 24, 32 + 32 * column + 16]
        expected = {CLEAR: GREY, DROPPED: GREY * 0.25}.get(number)
        expected = mixed(colours(6)[number].astype(float), REGION_OPACITY) if expected is None else expected
        assert np.abs(centre - expected).max() <= 4, (row, column)
    for column in (10, 150):
        assert np.abs(pixels[50, column] - GREY * OUTSIDE_BRIGHTNESS).max() <= 3


@WAYS
def test_lines_run_between_regions_and_nowhere_else(matrix: Matrix | None) -> None:
    """Upright at 80 below 48, lying at 48 left of 80; what is clear and what was dropped is one ground."""
    identities = np.array([[0, 0, CLEAR, DROPPED], [0, 0, 1, 1]])
    pixels = drawn(lambda canvas: draw_regions(canvas, identities, (0.0, 0.0, 160.0, 96.0)), ground(), matrix)
    assert np.abs(pixels[52:90, 80] - LINE).max() <= 12
    assert np.abs(pixels[48, 84:155] - LINE).max() <= 12
    for rows, columns in ((slice(4, 44), 40), (slice(52, 92), 40), (slice(52, 92), 120)):
        assert pixels[rows, columns].std(axis=0).max() < 1
    assert pixels[48, 4:76].std(axis=0).max() < 1
    luma = pixels[4:44, 100:140].mean(axis=2)
    assert len(np.unique(np.abs(luma[20] - luma[20, 0]) > 20)) == 2 and luma.max() <= GREY + 3


def test_a_grid_that_reaches_beyond_the_picture_fills_it() -> None:
    identities = np.arange(4).reshape(2, 2)
    paint = lambda canvas: draw_regions(canvas, identities, (-10.0, -6.0, 180.0, 120.0))  # noqa: E731
    pixels = drawn(paint, ground(), Matrix.BT709)
    corners = pixels[[4, 4, 92, 92], [4, 156, 4, 156]]
    expected = [mixed(colour.astype(float), REGION_OPACITY) for colour in colours(4)]
    assert np.abs(corners - expected).max() <= 4


def found(box: tuple[float, ...], score: float = 0.9) -> Detections:
    return Detections(
        boxes=torch.tensor([box]),
        scores=torch.tensor([score]),
        labels=torch.zeros(1, dtype=torch.int64),
        mask_probabilities=torch.ones(1, 28, 28),
        image_hw=(96, 160),
    )


@WAYS
@pytest.mark.parametrize("box", [(40.0, 30.0, 120.0, 80.0), (41.0, 31.0, 121.0, 81.0), (-9.0, 40.0, 60.0, 130.0)])
def test_objects_are_tinted_within_their_boxes(matrix: Matrix | None, box: tuple[float, ...]) -> None:
    pixels = drawn(lambda canvas: draw_objects(canvas, found(box), np.array([7]), 0.5), ground(), matrix)
    tinted = mixed(colours(48)[7].astype(float), MASK_OPACITY)
    x0, y0, x1, y1 = (int(min(max(side, 0), limit)) for side, limit in zip(box, (160, 96, 160, 96), strict=True))
    inside = pixels[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3]
    assert np.abs(inside[len(inside) // 2 :] - tinted).max() <= 6
    far = np.ones((96, 160), bool)
    far[max(y0 - 30, 0) : y1 + 3, max(x0 - 3, 0) : x0 + 140] = False
    assert np.abs(pixels[far] - GREY).max() <= 3
    edge = pixels[(y0 + y1) // 2, x1]
    assert np.abs(edge - colours(48)[7]).max() <= (0 if matrix is None else 90)  # colour has half the resolution
    assert np.abs(edge - colours(48)[7]).mean() < np.abs(edge - GREY).mean()


@WAYS
def test_a_mask_of_a_single_column_is_tinted(matrix: Matrix | None) -> None:
    canvas_hw, mask = (96, 160), np.ones((20, 1), bool)

    def paint(canvas: Canvas) -> None:
        for plane in canvas:
            _tint_mask(plane, mask, (31, 41), (255, 0, 0))

    before, after = (drawn(work, ground(canvas_hw), matrix) for work in (lambda canvas: None, paint))
    changed = np.abs(after - before).max(axis=2)
    assert changed[31:51, 41].min() > 30 and changed[:, :36].max() == changed[:, 47:].max() == 0
    assert (after[31:51, 41] @ (1, -1, 0)).min() > 60


@WAYS
def test_names_lie_above_the_masks_of_other_objects(matrix: Matrix | None) -> None:
    sure, other = found((10.0, 10.0, 150.0, 90.0)), found((40.0, 50.0, 100.0, 90.0), 0.7)
    pairs = {name: torch.cat([getattr(own, name) for own in (sure, other)]) for name in ("boxes", "scores", "labels")}
    both = replace(sure, mask_probabilities=torch.ones(2, 28, 28), **pairs)
    pixels = drawn(lambda canvas: draw_objects(canvas, both, np.array([7, 11]), 0.5), ground(), matrix)
    margin = pixels[40:47, 40]  # left of the letters
    assert np.abs(margin - colours(48)[11]).max() <= 4


def test_objects_that_are_not_sure_are_not_drawn() -> None:
    paint = lambda canvas: draw_objects(canvas, found((40.0, 30.0, 120.0, 80.0), 0.4), np.array([1]), 0.5)  # noqa: E731
    np.testing.assert_array_equal(drawn(paint, ground(), None), ground())


@WAYS
@pytest.mark.parametrize(("fill", "letters"), [(None, 255), ((250, 230, 40), 0), ((120, 20, 30), 255)])
def test_text_can_be_read_on_its_ground(matrix: Matrix | None, fill: tuple | None, letters: int) -> None:
    pixels = drawn(lambda canvas: put_text(canvas, ["HHH", "III"], (0, 0), 0.8, fill), ground(), matrix)
    background = np.array(fill) if fill else np.full(3, GREY * 0.3)
    assert np.abs(pixels[2, 2] - background).max() <= 4
    luma = pixels.mean(axis=2)
    extreme = luma[:60, :80].max() if letters else luma[:60, :80].min()
    assert abs(extreme - letters) <= 40
    assert np.abs(pixels[-10:] - GREY).max() <= 2


@WAYS
def test_text_is_made_smaller_rather_than_cut(matrix: Matrix | None) -> None:
    pixels = drawn(
        lambda canvas: put_text(canvas, ["a long line of words " * 3], (0, 96), 1.0, None, True), ground(), matrix
    )
    changed = np.abs(pixels - GREY).max(axis=2) > 4
    rows, columns = np.nonzero(changed)
    assert rows.min() > 60 and rows.max() == 95 and columns.max() <= 159


def test_letters_grow_with_the_picture() -> None:
    sizes = [text_scale(Picture.black((side, 2 * side)).canvas) for side in (90, 720, 2160)]
    assert sizes == [0.35, 0.8, 1.4]
