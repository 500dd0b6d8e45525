"""The sources of the data sets: garments of Fashion-MNIST (Xiao et al., 2017; MIT licence) and photographs.

Both are split for good: garments by their files, photographs by their names. Debian's package
``dataset-fashion-mnist`` installs the garments under ``DEBIAN_FOLDER``; torchvision's
``FashionMNIST(root, download=True)`` puts the same files under ``root/FashionMNIST/raw``.
"""

from __future__ import annotations

import gzip
import hashlib
import math
import warnings
import zlib
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stvit.errors import UserError
from stvit.predict.media import DECODE_ERRORS, picture_suffixes

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

UNSIGNED_BYTES = 0x08  # type code, third byte of the file
MAX_BYTES = 1 << 28  # Fashion-MNIST's largest file holds 47 million

SHORT_SIDE = 320  # pixels that pictures are reduced to, so that a few hundred fit into memory
MIN_SHORT_SIDE = 64
MAX_PIXELS = 50_000_000
FINGERPRINT = 16  # rows and columns of comparisons between neighbours
SAME_PICTURE = 24  # of 256 comparisons that may differ


class SourceError(UserError, ValueError):
    """Garments or photographs are missing or damaged, or samples of them cannot be made as asked."""


@dataclass(frozen=True)
class Sources:
    """Garments and photographs of one split."""

    split: Split
    items: Items
    backgrounds: Backgrounds

    @classmethod
    def load(
        cls, backgrounds: str | PathLike[str], split: Split, items: str | PathLike[str] = DEBIAN_FOLDER
    ) -> Sources:
        """Read a split from a folder of photographs and a folder of Fashion-MNIST's files.

        Raises:
            SourceError: Fashion-MNIST is missing or damaged, or there are no usable photographs.
        """
        return cls(split, load_items(items, split), load_backgrounds(backgrounds, split))


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
        SourceError: a file is missing, damaged or not of Fashion-MNIST.
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
        raise SourceError(
            f"the {prefix} files in {folder} hold pictures of shape {images.shape} and labels of shape {labels.shape}; "
            "expected (N, 28, 28) and (N,). Put back the files of one download."
        )
    if labels.max() >= len(CLASS_NAMES):
        raise SourceError(f"the {prefix} labels in {folder} reach {labels.max()}; Fashion-MNIST has 10 classes from 0.")
    return Items(images, labels.astype(np.int64))


def _find(folder: Path, name: str) -> Path:
    """The file, compressed or not."""
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    raise SourceError(
        f"{folder} holds no {name}(.gz). Install Debian's package dataset-fashion-mnist (into {DEBIAN_FOLDER}), or "
        "download the files with torchvision.datasets.FashionMNIST and name their folder, FashionMNIST/raw."
    )


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or compressed with gzip; the content decides which.

    Returns:
        uint8 of the shape that the header tells.

    Raises:
        SourceError: no such file, not an IDX file of unsigned bytes, or fewer or more bytes than the header tells.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            compressed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if compressed else open)(path, "rb") as file:
            shape = _read_shape(file.read(4), file, path)
            size = math.prod(shape)
            data = file.read(size + 1)  # one more, to notice a file that goes on
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"{path} is damaged ({error}). Download it again.") from error
    except OSError as error:
        raise SourceError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    if len(data) != size:
        found = "more" if len(data) > size else str(len(data))
        raise SourceError(f"{path} is damaged: {size} bytes should follow its header, {found} do. Download it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_shape(head: bytes, file: gzip.GzipFile, path: Path) -> tuple[int, ...]:
    """The shape in the header, of which the first four bytes have been read."""
    if len(head) < 4 or head[:3] != bytes([0, 0, UNSIGNED_BYTES]) or not 1 <= head[3] <= 3:
        raise SourceError(f"{path} is no IDX file of unsigned bytes: it begins with {head!r}. Choose another file.")
    header = file.read(4 * head[3])
    if len(header) < 4 * head[3]:
        raise SourceError(f"{path} is damaged: it ends within its header. Download it again.")
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
    if math.prod(shape) > MAX_BYTES:
        raise SourceError(f"{path} announces a shape of {shape}, more than {MAX_BYTES} bytes. Choose another file.")
    return shape


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
        SourceError: no such folder, a picture that cannot be decoded, or none left for the split.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder. Name a folder of photographs.")
    suffixes = picture_suffixes()
    files = sorted(path for path in folder.iterdir() if path.is_file())
    paths = [path for path in files if path.suffix.lower() in suffixes]
    if len(paths) < len(files):
        warnings.warn(f"{folder}: {len(files) - len(paths)} files are no pictures.", stacklevel=2)
    pictures = {path.name: _read(path) for path in paths}
    usable = {name: picture for name, picture in pictures.items() if min(picture.size) >= MIN_SHORT_SIDE}
    names = [name for name in _one_of_each(usable) if split_of(name) == split]
    if not names:
        raise SourceError(
            f"none of the {len(paths)} pictures in {folder} belongs to the {split} split, which their names decide. "
            "Add photographs: with 30 or more, every split gets some."
        )
    return Backgrounds(tuple(_to_tensor(usable[name]) for name in names), tuple(names))


def _read(path: Path) -> Image.Image:
    """The picture, reduced to ``SHORT_SIDE``; the size is checked before anything is decoded."""
    try:
        with Image.open(path) as picture:
            width, height = picture.size
            rgb = picture.convert("RGB") if width * height <= MAX_PIXELS else None
    except DECODE_ERRORS as error:
        raise SourceError(f"{path} cannot be decoded ({error}). Remove it from the folder.") from error
    if rgb is None:
        raise SourceError(f"{path} has {width}x{height} pixels; reduce it first.")
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
