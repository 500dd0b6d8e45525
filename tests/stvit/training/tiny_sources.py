"""Tiny stand-ins for Fashion-MNIST's files and for a folder of photographs."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
from PIL import Image

TRAINING_ITEMS, TEST_ITEMS, PHOTOS = 120, 20, 40


def idx_bytes(array: np.ndarray) -> bytes:
    """The IDX file of an array of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes() + array.astype(np.uint8).tobytes()


def write_items(folder: Path) -> Path:
    """The four files, with bright rectangles of all sizes as garments; those of test are compressed."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for prefix, count in (("train", TRAINING_ITEMS), ("t10k", TEST_ITEMS)):
        images = np.zeros((count, 28, 28), np.uint8)
        for image in images:
            top, left = rng.integers(0, 10, 2)
            bottom, right = rng.integers(16, 29, 2)
            image[top:bottom, left:right] = rng.integers(90, 256, (bottom - top, right - left))
        for name, array in (("images-idx3", images), ("labels-idx1", np.arange(count) % 10)):
            data = idx_bytes(array)
            if prefix == "t10k":
                (folder / f"{prefix}-{name}-ubyte.gz").write_bytes(gzip.compress(data))
            else:
                (folder / f"{prefix}-{name}-ubyte").write_bytes(data)
    return folder


def write_photos(folder: Path) -> Path:
    """Pictures of random colours, enough for every split."""
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(PHOTOS):
        blocks = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(blocks).resize((128, 96)).save(folder / f"photo{number:02d}.png")
    return folder
