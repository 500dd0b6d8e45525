"""Reading the images of a data set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from .errors import EvaluationError


def read_image(path: Path, size_hw: tuple[int, int]) -> np.ndarray:
    """Read an image, turned as its EXIF orientation says.

    Args:
        path: of the file.
        size_hw: height and width according to the annotations; checked against the file's header before decoding.

    Returns:
        (H, W, 3) uint8, RGB.

    Raises:
        EvaluationError: the file is missing, is no image, is damaged, or has another size.
    """
    try:
        with Image.open(path) as image:
            check_size(path, (image.height, image.width), size_hw, turned=True)
            upright = ImageOps.exif_transpose(image).convert("RGB")
    except FileNotFoundError as error:
        raise EvaluationError(f"{path} is missing. Check --images against the annotation file.") from error
    except Image.DecompressionBombError as error:
        raise EvaluationError(f"{path} has too many pixels to be decoded ({error}). Take it out of the set.") from error
    except (OSError, SyntaxError, ValueError) as error:  # what Pillow raises for damaged files
        raise EvaluationError(f"{path} cannot be read as an image ({error}). Copy or download it again.") from error
    check_size(path, (upright.height, upright.width), size_hw)
    return np.array(upright)


def check_size(path: Path, found_hw: tuple[int, int], expected_hw: tuple[int, int], turned: bool = False) -> None:
    """Compare an image's size with the annotated one; ``turned`` allows rows and columns to be exchanged.

    Raises:
        EvaluationError: it differs.
    """
    if found_hw == expected_hw or (turned and found_hw == expected_hw[::-1]):
        return
    (found_h, found_w), (height, width) = found_hw, expected_hw
    raise EvaluationError(
        f"{path} has {found_w}x{found_h} pixels, its annotation says {width}x{height}. The annotation file is of other "
        "images, or the image was changed."
    )
