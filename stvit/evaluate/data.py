"""Read the images of a data set, and say what is wrong with it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

from stvit.errors import UserError
from stvit.predict.media import DECODE_ERRORS

SHOWN = 4  # problems that a message names


class EvaluationError(UserError, RuntimeError):
    """The evaluation cannot go on, or its data cannot be used."""


def first_of(problems: Sequence[str]) -> str:
    """The first few problems, and how many more there are."""
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more


SIDES_EXCHANGED = range(5, 9)  # EXIF orientations with a quarter turn


def read_image(path: Path, size_hw: tuple[int, int]) -> np.ndarray:
    """Read an image as it was annotated: upright, or as stored.

    COCO's own tools ignore the EXIF orientation, tools with a browser apply it. The annotated size tells which it was
    where the orientation exchanges the sides; else the image is turned upright.

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
            stored_hw = upright_hw = image.height, image.width
            if size_hw not in (stored_hw, stored_hw[::-1]):  # before EXIF, for which Pillow may have to decode
                raise of_another_size(path, stored_hw, size_hw)
            if image.getexif().get(ExifTags.Base.Orientation) in SIDES_EXCHANGED:
                upright_hw = stored_hw[::-1]
            if size_hw not in (stored_hw, upright_hw):
                raise of_another_size(path, stored_hw, size_hw)
            turned = ImageOps.exif_transpose(image) if size_hw == upright_hw else image
            return np.array(turned.convert("RGB"))
    except FileNotFoundError as error:
        raise EvaluationError(f"{path} is missing.", "Check --images against the annotation file.") from error
    except Image.DecompressionBombError as error:
        raise EvaluationError(f"{path} has too many pixels to be decoded ({error}).", "Take it out.") from error
    except EvaluationError:
        raise
    except DECODE_ERRORS as error:
        raise EvaluationError(f"{path} cannot be read as an image ({error}).", "Copy or download it again.") from error


def of_another_size(path: Path, found_hw: tuple[int, int], expected_hw: tuple[int, int]) -> EvaluationError:
    """The error for an image that is not the annotated one."""
    (found_h, found_w), (height, width) = found_hw, expected_hw
    return EvaluationError(
        f"{path} has {found_w}x{found_h} pixels, its annotation says {width}x{height}.",
        "The annotation file is of other images, or the image was changed.",
    )
