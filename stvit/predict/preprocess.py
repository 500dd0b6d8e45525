"""The model's input made of a picture, and the map back to source pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf


@dataclass(frozen=True)
class InputGeometry:
    """How a source picture became a model input: resized, then cropped.

    Points are (x, y) with the origin at the picture's top left corner and pixel centres at +0.5, so that the pixel in
    column c and row r covers [c, c+1) x [r, r+1).

    Attributes:
        source_hw: size of the source picture.
        resized_hw: its size after resizing.
        crop_top_left: row and column of the crop in the resized picture.
        input_hw: size of the crop, which is the model's input.
    """

    source_hw: tuple[int, int]
    resized_hw: tuple[int, int]
    crop_top_left: tuple[int, int]
    input_hw: tuple[int, int]

    def to_input(self, points_xy: np.ndarray) -> np.ndarray:
        """(K, 2) points of the source picture as points of the input."""
        return np.asarray(points_xy, float) * self._scale_xy - self._offset_xy

    def to_source(self, points_xy: np.ndarray) -> np.ndarray:
        """(K, 2) points of the input as points of the source picture; the inverse of ``to_input``."""
        return (np.asarray(points_xy, float) + self._offset_xy) / self._scale_xy

    def token_index_map(self, grid_hw: tuple[int, int]) -> np.ndarray:
        """(H, W) int16: index of the image token that covers each source pixel's centre, -1 outside the crop."""
        return self.spread(np.arange(math.prod(grid_hw), dtype=np.int16).reshape(grid_hw), outside=-1)

    def spread(self, values: np.ndarray, outside: int) -> np.ndarray:
        """(H, W, ...): each source pixel gets the value of the image token covering it; the grid is (h, w, ...)."""
        rows, columns = (self._token_of_pixel(axis, values.shape[axis]) for axis in (0, 1))
        margin = [(0, 1), (0, 1), *[(0, 0)] * (values.ndim - 2)]  # the last row and column, which index -1 picks
        padded = np.pad(values, margin, constant_values=outside)
        return padded.take(columns, axis=1).take(rows, axis=0)

    def crop_slices(self) -> tuple[slice, slice]:
        """Rows and columns of the source picture whose pixel centres lie in the crop."""
        rows, columns = (np.flatnonzero(self._token_of_pixel(axis, 1) == 0) for axis in (0, 1))
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)

    def _token_of_pixel(self, axis: int, parts: int) -> np.ndarray:
        """For each source row (axis 0) or column (1), the part of the crop that its centre is in; -1 outside.

        Whole numbers only, so a centre on the border of two tokens belongs to the second one always.
        """
        source, resized = self.source_hw[axis], self.resized_hw[axis]
        start, length = self.crop_top_left[axis], self.input_hw[axis]
        twice_centres = 2 * np.arange(source, dtype=np.int64) + 1
        part = (twice_centres * resized - 2 * source * start) * parts // (2 * source * length)
        return np.where((part >= 0) & (part < parts), part, -1)

    @property
    def _scale_xy(self) -> np.ndarray:
        return np.array(self.resized_hw[::-1]) / self.source_hw[::-1]

    @property
    def _offset_xy(self) -> np.ndarray:
        return np.array(self.crop_top_left[::-1])


def preprocess(
    pixels: np.ndarray,
    *,
    input_size: int = 224,
    crop_pct: float = 0.875,
    interpolation: str = "bicubic",
    mean: Sequence[float],
    std: Sequence[float],
) -> tuple[Tensor, InputGeometry]:
    """Resize the shorter side to ``input_size / crop_pct``, crop the centre, normalise.

    The same numbers as torchvision's ``Resize``, ``CenterCrop``, ``ToTensor``, ``Normalize`` on a PIL image.

    Args:
        pixels: (H, W, 3) uint8 RGB.
        crop_pct: in (0, 1].
        interpolation: a value of ``torchvision.transforms.InterpolationMode``.
        mean: per channel, for values in [0, 1]; ``std`` likewise.

    Returns:
        (1, 3, input_size, input_size) float32, and the way back to source pixels.
    """
    if not 0 < crop_pct <= 1:
        raise ValueError(f"crop_pct lies in (0, 1], not {crop_pct}")
    height, width = pixels.shape[:2]
    short = math.floor(input_size / crop_pct)
    resized_hw = int(short * height / min(height, width)), int(short * width / min(height, width))
    top, left = (round((side - input_size) / 2) for side in resized_hw)
    resized = tvf.resize(Image.fromarray(pixels), list(resized_hw), InterpolationMode(interpolation))
    cropped = tvf.crop(resized, top, left, input_size, input_size)
    tensor = tvf.normalize(tvf.to_tensor(cropped), list(mean), list(std))
    return tensor.unsqueeze(0), InputGeometry((height, width), resized_hw, (top, left), (input_size, input_size))
