"""Garments: the 28x28 grey pictures of Fashion-MNIST (Xiao et al., 2017; MIT licence), split for good.

Debian's package ``dataset-fashion-mnist`` installs the files under ``DEBIAN_FOLDER``; torchvision's
``FashionMNIST(root, download=True)`` puts the same files under ``root/FashionMNIST/raw``.
"""

from __future__ import annotations

from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np

from .idx import IdxError, read_idx

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

CLASS_NAMES = (
    "t-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
DEBIAN_FOLDER = "/usr/share/datasets/fashion-mnist"
SIDE = 28
VALIDATION_SHARE = 12  # the last twelfth of the training files: 5000 of 60,000


@dataclass(frozen=True)
class Items:
    """The garments of one split.

    Attributes:
        images: (N, 28, 28) uint8, 0 outside of the garment.
        labels: (N,) int64, index into ``CLASS_NAMES``.
    """

    images: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


def load_items(folder: str | PathLike[str], split: Split) -> Items:
    """Read the garments of a split: validation is the last twelfth of the training files, test the ``t10k`` files; no
    picture occurs in two of them.

    Raises:
        IdxError: a file is missing, damaged or not of Fashion-MNIST.
    """
    if split == "test":
        return _read_pair(Path(folder), "t10k")
    training = _read_pair(Path(folder), "train")
    kept_back = max(len(training) // VALIDATION_SHARE, 1)
    part = slice(-kept_back, None) if split == "validation" else slice(None, -kept_back)
    return Items(training.images[part], training.labels[part])


def _read_pair(folder: Path, prefix: str) -> Items:
    """Pictures and labels of the ``train`` or the ``t10k`` files."""
    images = read_idx(_find(folder, f"{prefix}-images-idx3-ubyte"))
    labels = read_idx(_find(folder, f"{prefix}-labels-idx1-ubyte"))
    if images.shape[1:] != (SIDE, SIDE) or labels.shape != (len(images),) or not len(images):
        raise IdxError(
            f"the {prefix} files in {folder} hold pictures of shape {images.shape} and labels of shape {labels.shape}; "
            "expected (N, 28, 28) and (N,). Put back the files of one download."
        )
    if labels.max() >= len(CLASS_NAMES):
        raise IdxError(f"the {prefix} labels in {folder} reach {labels.max()}; Fashion-MNIST has 10 classes from 0.")
    return Items(images, labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    """The file, compressed or not."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise IdxError(
        f"{folder} holds no {name}(.gz). Install Debian's package dataset-fashion-mnist (into {DEBIAN_FOLDER}), or "
        "download the files with torchvision.datasets.FashionMNIST and name their folder, FashionMNIST/raw."
    )
