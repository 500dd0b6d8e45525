"""The model's input equals torchvision's, and the way back to source pixels is exact."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from stvit.predict.preprocess import InputGeometry, Preprocessing
from tests.cpu_time import cpu_seconds

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(8, 8), (8, 160), (97, 31), (224, 224), (255, 257), (256, 256), (333, 500), (683, 1024), (1024, 767)]
GRIDS = [(14, 14), (7, 7), (6, 9), (1, 1)]


def picture(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)


def geometry_of(height: int, width: int, **options) -> InputGeometry:
    return Preprocessing(**options).geometry((height, width))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(("input_size", "crop_pct", "resize"), [(224, 0.875, 256), (224, 0.9, 248), (96, 1.0, 96)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_input_equals_torchvisions(size, input_size, crop_pct, resize, interpolation):
    pixels = picture(*size)
    reference = transforms.Compose(
        [
            transforms.Resize(resize, interpolation=InterpolationMode(interpolation), antialias=True),
            transforms.CenterCrop(input_size),
            transforms.ToTensor(),
            transforms.Normalize(MEAN, STD),
        ]
    )(Image.fromarray(pixels))
    preprocessing = Preprocessing(input_size, crop_pct, interpolation, MEAN, STD)
    geometry = preprocessing.geometry(size)
    assert torch.equal(preprocessing.normalise(preprocessing.resize(pixels)), reference)
    assert geometry.source_hw == size and geometry.input_hw == (input_size, input_size)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop_pct": 1.2}, "crop_pct lies in"),
        ({"crop_pct": 0}, "crop_pct lies in"),
        ({"input_size": 0}, "input_size is"),
        ({"interpolation": "nearest"}, "bicubic or bilinear"),
    ],
)
def test_an_impossible_crop_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**options)


@pytest.mark.parametrize("size", [*SIZES, (720, 1280)], ids=str)
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_the_fast_way_for_clips_differs_in_rounding_alone(size, interpolation):
    exact, fast = (
        Preprocessing(interpolation=interpolation).resize(picture(*size), fast=fast).int() for fast in (False, True)
    )
    difference = (exact - fast).abs()
    assert difference.max() <= 2 and (difference > 0).float().mean() < 0.01


@pytest.mark.parametrize("size", [(720, 1280), (1080, 1920), (256, 512), (37, 2000), (300, 420), (97, 31)], ids=str)
@pytest.mark.parametrize("crop_pct", [0.875, 1.0])
def test_clips_resize_only_what_the_crop_depends_on(size, crop_pct):
    pixels, preprocessing = picture(*size), Preprocessing(crop_pct=crop_pct)
    geometry = preprocessing.geometry(size)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    whole = torch.nn.functional.interpolate(planes, geometry.resized_hw, mode="bicubic", antialias=True)[0]
    top, left = geometry.crop_top_left
    difference = (
        preprocessing.resize(pixels, fast=True).int() - whole[:, top : top + 224, left : left + 224].int()
    ).abs()
    assert difference.max() <= 1 and (difference > 0).float().mean() < 1e-3


def test_a_pretrained_config_says_how_pictures_are_prepared():
    config = {"input_size": (3, 96, 96), "crop_pct": 1.0, "interpolation": "bilinear", "mean": [0.5] * 3, "std": None}
    assert Preprocessing.of(config) == Preprocessing(96, 1.0, "bilinear", (0.5, 0.5, 0.5))
    assert Preprocessing.of({}) == Preprocessing()


def test_a_large_photo_costs_no_more_than_making_it_small():
    pixels = np.zeros((3000, 4000, 3), np.uint8)
    small, prepared = cpu_seconds(
        lambda: Image.fromarray(pixels).resize((341, 256), Image.Resampling.BICUBIC),
        lambda: Preprocessing().resize(pixels),
        rounds=3,
    )
    assert prepared < 4 * small


def to_input(geometry, points_xy):
    """(K, 2) points of the source picture -> points of the input: scaled, then cropped."""
    return points_xy / geometry.source_hw[::-1] * geometry.resized_hw[::-1] - geometry.crop_top_left[::-1]


def token_index_map(geometry, grid):
    """(H, W) int16: index of the image token that covers each source pixel's centre, -1 outside the crop."""
    return geometry.spread(np.arange(grid[0] * grid[1], dtype=np.int16).reshape(grid), outside=-1)


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_points_of_the_input_come_from_where_resizing_and_cropping_took_them(size):
    geometry = geometry_of(*size)
    points = np.random.default_rng(0).uniform(-50, 1500, (100, 2))
    np.testing.assert_allclose(geometry.to_source(to_input(geometry, points)), points, atol=1e-9)
    np.testing.assert_allclose(to_input(geometry, geometry.to_source(points)), points, atol=1e-9)


def test_known_points():
    geometry = InputGeometry(source_hw=(512, 1024), resized_hw=(256, 512), crop_top_left=(16, 144), input_hw=(224, 224))
    np.testing.assert_allclose(
        geometry.to_source([[0, 0], [112, 112], [224, 224]]), [[288, 32], [512, 256], [736, 480]]
    )
    inside = token_index_map(geometry, (1, 1)) == 0
    assert inside[32:480, 288:736].all() and inside.sum() == 448 * 448


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("grid", GRIDS, ids=str)
def test_the_token_map_agrees_with_mapping_every_pixel_centre(size, grid):
    geometry = geometry_of(*size)
    rows, columns = np.mgrid[: size[0], : size[1]]
    x, y = to_input(geometry, np.stack([columns.ravel() + 0.5, rows.ravel() + 0.5], axis=1)).T
    tiny = 1e-7  # a centre on a border belongs to the second token, whatever floats make of it
    row = np.floor((y + tiny) * grid[0] / 224).astype(int)
    column = np.floor((x + tiny) * grid[1] / 224).astype(int)
    inside = (row >= 0) & (row < grid[0]) & (column >= 0) & (column < grid[1])
    expected = np.where(inside, row * grid[1] + column, -1).reshape(size)
    index_map = token_index_map(geometry, grid)
    assert index_map.dtype == np.int16
    np.testing.assert_array_equal(index_map, expected)


def test_a_scaled_copy_of_the_picture_has_the_same_crop():
    geometry = geometry_of(600, 800)
    copy = replace(geometry, source_hw=(300, 400))
    corners = np.array([[0, 0], [224, 224]])
    np.testing.assert_allclose(copy.to_source(corners) * 2, geometry.to_source(corners))


@pytest.mark.parametrize("size", [(1024, 1536), (1536, 1024), (1000, 1000), (701, 1203)], ids=str)
@pytest.mark.parametrize("token", [0, 13, 30, 91, 182, 195])
def test_a_painted_cell_lights_up_exactly_its_token(size, token):
    """What is painted over a token's source pixels lights its part of the input, centred to half a source pixel."""
    geometry = geometry_of(*size)
    pixels = np.zeros((*size, 3), np.uint8)
    pixels[token_index_map(geometry, (14, 14)) == token] = 255
    light = Preprocessing().resize(pixels)[0].numpy() / 255
    cells = light.reshape(14, 16, 14, 16).mean(axis=(1, 3)).ravel()
    assert cells.argmax() == token and cells[token] > 0.9
    assert np.delete(cells, token).max() < 0.05
    rows, columns = np.mgrid[:224, :224] + 0.5
    centroid = np.array([(rows * light).sum(), (columns * light).sum()]) / light.sum()
    expected = np.array(divmod(token, 14)) * 16 + 8
    at_edge = np.isin(divmod(token, 14), (0, 13))  # the crop cuts off the blur on one side there
    half_source_pixel = 0.5 * geometry.resized_hw[0] / size[0]
    assert (np.abs(centroid - expected) < half_source_pixel + 0.15 * at_edge).all()


def test_spread_keeps_trailing_axes_and_the_values():
    geometry = geometry_of(64, 64)
    values = np.arange(2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 3)
    spread = geometry.spread(values, outside=99)
    assert spread.shape == (64, 64, 3) and spread.dtype == np.uint8
    assert (spread[0, 0] == 99).all() and spread[20, 40].tolist() == [3, 4, 5]
    assert values.shape == (2, 2, 3)
