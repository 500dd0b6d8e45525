"""A classifier's input made of a picture, and the way back to source pixels."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from stvit.pretrained.records import PUBLISHED_CROP

KERNEL_REACH = 2  # of the bicubic kernel on either side, in pixels of the coarser picture


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

    def to_source(self, points_xy: np.ndarray) -> np.ndarray:
        """(K, 2) points of the input -> points of the source picture."""
        scale_xy = np.array(self.resized_hw[::-1]) / self.source_hw[::-1]
        return (np.asarray(points_xy, float) + self.crop_top_left[::-1]) / scale_xy

    @property
    def input_xyxy(self) -> tuple[float, float, float, float]:
        """Where the input lies, in pixels of the source picture; padding reaches beyond."""
        (left, top), (right, bottom) = self.to_source(np.array([[0, 0], self.input_hw[::-1]])).tolist()
        return left, top, right, bottom

    def spread(self, values: np.ndarray, outside: int) -> np.ndarray:
        """(h, w, ...) values of image tokens -> (H, W, ...) of source pixels: of the token that covers each pixel's
        centre, ``outside`` beyond the crop."""
        rows, columns = (self._token_of_pixel(axis, values.shape[axis]) for axis in (0, 1))
        margin = [(0, 1), (0, 1), *[(0, 0)] * (values.ndim - 2)]  # the last row and column, which index -1 picks
        padded = np.pad(values, margin, constant_values=outside)
        return padded.take(columns, axis=1).take(rows, axis=0)

    def _token_of_pixel(self, axis: int, parts: int) -> np.ndarray:
        """For each source row (axis 0) or column (1), the part of the crop that its centre is in; -1 outside.

        Whole numbers only, so a centre on the border of two tokens belongs to the second one always.
        """
        source, resized = self.source_hw[axis], self.resized_hw[axis]
        start, length = self.crop_top_left[axis], self.input_hw[axis]
        twice_centres = 2 * np.arange(source, dtype=np.int64) + 1
        part = (twice_centres * resized - 2 * source * start) * parts // (2 * source * length)
        return np.where((part >= 0) & (part < parts), part, -1)


@dataclass(frozen=True)
class PreparedPicture:
    """A classifier's input.

    Attributes:
        image: (3, S, S) uint8 on the CPU.
        geometry: the way back to source pixels.
    """

    image: Tensor
    geometry: InputGeometry


@dataclass(frozen=True)
class Preprocessing:
    """How a classifier's input is made of a picture: the shorter side is resized to ``input_size / crop_pct``, the
    centre cropped, and the values normalised. The defaults are those of the published ImageNet accuracies.

    Attributes:
        input_size: side of the square input, pixels.
        crop_pct: share of the shorter side that is seen, in (0, 1].
        interpolation: ``"bicubic"`` or ``"bilinear"``.
        mean: per channel, for values in [0, 1]; ``std`` likewise.

    Raises:
        ValueError: one of these lies outside its bounds.
    """

    input_size: int = 224
    crop_pct: float = PUBLISHED_CROP
    interpolation: str = "bicubic"
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __post_init__(self) -> None:
        if not 0 < self.crop_pct <= 1:
            raise ValueError(f"crop_pct lies in (0, 1], not {self.crop_pct}")
        if self.input_size < 1:
            raise ValueError(f"input_size is a number of pixels from 1 on, not {self.input_size}")
        if self.interpolation not in ("bicubic", "bilinear"):
            raise ValueError(f"interpolation is bicubic or bilinear, not {self.interpolation!r}")

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Preprocessing:
        """What a timm pretrained config says, e.g. a network's ``pretrained_cfg``; the defaults where it is silent."""
        known = {name: config[name] for name in ("crop_pct", "interpolation") if config.get(name)}
        known |= {name: tuple(config[name]) for name in ("mean", "std") if config.get(name)}
        size = config.get("input_size")
        return cls(**known, **({"input_size": size[-1]} if size else {}))

    def geometry(self, source_hw: tuple[int, int]) -> InputGeometry:
        """How a picture of this size becomes the input."""
        short = math.floor(self.input_size / self.crop_pct)
        resized_hw = tuple(int(short * side / min(source_hw)) for side in source_hw)
        top_left = tuple(round((side - self.input_size) / 2) for side in resized_hw)
        return InputGeometry(source_hw, resized_hw, top_left, (self.input_size, self.input_size))

    def prepare(self, pixels: np.ndarray, *, fast: bool = False) -> PreparedPicture:
        """A picture (H, W, 3) uint8 RGB as the network sees it; ``fast`` as in :meth:`resize`."""
        return PreparedPicture(self.resize(pixels, fast=fast), self.geometry(pixels.shape[:2]))

    def resize(self, pixels: np.ndarray, *, fast: bool = False) -> Tensor:
        """(H, W, 3) uint8 RGB -> (3, S, S) uint8, resized and cropped.

        Args:
            fast: use PyTorch's kernel for bytes, 20 to 40 times as fast as Pillow's, which timm's published accuracies
                were measured with. Both average over the same pixels and differ in rounding alone: by 2 of 255 at most,
                in fewer than one value of a hundred. Clips use it, pictures do not.
        """
        geometry = self.geometry(pixels.shape[:2])
        top, left = geometry.crop_top_left
        if fast:
            (rows, height, top), (columns, width, left) = (
                _part(*of_axis, self.input_size)
                for of_axis in zip(pixels.shape, geometry.resized_hw, geometry.crop_top_left, strict=False)
            )
            planes = torch.from_numpy(pixels[rows, columns]).permute(2, 0, 1)[None]
            part = F.interpolate(planes, (height, width), mode=self.interpolation, antialias=True)[0]
            return tvf.crop(part, top, left, *geometry.input_hw)
        resized = tvf.resize(Image.fromarray(pixels), list(geometry.resized_hw), InterpolationMode(self.interpolation))
        return tvf.pil_to_tensor(tvf.crop(resized, top, left, *geometry.input_hw))

    def normalise(self, images: Tensor) -> Tensor:
        """(..., 3, S, S) uint8 -> float32 with the mean and deviation that the network expects."""
        return tvf.normalize(images.float() / 255, list(self.mean), list(self.std))


def _part(source: int, resized: int, start: int, length: int) -> tuple[slice, int, int]:
    """What of one axis a crop of the resized picture depends on, cut where pixels of both pictures begin together.

    Args:
        source: length of the source picture.
        resized: its length after resizing.
        start: of the crop, in the resized picture.
        length: of the crop.

    Returns:
        The part of the source, its length after resizing, and the start of the crop in that.
    """
    parts = math.gcd(source, resized)
    reach = math.ceil(KERNEL_REACH * max(1.0, resized / source)) + 1
    first = max(start - reach, 0) * parts // resized
    last = -(-min(start + length + reach, resized) * parts // resized)
    step = resized // parts
    return slice(first * source // parts, last * source // parts), (last - first) * step, start - first * step
