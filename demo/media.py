"""Pictures on their way in: any file becomes upright (H, W, 3) uint8 sRGB within limits, or one specific message."""

from __future__ import annotations

import contextlib
import os
import re
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageCms

from stvit.predict.preprocess import InputGeometry, preprocess

__all__ = ["DECODE_ERRORS", "InputGeometry", "MediaError", "SourceImage", "preprocess", "read_image"]

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

_ORIENTATIONS = {  # EXIF value: what turns the stored picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


class MediaError(ValueError):
    """A file that cannot be used; the message is for the user and names a next step."""


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


def read_image(path: str | Path) -> SourceImage:
    """Decode an image file; its content decides what it is, never its name.

    The size is checked from the header, before any pixel is decoded.

    Raises:
        MediaError: empty, too large, too small, damaged, or not an image of a readable format.
    """
    try:
        with open(path, "rb") as file:
            _check_bytes(os.fstat(file.fileno()).st_size)
            with _open_header(file) as image:
                _check_size(*image.size)
                return _decode(image)
    except FileNotFoundError:
        raise MediaError("The file is no longer on the server. Upload it again.") from None


def _check_bytes(size: int) -> None:
    if size == 0:
        raise MediaError("The file is empty. Upload it again from the original.")
    if size > MAX_BYTES:
        raise MediaError(
            f"The file has {size / 2**20:.1f} MB; the limit is {MAX_BYTES // 2**20} MB. "
            "Save the image as JPEG or scale it down, and upload that."
        )


def _open_header(file: BinaryIO) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise MediaError(
            f"By its header, the image has far more than {MAX_PIXELS // 10**6} megapixels, the limit. "
            "Scale it down and upload that."
        ) from None
    except DECODE_ERRORS as error:
        file.seek(0)
        raise MediaError(_explain(file.read(1024))) from error


def _explain(head: bytes) -> str:
    """Why a file that begins with ``head`` could not be opened, and what to do."""
    for name, pattern in _READABLE_HEADS.items():
        if re.match(pattern, head, re.DOTALL):
            return (
                f"The file begins as a {name} image, but its header is damaged or incomplete, or says that it has no "
                "pixels. Upload it again from the original."
            )
    for name, pattern in _OTHER_HEADS.items():
        if re.match(pattern, head, re.DOTALL):
            return f"The file is {name}, which cannot be read here. Export it as JPEG or PNG, and upload that."
    return f"The file is not an image, whatever its name says. Upload a {_READABLE} file."


def _check_size(width: int, height: int) -> None:
    short, long = sorted((width, height))
    size = f"The image is {width}×{height} pixels"
    if width * height > MAX_PIXELS:
        raise MediaError(
            f"{size} ({width * height / 1e6:.0f} megapixels); the limit is {MAX_PIXELS // 10**6} megapixels. "
            "Scale it down and upload that."
        )
    if short < MIN_SIDE:
        raise MediaError(f"{size}; each side needs at least {MIN_SIDE}. Upload a larger version.")
    if long > MAX_ASPECT * short:
        raise MediaError(
            f"{size}, one side more than {MAX_ASPECT} times the other. Crop the image to the part that matters, and "
            "upload that."
        )


def _decode(image: Image.Image) -> SourceImage:
    if image.mode in _UNUSABLE_MODES:
        raise MediaError(
            f"The image stores its pixels as {_UNUSABLE_MODES[image.mode]}. "
            "Save it as 8-bit or 16-bit RGB, and upload that."
        )
    try:
        animated = getattr(image, "is_animated", False)
        image.load()
    except DECODE_ERRORS as error:
        raise MediaError(
            f"The {image.format} image is damaged or ends too early. Upload it again from the original."
        ) from error
    notes = [_SEQUENCES[image.format]] if animated and image.format in _SEQUENCES else []
    profile = image.info.get("icc_profile")
    upright = _eight_bit(_upright(image))
    opaque = _on_white(upright)
    if opaque is not upright:
        notes.append(_TRANSPARENT)
    return SourceImage(np.array(_srgb(opaque, profile)), " ".join(notes))


def _upright(image: Image.Image) -> Image.Image:
    orientation = None
    with contextlib.suppress(*DECODE_ERRORS):  # damaged EXIF data do not spoil the picture
        orientation = image.getexif().get(ExifTags.Base.Orientation)
    return image.transpose(_ORIENTATIONS[orientation]) if orientation in _ORIENTATIONS else image


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
