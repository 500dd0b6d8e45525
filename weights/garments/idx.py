"""Reading IDX files, the format of MNIST and its successors: a header that tells the shape, then the raw bytes."""

from __future__ import annotations

import gzip
import math
import zlib
from os import PathLike
from pathlib import Path

import numpy as np

UNSIGNED_BYTES = 0x08  # type code, third byte of the file
MAX_BYTES = 1 << 28  # Fashion-MNIST's largest file holds 47 million


class IdxError(ValueError):
    """A file is no IDX file, is damaged, or holds something else than expected; the message is for the user."""


def read_idx(path: str | PathLike[str]) -> np.ndarray:
    """Read an IDX file of unsigned bytes, plain or compressed with gzip; the content decides which.

    Returns:
        uint8 of the shape that the header tells.

    Raises:
        IdxError: no such file, not an IDX file of unsigned bytes, or fewer or more bytes than the header tells.
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
        raise IdxError(f"{path} is damaged ({error}). Download it again.") from error
    except OSError as error:
        raise IdxError(f"{path} cannot be read ({error.strerror}). Check the path.") from error
    if len(data) != size:
        found = "more" if len(data) > size else str(len(data))
        raise IdxError(f"{path} is damaged: {size} bytes should follow its header, {found} do. Download it again.")
    return np.frombuffer(data, np.uint8).reshape(shape)


def _read_shape(head: bytes, file: gzip.GzipFile, path: Path) -> tuple[int, ...]:
    """The shape in the header, of which the first four bytes have been read."""
    if len(head) < 4 or head[:3] != bytes([0, 0, UNSIGNED_BYTES]) or not 1 <= head[3] <= 3:
        raise IdxError(f"{path} is no IDX file of unsigned bytes: it begins with {head!r}. Choose another file.")
    header = file.read(4 * head[3])
    if len(header) < 4 * head[3]:
        raise IdxError(f"{path} is damaged: it ends within its header. Download it again.")
    shape = tuple(int(side) for side in np.frombuffer(header, ">u4"))
    if math.prod(shape) > MAX_BYTES:
        raise IdxError(f"{path} announces a shape of {shape}, more than {MAX_BYTES} bytes. Choose another file.")
    return shape
