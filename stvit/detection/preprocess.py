"""From an image to the detector's input, bit for bit as the published test pipeline does it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

MEAN = (123.675, 116.28, 103.53)
STD = (58.395, 57.12, 57.375)
MULTIPLE = 32  # the input is padded to multiples of the coarsest map's stride
FIXED_POINT_BITS = 11


@dataclass(frozen=True)
class PreparedImage:
    """A detector's input and the way back to the source.

    Attributes:
        images: (1, 3, H, W) float32, normalised, padded at the bottom and on the right.
        network_hw: size of the resized image, without the padding.
        scale_factors: (4,) float32, network pixels per source pixel, for XYXY.
        source_hw: size of the source image.
    """

    images: Tensor
    network_hw: tuple[int, int]
    scale_factors: Tensor
    source_hw: tuple[int, int]


def prepare(image: np.ndarray | Tensor, scale: tuple[int, int], device: torch.device | None = None) -> PreparedImage:
    """Resize, normalise and pad an image.

    Args:
        image: (H, W, 3) uint8 RGB.
        scale: bounds of the long and of the short side, in pixels; the aspect ratio is kept.
        device: where the work is done and the result lies.

    Raises:
        ValueError: not an RGB image of uint8, or a scale that is not positive.
    """
    pixels = torch.tensor(image, device=device) if isinstance(image, np.ndarray) else image.to(device)
    if pixels.dtype != torch.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3 or 0 in pixels.shape:
        raise ValueError(f"expected an RGB image (H, W, 3) of uint8, not {tuple(pixels.shape)} of {pixels.dtype}")
    H, W = pixels.shape[:2]
    network_hw, padded_hw = network_sizes((H, W), scale)
    resized = resize_bilinear(pixels, network_hw).permute(2, 0, 1).float()
    mean, std = (resized.new_tensor(v).view(3, 1, 1) for v in (MEAN, STD))
    below, right = (padded - side for padded, side in zip(padded_hw, network_hw, strict=True))
    images = F.pad((resized - mean) * (1 / std), (0, right, 0, below))[None]
    y, x = (new / old for new, old in zip(network_hw, (H, W), strict=True))
    return PreparedImage(images, network_hw, images.new_tensor([x, y, x, y]), (H, W))


def network_sizes(source_hw: tuple[int, int], scale: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the size to which an image is resized, and that of the padded input.

    Args:
        scale: bounds of the long and of the short side, in pixels; the aspect ratio is kept.

    Raises:
        ValueError: a scale that is not positive.
    """
    if min(scale) < 1:
        raise ValueError(f"the scale bounds the long and the short side in pixels, so {scale} is too small")
    factor = min(max(scale) / max(source_hw), min(scale) / min(source_hw))
    network_hw = tuple(max(int(side * factor + 0.5), 1) for side in source_hw)
    return network_hw, tuple(-(-side // MULTIPLE) * MULTIPLE for side in network_hw)


def resize_bilinear(pixels: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """(H, W, C) uint8 -> (h, w, C) uint8, bilinear without antialiasing, in the fixed-point arithmetic of OpenCV's
    ``INTER_LINEAR``, which the published models were trained and tested with."""
    if tuple(pixels.shape[:2]) == size_hw:
        return pixels
    rows_at, row_fraction = _positions(pixels.shape[0], size_hw[0], pixels.device)
    columns_at, column_fraction = _positions(pixels.shape[1], size_hw[1], pixels.device)
    inside = (columns_at >= 0) & (columns_at < pixels.shape[1] - 1)
    (left, right), column_weights = _taps(columns_at, column_fraction * inside, pixels.shape[1])
    (top, bottom), row_weights = _taps(rows_at, row_fraction, pixels.shape[0])  # rounded in two parts at edges too
    used, row_of = torch.cat([top, bottom]).unique(return_inverse=True)
    rows = pixels[used]
    across = sum(
        rows[:, at].int() * weights[:, None] for at, weights in zip((left, right), column_weights, strict=True)
    )
    upper, lower = (across[index] >> 4 for index in row_of.chunk(2))
    w0, w1 = (w[:, None, None] for w in row_weights)
    return ((((upper * w0) >> 16) + ((lower * w1) >> 16) + 2) >> 2).clamp(0, 255).to(torch.uint8)


def _positions(length: int, new_length: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where new pixels lie among the old ones: the position before each, from -1 on, and the fraction beyond it."""
    scale = 1.0 / (new_length / length)
    place = ((torch.arange(new_length, dtype=torch.float64, device=device) + 0.5) * scale - 0.5).float()
    return place.floor().long(), place - place.floor()


def _taps(first: Tensor, fraction: Tensor, length: int) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Both source positions of every new pixel, inside the image, and their weights in fixed point."""
    positions = tuple((first + i).clamp(0, length - 1) for i in range(2))
    weights = tuple((w * 2**FIXED_POINT_BITS).round().int() for w in (1.0 - fraction, fraction))
    return positions, weights
