"""What is drawn on a picture, and where."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from stvit.draw.canvas import rgb_canvas
from stvit.draw.palette import (
    DROPPED_BRIGHTNESS,
    FATE_BRIGHTNESS,
    FUSED,
    GLOW,
    GLOW_OPACITY,
    LINE,
    MARK_OPACITY,
    OPACITY,
    OUTSIDE_BRIGHTNESS,
    UNSEEN_BRIGHTNESS,
    token_colours,
)
from stvit.draw.regions import draw_attention, draw_regions, grid_box, region_colours
from stvit.predict.preprocess import InputGeometry, Preprocessing
from stvit.predict.regions import CLEAR, DROPPED, TokenRegions
from stvit.video.picture import Matrix
from tests.cpu_time import cpu_seconds
from tests.stvit.draw.painting import GREY, WAYS, drawn, ground, mixed

COLOURS = token_colours(9)

SQUARE_GRIDS = range(3, 11)
DEUTERANOPIA = np.array(  # Machado, Oliveira, Fernandes 2009, severity 1; on linear RGB
    [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]]
)


def geometry_of(height: int, width: int) -> InputGeometry:
    return Preprocessing().geometry((height, width))


def clusters_of(assignment: np.ndarray, semantic_grid_hw: tuple[int, int]) -> TokenRegions:
    num_tokens = semantic_grid_hw[0] * semantic_grid_hw[1]
    attention = (np.arange(num_tokens)[:, None, None] == assignment[None]).astype(np.float32)
    return TokenRegions("stgm", "STGM 1", assignment.astype(np.int16), num_tokens, 1, semantic_grid_hw, attention)


def regions_on(pixels: np.ndarray, regions: TokenRegions, geometry: InputGeometry, **options: object) -> np.ndarray:
    own = pixels.copy()
    canvas = rgb_canvas(own)
    draw_regions(canvas, regions.grouped(), region_colours(regions), grid_box(canvas, geometry), **options)
    return own


def attention_on(pixels: np.ndarray, regions: TokenRegions, token: int, geometry: InputGeometry) -> np.ndarray:
    own = pixels.copy()
    canvas = rgb_canvas(own)
    draw_attention(canvas, regions, token, grid_box(canvas, geometry))
    return own


def label_map(regions: TokenRegions, geometry: InputGeometry) -> np.ndarray:
    return geometry.spread(regions.assignment, outside=-1)


@pytest.fixture
def quarters() -> TokenRegions:
    """14 x 14 image tokens, a quarter of them for each of four semantic tokens."""
    return clusters_of(np.kron(np.array([[0, 1], [2, 3]]), np.ones((7, 7), int)), (2, 2))


def neighbour_distance(colours: np.ndarray, columns: int) -> float:
    """Smallest CIELAB distance between tokens side by side or one above the other."""
    lab = cv2.cvtColor(colours[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB).reshape(-1, columns, 3)
    return min(np.linalg.norm(np.diff(lab, axis=axis), axis=2).min() for axis in (0, 1))


def seen_without_green_cones(colours: np.ndarray) -> np.ndarray:
    linear = (colours / 255.0) ** 2.2 @ DEUTERANOPIA.T
    return np.rint(linear.clip(0, 1) ** (1 / 2.2) * 255).astype(np.uint8)


@pytest.mark.parametrize("side", SQUARE_GRIDS)
def test_neighbouring_tokens_differ_clearly(side):
    colours = token_colours(side * side)
    assert colours.shape == (side * side, 3) and colours.dtype == np.uint8
    assert neighbour_distance(colours, side) >= 40
    assert neighbour_distance(seen_without_green_cones(colours), side) >= 23


@pytest.mark.parametrize(("rows", "columns"), [(2, 3), (6, 9), (24, 36)])
def test_grids_that_are_not_square_are_told_their_width(rows, columns):
    assert neighbour_distance(token_colours(rows * columns, columns), columns) >= 35


@pytest.mark.parametrize("num_tokens", [16, 36, 49])
def test_few_tokens_have_colours_that_no_other_has(num_tokens):
    assert len(np.unique(token_colours(num_tokens), axis=0)) == num_tokens


def test_colours_are_muted_so_that_the_picture_stays_the_stronger_one():
    lab = cv2.cvtColor(token_colours(100)[None].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0]
    assert np.linalg.norm(lab[:, 1:], axis=1).max() < 46


def test_token_colours_are_deterministic_and_cannot_be_changed():
    np.testing.assert_array_equal(token_colours(36), token_colours.__wrapped__(36))
    with pytest.raises(ValueError, match="read-only"):
        token_colours(36)[0] = 0


@pytest.mark.parametrize("size", [(8, 8), (256, 256), (300, 500), (500, 300), (333, 1000)], ids=str)
def test_every_pixel_takes_the_colour_of_the_token_that_covers_its_centre(size, quarters):
    geometry, pixels = geometry_of(*size), np.full((*size, 3), 200, np.uint8)
    index_map = geometry.spread(np.arange(14 * 14).reshape(14, 14), outside=-1)
    expected = region_colours(quarters)[quarters.assignment.ravel()[index_map]]
    expected[index_map < 0] = 200 * OUTSIDE_BRIGHTNESS
    np.testing.assert_array_equal(regions_on(pixels, quarters, geometry, opacity=1, lines=False), expected)


def test_regions_take_their_tokens_colour_and_the_rest_is_dimmed(quarters):
    geometry = geometry_of(256, 512)
    pixels = np.full((256, 512, 3), 200, np.uint8)
    drawn = regions_on(pixels, quarters, geometry, opacity=0.5, lines=False)
    labels, colours = label_map(quarters, geometry), token_colours(4, 2)
    for token in range(4):
        mixed = (200 + colours[token].astype(float)) / 2
        assert np.abs(drawn[labels == token] - mixed).max() <= 1
    assert (drawn[labels == -1] < 100).all() and (drawn[labels == -1] > 0).all()


def test_opacity_goes_from_the_picture_to_the_plain_colours(quarters):
    geometry = geometry_of(256, 256)  # no scaling: the crop is 16..240
    pixels = np.random.default_rng(0).integers(0, 256, (256, 256, 3), np.uint8)
    inside = np.s_[16:240, 16:240]
    bare = regions_on(pixels, quarters, geometry, opacity=0, lines=False)
    plain = regions_on(pixels, quarters, geometry, opacity=1, lines=False)
    np.testing.assert_array_equal(bare[inside], pixels[inside])
    np.testing.assert_array_equal(plain[inside], token_colours(4, 2)[label_map(quarters, geometry)[inside]])


def test_lines_run_between_regions_and_nowhere_else(quarters):
    geometry = geometry_of(256, 256)  # no scaling: the crop is 16..240, its middle 128
    drawn = regions_on(np.zeros((256, 256, 3), np.uint8), quarters, geometry)
    lines = (drawn == LINE).all(axis=2)
    expected = np.zeros((256, 256), bool)
    for edge in (16, 128, 240):
        expected[edge - 1 : edge + 1, 16:240] = True
        expected[16:240, edge - 1 : edge + 1] = True
    np.testing.assert_array_equal(lines, expected)


def test_the_picture_glows_where_a_token_looks_and_is_dark_elsewhere(quarters):
    geometry = geometry_of(256, 256)
    drawn = attention_on(np.full((256, 256, 3), 90, np.uint8), quarters, 1, geometry)
    labels = label_map(quarters, geometry)
    away_from_lines = cv2.erode((labels == 1).astype(np.uint8), np.ones((5, 5))) > 0
    strongest = drawn[away_from_lines]
    assert (strongest == strongest[0]).all()
    assert np.abs(strongest[0] - ((1 - GLOW_OPACITY) * 90 + GLOW_OPACITY * np.array(GLOW))).max() <= 1
    assert np.abs(drawn[200, 60] - 90 * UNSEEN_BRIGHTNESS).max() <= 1
    assert (drawn[16:128, 127:129] == LINE).all()  # around its own region, the top right quarter


def test_attention_that_is_nowhere_is_drawn_as_none(quarters):
    silent = replace(quarters, attention=np.zeros((4, 14, 14), np.float32))
    drawn = attention_on(np.zeros((64, 64, 3), np.uint8), silent, 0, geometry_of(64, 64))
    assert drawn[40, 40].sum() < 20


def test_drawing_leaves_its_input_alone(quarters):
    geometry = geometry_of(100, 150)
    pixels = np.random.default_rng(0).integers(0, 256, (100, 150, 3), np.uint8)
    before, assignment, attention = pixels.copy(), quarters.assignment.copy(), quarters.attention.copy()
    regions_on(pixels, quarters, geometry)
    attention_on(pixels, quarters, 0, geometry)
    np.testing.assert_array_equal(pixels, before)
    np.testing.assert_array_equal(quarters.assignment, assignment)
    np.testing.assert_array_equal(quarters.attention, attention)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda p, c, g: regions_on(p[1:], c, g), "the geometry belongs to"),
        (lambda p, c, g: regions_on(p, c, g, opacity=1.5), "opacity lies in"),
        (lambda p, c, g: attention_on(p, c, 4, g), r"outside \[0, 4\)"),
        (lambda p, c, g: attention_on(p, c, -1, g), r"outside \[0, 4\)"),
    ],
)
def test_what_does_not_fit_is_refused(draw, message, quarters):
    with pytest.raises(ValueError, match=message):
        draw(np.zeros((64, 64, 3), np.uint8), quarters, geometry_of(64, 64))


def test_many_tokens_are_drawn_as_fast_as_one():
    pixels = np.random.default_rng(0).integers(0, 256, (800, 1333, 3), np.uint8)
    geometry = geometry_of(800, 1333)

    def drawing(side):
        clusters = clusters_of(np.random.default_rng(1).integers(0, side**2, (14, 14)), (side, side))
        return lambda: regions_on(pixels, clusters, geometry)

    one, many = cpu_seconds(drawing(1), drawing(10))
    assert many < 10 * one


def reduction_of(assignment: np.ndarray, one_colour: bool = True) -> TokenRegions:
    kind = "fused" if one_colour else "merged"
    return TokenRegions(kind, "Layer 4", assignment.astype(np.int16), assignment.max() + 1)


def test_kept_tokens_stay_clear_dropped_ones_go_dark_and_fused_ones_are_tinted():
    pixels, geometry = np.full((256, 256, 3), 200, np.uint8), geometry_of(256, 256)
    kept, dropped, fused = np.arange(8).reshape(2, 4), np.full((2, 2), -1), np.full((2, 2), 8)
    assignment = np.vstack([kept, np.hstack([dropped, fused])])
    drawn = regions_on(pixels, reduction_of(assignment), geometry, opacity=0.5)
    assert drawn[60, 60].tolist() == [200, 200, 200]
    assert drawn[180, 60].max() < 70
    np.testing.assert_allclose(drawn[180, 180], (200 + np.array(FUSED)) / 2, atol=1)
    assert drawn[2, 2].max() < 80  # outside the crop


def test_a_merged_group_keeps_its_colour_while_it_grows():
    before, after = np.arange(16).reshape(4, 4), np.arange(16).reshape(4, 4)
    before[0, 1] = 0
    after[0, 1] = after[1, 1] = 0
    colours = [region_colours(reduction_of(layer, one_colour=False))[0] for layer in (before, after)]
    np.testing.assert_array_equal(*colours)


@WAYS
def test_regions_of_both_canvases_are_tinted_and_what_lies_outside_is_dimmed(matrix: Matrix | None) -> None:
    identities = np.array([[0, 1, 2], [CLEAR, DROPPED, 5]])
    pixels = drawn(lambda canvas: draw_regions(canvas, identities, COLOURS, (32.0, 0.0, 128.0, 96.0)), ground(), matrix)
    for (row, column), number in np.ndenumerate(identities):
        centre = pixels[48 * row + 24, 32 + 32 * column + 16]
        expected = {CLEAR: GREY, DROPPED: GREY * DROPPED_BRIGHTNESS}.get(number)
        expected = mixed(COLOURS[number].astype(float), OPACITY) if expected is None else expected
        assert np.abs(centre - expected).max() <= 4, (row, column)
    for column in (10, 150):
        assert np.abs(pixels[50, column] - GREY * OUTSIDE_BRIGHTNESS).max() <= 3


@WAYS
@pytest.mark.parametrize("fate", ["dropped", "waiting", "halted", "fast"])
def test_every_fate_has_its_brightness_and_pattern_and_what_goes_on_has_none(matrix: Matrix | None, fate: str) -> None:
    identities = np.array([[CLEAR, DROPPED], [0, 0]])
    paint = lambda canvas: draw_regions(canvas, identities, COLOURS, (0.0, 0.0, 160.0, 96.0), fate=fate)  # noqa: E731
    luma = drawn(paint, ground(), matrix).astype(float).mean(axis=2)
    clear, out, region = luma[4:44, 4:76], luma[4:44, 84:156], luma[52:92, 4:156]
    assert clear.std() < 1 and region.std() < 1
    assert np.median(out) == pytest.approx(GREY * FATE_BRIGHTNESS[fate], abs=4)
    marked = out > np.median(out) + 40
    assert out[marked].size == 0 if fate == "halted" else 0.04 < marked.mean() < 0.3
    if marked.any():
        np.testing.assert_array_equal(marked[:16, :16], marked[8:24, 8:24])  # again and again
        assert np.median(out[marked]) == pytest.approx(
            GREY * FATE_BRIGHTNESS[fate] * (1 - MARK_OPACITY) + 255 * MARK_OPACITY, abs=6
        )


@WAYS
def test_lines_of_both_canvases_run_between_regions_and_nowhere_else(matrix: Matrix | None) -> None:
    """Upright at 80 below 48, lying at 48 left of 80; what is clear and what was dropped is one ground."""
    identities = np.array([[0, 0, CLEAR, DROPPED], [0, 0, 1, 1]])
    pixels = drawn(lambda canvas: draw_regions(canvas, identities, COLOURS, (0.0, 0.0, 160.0, 96.0)), ground(), matrix)
    assert np.abs(pixels[52:90, 80] - LINE).max() <= 12
    assert np.abs(pixels[48, 84:155] - LINE).max() <= 12
    for rows, columns in ((slice(4, 44), 40), (slice(52, 92), 40), (slice(52, 92), 120)):
        assert pixels[rows, columns].std(axis=0).max() < 1
    assert pixels[48, 4:76].std(axis=0).max() < 1
    luma = pixels[4:44, 100:140].mean(axis=2)
    assert len(np.unique(np.abs(luma[20] - luma[20, 0]) > 20)) == 2 and luma.max() <= GREY + 3


def test_a_grid_that_reaches_beyond_the_picture_fills_it() -> None:
    identities = np.arange(4).reshape(2, 2)
    paint = lambda canvas: draw_regions(canvas, identities, COLOURS, (-10.0, -6.0, 180.0, 120.0))  # noqa: E731
    pixels = drawn(paint, ground(), Matrix.BT709)
    corners = pixels[[4, 4, 92, 92], [4, 156, 4, 156]]
    expected = [mixed(colour.astype(float), OPACITY) for colour in COLOURS[:4]]
    assert np.abs(corners - expected).max() <= 4
