"""Weights and inputs that follow from names and shapes alone, so that golden outputs need no weight file.

Each tensor is drawn by ``numpy.random.RandomState`` (a frozen generator) seeded with the CRC-32 of its name, scaled by
the kind of parameter that the name tells. The golden values beside this file were computed from the authors' own code,
filled in the same way, in float64.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
import torch
from torch import Tensor

#: buffers without learned values
NOT_FILLED = ("relative_position_index", "attn_mask", "num_batches_tracked")


def draw(name: str, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Standard normal float32 array, the same on every machine."""
    generator = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32)
    return np.asarray(generator.standard_normal(shape)).astype(np.float32)


def fill_value(name: str, shape: tuple[int, ...], attention_gain: float = 1.5, seed: int = 0) -> np.ndarray:
    """The values of one parameter or running statistic; the gain sharpens attention, the detectors' set has none."""
    noise = draw(name, shape, seed)
    owner, _, last = name.rpartition(".")
    owner = owner.rpartition(".")[2]
    if last == "running_var":
        return 0.5 + np.abs(noise)
    if last.startswith("layer_scale_"):
        return 0.5 + 0.1 * noise
    if last in ("bias", "running_mean"):
        return 0.1 * noise
    if last == "weight" and len(shape) == 1:
        return 1.0 + 0.1 * noise
    if last == "weight":
        gain = attention_gain if owner in ("q", "kv", "qkv") else 1.0
        return gain * noise / math.sqrt(math.prod(shape[1:]))
    return 0.5 * noise


def fill(shapes: dict[str, tuple[int, ...]], attention_gain: float = 1.5, seed: int = 0) -> dict[str, Tensor]:
    """A state dict of these names and shapes."""
    return {
        name: torch.from_numpy(np.ascontiguousarray(fill_value(name, tuple(shape), attention_gain, seed)))
        for name, shape in shapes.items()
        if name.rpartition(".")[2] not in NOT_FILLED
    }


def structured_images(batch: int = 2, height: int = 224, width: int = 224, seed: int = 0) -> Tensor:
    """(B, 3, height, width): noise at several scales, so that tokens in different places differ."""
    generator = np.random.RandomState((zlib.crc32(b"inputs") + seed) % 2**32)
    images = 0.5 * generator.standard_normal((batch, 3, height, width))
    for cell, scale in ((5, 0.5), (24, 0.5), (80, 0.6)):
        cells = scale * generator.standard_normal((batch, 3, -(-height // cell), -(-width // cell)))
        images = images + np.repeat(np.repeat(cells, cell, axis=2), cell, axis=3)[:, :, :height, :width]
    return torch.from_numpy(np.ascontiguousarray(images.astype(np.float32)))
