"""Pictures on their way in: any file becomes upright (H, W, 3) uint8 sRGB within limits, or one specific message."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from collections.abc import Container
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import Image, ImageCms, ImageOps

from stvit.errors import UserError

MAX_BYTES = 50 * 2**20
MAX_PIXELS = 64_000_000  # the largest common cameras; decoded, about 200 MB
MIN_SIDE = 8
MAX_ASPECT = 20  # classifiers see the central square only; for all models, the shorter side sets the scale
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP", "TIFF")  # Pillow's other, rarer decoders stay closed

_READABLE = "JPEG, PNG, WebP, AVIF, GIF, BMP or TIFF"
_SRGB = ImageCms.createProfile("sRGB")
_SEQUENCES = {
    "GIF": "Animated GIF: the first frame is used.",
    "PNG": "Animated PNG: the first frame is used.",
    "WEBP": "Animated WebP: the first frame is used.",
    "AVIF": "Animated AVIF: the first frame is used.",
    "TIFF": "TIFF with several pages: the first page is used.",
}
_UNUSABLE_MODES = {
    "I": "signed or 32-bit whole numbers",
    "F": "floating-point numbers",
    "LAB": "Lab colours",
}
FROM_ORIGINAL, SCALE_DOWN = "Take it from the original again.", "Scale it down and use that."
_TRANSPARENT = "Transparent parts are shown on white."

# What a file is by its first bytes, where Pillow cannot open it.
_READABLE_HEADS = {
    "JPEG": rb"\xff\xd8\xff",
    "PNG": rb"\x89PNG",
    "WebP": rb"RIFF....WEBP",
    "AVIF": rb"....ftypavi[fs]",
    "GIF": rb"GIF8",
    "BMP": rb"BM....\0\0\0\0",
    "TIFF": rb"II[*+]\0|MM\0[*+]",
}
_OTHER_HEADS = {
    "a HEIC photo": rb"....ftyp(?:hei|hev|mif1|msf1)",
    "a JPEG XL image": rb"\xff\x0a|\0\0\0\x0cJXL ",
    "a JPEG 2000 image": rb"\0\0\0\x0cjP  |\xff\x4f\xff\x51",
    "an SVG drawing": rb"\s*(?:\xef\xbb\xbf)?(?:<\?xml|<!--|<!DOCTYPE svg)?.*<svg[\s>]",
    "a PDF document": rb"%PDF",
    "a Photoshop document": rb"8BPS",
    "a video": rb"....ftyp|\x1a\x45\xdf\xa3|RIFF....AVI ",
}

# Formats that Pillow lists but has no pixels of, or only by other programs.
_WITHOUT_PIXELS = {"BUFR", "EPS", "GRIB", "HDF5", "MPEG", "WMF"}

# All that Pillow's decoders were seen to raise on damaged data.
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    EOFError,
    RuntimeError,
    struct.error,
    Image.DecompressionBombError,
)


class MediaError(UserError, ValueError):
    """A file that cannot be used."""


@dataclass(frozen=True)
class SourceImage:
    """A decoded picture, upright.

    Attributes:
        pixels: (H, W, 3) uint8 RGB.
        note: what the user should know about how it was read; empty if nothing.
    """

    pixels: np.ndarray
    note: str = ""

    def __post_init__(self) -> None:
        if self.pixels.dtype != np.uint8 or self.pixels.ndim != 3 or self.pixels.shape[2] != 3:
            raise ValueError(f"expected (H, W, 3) uint8, not {self.pixels.shape} {self.pixels.dtype}")


def picture_suffixes(formats: Container[str] | None = None) -> frozenset[str]:
    """The ends of file names, with their dot and in lower case.

    Args:
        formats: Pillow's names of those that count; by default all that Pillow itself decodes.
    """
    Image.init()
    known = Image.registered_extensions().items()
    decoded = {suffix: kind for suffix, kind in known if kind in Image.OPEN and kind not in _WITHOUT_PIXELS}
    return frozenset(suffix for suffix, kind in decoded.items() if formats is None or kind in formats)


def read_image(path: str | Path) -> SourceImage:
    """Decode an image file; its content decides what it is, never its name.

    The size is checked from the header, before any pixel is decoded.

    Raises:
        MediaError: empty, too large, too small, damaged, or not an image of a readable format; or there is not enough
            memory.
    """
    try:
        with open(path, "rb") as file:
            _check_bytes(os.fstat(file.fileno()).st_size)
            with _open_header(file) as image:
                _check_size(*image.size)
                return _decode(image)
    except FileNotFoundError:
        raise MediaError("The file is no longer there.", "Choose it again.") from None
    except MemoryError as error:
        raise MediaError("There is not enough memory here to decode the picture.", SCALE_DOWN) from error


def _check_bytes(size: int) -> None:
    if size == 0:
        raise MediaError("The file is empty.", FROM_ORIGINAL)
    if size > MAX_BYTES:
        raise MediaError(
            f"The file has {size / 2**20:.1f} MB; the limit is {MAX_BYTES // 2**20} MB.",
            "Save the image as JPEG or scale it down, and use that.",
        )


def _open_header(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError(
            f"By its header, the image has far more than {MAX_PIXELS // 10**6} megapixels, the limit.", SCALE_DOWN
        ) from None
    except DECODE_ERRORS as error:
        file.seek(0)
        raise _explained(file.read(1024)) from error


def _explained(head: bytes) -> MediaError:
    """Why a file that begins with ``head`` could not be opened, and what to do."""
    for name, pattern in _READABLE_HEADS.items():
        if re.match(pattern, head, re.DOTALL):
            problem = (
                f"The file begins as a {name} image, but its header is damaged or incomplete, or says that it has no "
                "pixels."
            )
            return MediaError(problem, FROM_ORIGINAL)
    for name, pattern in _OTHER_HEADS.items():
        if re.match(pattern, head, re.DOTALL):
            return MediaError(
                f"The file is {name}, which cannot be read here.", "Export it as JPEG or PNG, and use that."
            )
    return MediaError("The file is not an image, whatever its name says.", f"Use a {_READABLE} file.")


def _check_size(width: int, height: int) -> None:
    short, long = sorted((width, height))
    size = f"The image is {width}×{height} pixels"
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{size} ({width * height / 1e6:.0f} megapixels); the limit is {MAX_PIXELS // 10**6} megapixels.",
            SCALE_DOWN,
        )
    if short < MIN_SIDE:
        raise MediaError(f"{size}; each side needs at least {MIN_SIDE}.", "Use a larger version.")
    if long > MAX_ASPECT * short:
        raise MediaError(
            f"{size}, one side more than {MAX_ASPECT} times the other.",
            "Crop the image to the part that matters, and use that.",
        )


def _decode(image: Image.Image) -> SourceImage:
    if image.mode in _UNUSABLE_MODES:
        raise MediaError(
            f"The image stores its pixels as {_UNUSABLE_MODES[image.mode]}.",
            "Save it as 8-bit or 16-bit RGB, and use that.",
        )
    try:
        animated = getattr(image, "is_animated", False)
        image.load()
    except DECODE_ERRORS as error:
        if "out of memory" in str(error).lower():  # of Pillow's C code, as a plain OSError
            raise MemoryError from error
        raise MediaError(f"The {image.format} image is damaged or ends too early.", FROM_ORIGINAL) from error
    notes = [_SEQUENCES[image.format]] if animated and image.format in _SEQUENCES else []
    profile = image.info.get("icc_profile")
    opaque, was_transparent = upright(image)
    if was_transparent:
        notes.append(_TRANSPARENT)
    return SourceImage(np.array(_srgb(opaque, profile)), " ".join(notes))


def upright(image: Image.Image) -> tuple[Image.Image, bool]:
    """Turn a decoded image, in place, as its EXIF data say; 16-bit grey becomes 8-bit, transparent parts white.

    Returns:
        The image without transparency, in any mode of 8 bits, and whether parts of it were transparent.
    """
    with contextlib.suppress(*DECODE_ERRORS):  # damaged EXIF data do not spoil the picture
        ImageOps.exif_transpose(image, in_place=True)
    plain = _eight_bit(image)
    opaque = _on_white(plain)
    return opaque, opaque is not plain


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey scaled to 8 bits (Pillow's own conversion would clip it); other modes as they are."""
    if not image.mode.startswith("I;16"):
        return image
    samples = np.asarray(image).astype(np.uint32)
    return Image.fromarray(((samples * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """The image itself if all of it is opaque, otherwise an RGB copy on a white ground."""
    if not image.has_transparency_data:
        return image
    rgba = image.convert("RGBA")
    alpha = rgba.getchannel("A")
    if alpha.getextrema()[0] == 255:
        return image
    ground = Image.new("RGB", image.size, "white")
    ground.paste(rgba, mask=alpha)
    return ground


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """8-bit sRGB. Without a profile, or with one that is broken or does not fit, the values are taken as sRGB."""
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("RGB")
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(BytesIO(profile))
            if "sRGB" not in ImageCms.getProfileDescription(source):
                return ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
    return image.convert("RGB")
