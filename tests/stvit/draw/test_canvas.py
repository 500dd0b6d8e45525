"""Text on pictures."""

from __future__ import annotations

import numpy as np
import pytest

from stvit.draw.canvas import put_text, text_scale
from stvit.video.picture import Matrix, Picture
from tests.stvit.draw.painting import GREY, WAYS, drawn, ground


@WAYS
@pytest.mark.parametrize(("fill", "letters"), [(None, 255), ((250, 230, 40), 0), ((120, 20, 30), 255)])
def test_text_can_be_read_on_its_ground(matrix: Matrix | None, fill: tuple | None, letters: int) -> None:
    pixels = drawn(lambda canvas: put_text(canvas, ["HHH", "III"], (0, 0), fill), ground((720, 800)), matrix)
    background = np.array(fill) if fill else np.full(3, GREY * 0.3)
    assert np.abs(pixels[2, 2] - background).max() <= 4
    luma = pixels.mean(axis=2)
    extreme = luma[:60, :80].max() if letters else luma[:60, :80].min()
    assert abs(extreme - letters) <= 40
    assert np.abs(pixels[-10:] - GREY).max() <= 2


@WAYS
def test_text_is_made_smaller_rather_than_cut(matrix: Matrix | None) -> None:
    pixels = drawn(
        lambda canvas: put_text(canvas, ["a long line of words " * 3], (0, 96), anchor=(0, 1)), ground(), matrix
    )
    changed = np.abs(pixels - GREY).max(axis=2) > 4
    rows, columns = np.nonzero(changed)
    assert rows.min() > 60 and rows.max() == 95 and columns.max() <= 159


def test_letters_grow_with_the_picture() -> None:
    sizes = [text_scale(Picture.black((side, 2 * side)).canvas) for side in (90, 720, 2160)]
    assert sizes == [0.35, 0.8, 1.4]
