from __future__ import annotations

import pickle

import av
import cv2
import numpy as np
import pytest

from stvit.draw.canvas import columns, rgb_canvas
from stvit.video.picture import Matrix, Picture


def smooth(size_hw: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Colours that change slowly, so that chroma of half the resolution tells them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return cv2.resize(coarse, size_hw[::-1], interpolation=cv2.INTER_LINEAR)


@pytest.mark.parametrize("matrix", Matrix)
@pytest.mark.parametrize("size_hw", [(96, 160), (66, 130)])  # 66 / 4: chroma planes are no whole rows of luma
def test_colours_survive_the_way_there_and_back(matrix: Matrix, size_hw: tuple[int, int]) -> None:
    pixels = smooth(size_hw)
    picture = Picture.from_rgb(pixels, matrix)
    assert picture.size_hw == size_hw and picture.matrix is matrix
    assert np.abs(picture.rgb().astype(int) - pixels).mean() < 2


@pytest.mark.parametrize("matrix", Matrix)
@pytest.mark.parametrize("rgb", [(0, 0, 0), (255, 255, 255), (255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 120, 40)])
def test_planes_give_a_colour_the_values_that_ffmpeg_gives_it(matrix: Matrix, rgb: tuple[int, int, int]) -> None:
    converted = Picture.from_rgb(np.full((32, 32, 3), rgb, np.uint8), matrix)
    for plane in converted.canvas:
        assert abs(int(plane.values[8, 8]) - int(plane.of(rgb))) <= 1
    filled = Picture.black((32, 32), matrix)
    for plane in filled.canvas:
        plane.values[:] = plane.of(rgb)
    assert np.abs(filled.rgb().astype(int) - rgb).max() <= 3


def test_the_matrices_are_those_of_the_standards() -> None:
    """ITU-R BT.601-7 and BT.709-6, pure red in the limited range."""
    red = {matrix: [int(plane.of((255, 0, 0))) for plane in Picture.black((2, 2), matrix).canvas] for matrix in Matrix}
    assert red == {Matrix.BT601: [81, 90, 240], Matrix.BT709: [63, 102, 240]}


def test_a_black_picture_is_black() -> None:
    assert not Picture.black((4, 6)).rgb().any()


@pytest.mark.parametrize(("degrees", "turns"), [(0, 0), (90, 1), (180, 2), (270, 3)])
def test_pictures_are_turned_counterclockwise(degrees: int, turns: int) -> None:
    pixels = smooth((66, 96))
    turned = Picture.from_rgb(pixels, Matrix.BT601).turned(degrees)
    assert turned.matrix is Matrix.BT601
    assert np.abs(turned.rgb().astype(int) - np.rot90(pixels, turns)).mean() < 2


def test_a_picture_is_put_on_another_and_both_halves_stay_as_they_were() -> None:
    left, right = (Picture.from_rgb(smooth((66, 96), seed)) for seed in (0, 1))
    both = Picture.black((70, 192))
    for half, column in ((left, 0), (right, 96)):
        both.paste(half, 4, column)
    difference = both.rgb()[4:].astype(int) - np.hstack([left.rgb(), right.rgb()])
    assert np.abs(difference[2:, 2:94]).max() == 0  # colours flow together over the seams alone


def test_what_is_drawn_on_columns_is_drawn_on_the_picture() -> None:
    picture = Picture.black((8, 16))
    for plane in columns(picture.canvas, 4, 8):
        plane.values[:] = plane.of((255, 0, 0))
    red = np.abs(picture.rgb().astype(int) - (255, 0, 0)).max(axis=(0, 2))
    assert red[5:7].max() <= 3 and red[[0, 1, 2, 9, 10, 11]].min() > 200  # colours flow together at the seams


def test_pixels_are_drawn_on_as_they_are() -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    (plane,) = rgb_canvas(pixels)
    plane.values[1, 2] = plane.of((10, 200, 30))
    assert pixels[1, 2].tolist() == [10, 200, 30] and plane.black == 0


def test_a_pickled_picture_can_be_drawn_on() -> None:
    """Progress, with its picture, goes from process to process where a GPU is lent by the call."""
    pixels = smooth((66, 96))
    again = pickle.loads(pickle.dumps(Picture.from_rgb(pixels, Matrix.BT601)))
    assert again.matrix is Matrix.BT601 and np.abs(again.rgb().astype(int) - pixels).mean() < 2
    for plane in again.canvas:
        plane.values[:] = plane.black
    assert not again.rgb().any()


@pytest.mark.parametrize("size_hw", [(64, 66), (66, 130), (62, 854), (360, 638)])
def test_converting_stays_within_the_picture(size_hw: tuple[int, int]) -> None:
    """FFmpeg's scaler reads whole registers: up to 8 bytes past the last row were seen."""
    picture = Picture.from_rgb(smooth(size_hw))
    held = picture._values
    assert held.size - size_hw[0] * size_hw[1] * 3 // 2 >= 64
    expected = picture.rgb()
    held[size_hw[0] * size_hw[1] * 3 // 2 :] = 255 - held[-1]
    np.testing.assert_array_equal(picture.rgb(), expected)


@pytest.mark.parametrize("size_hw", [(65, 127), (64, 127), (65, 128)])
def test_odd_sides_become_even_and_what_was_there_stays(size_hw: tuple[int, int]) -> None:
    frame = av.VideoFrame(size_hw[1], size_hw[0], "yuv420p")
    stored = []
    for seed, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        rows[:] = smooth((plane.height, plane.width), seed)[..., 0]
        stored.append(rows)
    luma, *chroma = (plane.values for plane in Picture.of_frame(frame, Matrix.BT709).canvas)
    np.testing.assert_array_equal(luma[: size_hw[0], : size_hw[1]], stored[0])
    for side, axis in zip(size_hw, (0, 1), strict=True):
        if side % 2:
            np.testing.assert_array_equal(luma.take(-1, axis), luma.take(-2, axis))
    np.testing.assert_array_equal(chroma, stored[1:])


def test_a_frame_for_pyav_holds_the_same_values() -> None:
    picture = Picture.from_rgb(smooth((66, 96)), Matrix.BT601)
    frame = picture.frame()
    assert isinstance(frame, av.VideoFrame) and (frame.height, frame.width) == (66, 96)
    assert (frame.format.name, frame.colorspace, frame.color_range) == ("yuv420p", 6, 1)
    np.testing.assert_array_equal(frame.to_ndarray()[:66], picture.canvas[0].values)
