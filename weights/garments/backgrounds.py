"""Photographs to put garments on: any folder of pictures, split for good by their names.

The same picture under two names, perhaps in two sizes, is used once, so no background of one split is seen in another.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from .items import Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
SHORT_SIDE = 320  # pixels that pictures are reduced to, so that a few hundred fit into memory
MIN_SHORT_SIDE = 64
MAX_PIXELS = 50_000_000
FINGERPRINT = 16  # rows and columns of comparisons between neighbours
SAME_PICTURE = 24  # of 256 comparisons that may differ


class BackgroundError(ValueError):
    """A folder has no usable photographs; the message is for the user."""


@dataclass(frozen=True)
class Backgrounds:
    """The photographs of one split, in the order of their names.

    Attributes:
        photos: (3, H, W) uint8 RGB each, short side at most ``SHORT_SIDE``.
        names: their file names.
    """

    photos: tuple[Tensor, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.photos)


def split_of(name: str) -> Split:
    """The split that a photograph belongs to, decided by its file name alone: 8, 1 and 1 of 10 on average."""
    digit = hashlib.sha256(name.encode()).digest()[0] % 10
    return "train" if digit < 8 else "validation" if digit == 8 else "test"


def load_backgrounds(folder: str | PathLike[str], split: Split) -> Backgrounds:
    """Read the photographs of a split.

    Pictures with a side below 64 pixels are left out, and all but the largest of those that look the same.

    Raises:
        BackgroundError: no such folder, a picture that cannot be decoded, or none left for the split.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BackgroundError(f"{folder} is no folder. Name a folder of photographs ({', '.join(SUFFIXES)}).")
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    pictures = {path.name: _read(path) for path in paths}
    usable = {name: picture for name, picture in pictures.items() if min(picture.size) >= MIN_SHORT_SIDE}
    names = [name for name in _one_of_each(usable) if split_of(name) == split]
    if not names:
        raise BackgroundError(
            f"none of the {len(paths)} pictures in {folder} belongs to the {split} split, which their names decide. "
            "Add photographs: with 30 or more, every split gets some."
        )
    return Backgrounds(tuple(_to_tensor(usable[name]) for name in names), tuple(names))


def _read(path: Path) -> Image.Image:
    """The picture, reduced to ``SHORT_SIDE``; the size is checked before anything is decoded."""
    try:
        with Image.open(path) as picture:
            if picture.width * picture.height > MAX_PIXELS:
                raise BackgroundError(f"{path} has {picture.width}x{picture.height} pixels; reduce it first.")
            rgb = picture.convert("RGB")
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise BackgroundError(f"{path} cannot be decoded ({error}). Remove it from the folder.") from error
    factor = min(SHORT_SIDE / min(rgb.size), 1)
    return rgb.resize([round(side * factor) for side in rgb.size], Image.Resampling.BOX) if factor < 1 else rgb


def _one_of_each(pictures: dict[str, Image.Image]) -> list[str]:
    """Names of the pictures, the smaller of two that look the same left out."""
    prints: dict[str, np.ndarray] = {}
    for name in sorted(pictures, key=lambda name: (-min(pictures[name].size), name)):
        mine = _fingerprint(pictures[name])
        if all((mine != other).sum() > SAME_PICTURE for other in prints.values()):
            prints[name] = mine
    return sorted(prints)


def _fingerprint(picture: Image.Image) -> np.ndarray:
    """(256,) bool: whether a cell of a coarse grid is brighter than its left neighbour."""
    grey = np.asarray(picture.convert("L").resize((FINGERPRINT + 1, FINGERPRINT), Image.Resampling.BOX)).astype(int)
    return (grey[:, 1:] > grey[:, :-1]).ravel()


def _to_tensor(picture: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
