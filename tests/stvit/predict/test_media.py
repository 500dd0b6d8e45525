"""Files that users bring: each becomes the right pixels or one specific message."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import warnings
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from stvit.predict import media
from stvit.predict.media import MediaError, SourceImage, read_image

EXAMPLES = Path(__file__).parents[3] / "assets" / "examples"
BLOCK = np.ones((8, 8), np.uint8)
LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "BMP": {},
    "TIFF": {},
}
LOSSY = {"JPEG": {"quality": 95, "subsampling": 0}, "AVIF": {"quality": 95, "subsampling": "4:4:4"}}


def encoded(image: Image.Image, format_name: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_name, **options)
    return buffer.getvalue()


def written(folder: Path, data: bytes, name: str = "upload.jpg") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def gradient() -> np.ndarray:
    """(24, 40, 3) uint8, smooth, no two rows or columns alike."""
    rows, columns = np.mgrid[:24, :40]
    return np.stack([rows * 10, columns * 6, 255 - 5 * (rows + columns) // 2], axis=-1).clip(0, 255).astype(np.uint8)


def png_with_header(width: int, height: int) -> bytes:
    """A PNG with this size in its header and hardly any data, so that only the header can be read."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


# ---- right results ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_name", LOSSLESS)
def test_lossless_formats_keep_every_pixel(tmp_path, format_name):
    data = encoded(Image.fromarray(gradient()), format_name, **LOSSLESS[format_name])
    source = read_image(written(tmp_path, data))
    assert source.note == ""
    np.testing.assert_array_equal(source.pixels, gradient())


@pytest.mark.parametrize("format_name", LOSSY)
def test_lossy_formats_keep_the_picture(tmp_path, format_name):
    source = read_image(written(tmp_path, encoded(Image.fromarray(gradient()), format_name, **LOSSY[format_name])))
    assert source.pixels.shape == gradient().shape
    assert np.abs(source.pixels.astype(int) - gradient()).mean() < 3


def test_the_content_decides_not_the_name(tmp_path):
    source = read_image(written(tmp_path, encoded(Image.fromarray(gradient()), "PNG"), "notes.txt"))
    np.testing.assert_array_equal(source.pixels, gradient())


# How an upright picture of the six blocks 10 20 30 / 40 50 60 is stored under each EXIF orientation.
STORED = {
    1: [[10, 20, 30], [40, 50, 60]],
    2: [[30, 20, 10], [60, 50, 40]],
    3: [[60, 50, 40], [30, 20, 10]],
    4: [[40, 50, 60], [10, 20, 30]],
    5: [[10, 40], [20, 50], [30, 60]],
    6: [[30, 60], [20, 50], [10, 40]],
    7: [[60, 30], [50, 20], [40, 10]],
    8: [[40, 10], [50, 20], [60, 30]],
}


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("format_name", ["PNG", "WEBP", "TIFF", "JPEG"])
def test_exif_orientation_is_applied(tmp_path, format_name, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.kron(np.array(STORED[orientation], np.uint8), BLOCK)).convert("RGB")
    options = LOSSLESS.get(format_name) or LOSSY.get(format_name, {})
    source = read_image(written(tmp_path, encoded(stored, format_name, exif=exif, **options)))
    upright = np.kron(np.array(STORED[1], np.uint8), BLOCK)
    assert source.pixels.shape[:2] == upright.shape
    tolerance = 2 if format_name == "JPEG" else 0
    assert np.abs(source.pixels.astype(int) - upright[..., None]).max() <= tolerance


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_does_not_spoil_the_picture(tmp_path):
    data = encoded(Image.fromarray(gradient()), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x01" * 20)
    np.testing.assert_array_equal(read_image(written(tmp_path, data)).pixels, gradient())


def without_adobe_marker(jpeg: bytes) -> bytes:
    start = jpeg.index(b"\xff\xee")
    return jpeg[:start] + jpeg[start + 2 + struct.unpack(">H", jpeg[start + 2 : start + 4])[0] :]


@pytest.mark.parametrize("kind", ["JPEG", "JPEG without Adobe marker", "TIFF"])
def test_cmyk_has_the_right_colours(tmp_path, kind):
    """A CMYK JPEG stores its inks inverted, marked so or not, as browsers read it; a TIFF does not."""
    ink = np.zeros((16, 16, 4), np.uint8)
    ink[:] = (0, 255, 255, 0)  # magenta and yellow: red
    data = encoded(Image.fromarray(ink, "CMYK"), kind.split()[0])
    pixels = read_image(written(tmp_path, without_adobe_marker(data) if "without" in kind else data)).pixels
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 4


@pytest.mark.parametrize("format_name", ["PNG", "TIFF"])
def test_16_bit_grey_is_scaled_not_clipped(tmp_path, format_name):
    row = np.array([0, 128, 129, 257, 32768, 65278, 65406, 65535], np.uint16)
    data = encoded(Image.fromarray(np.tile(row, (8, 1))), format_name)
    pixels = read_image(written(tmp_path, data)).pixels
    np.testing.assert_array_equal(pixels[0, :, 0], [0, 0, 1, 1, 128, 254, 254, 255])
    assert (pixels == pixels[:, :, :1]).all()


def test_16_bit_colour_is_scaled(tmp_path):
    done, data = cv2.imencode(".png", (gradient()[..., ::-1].astype(np.uint16) * 257))
    assert done
    np.testing.assert_array_equal(read_image(written(tmp_path, data.tobytes())).pixels, gradient())


def half_transparent(mode: str) -> Image.Image:
    """Left half opaque black, right half transparent black."""
    rgba = np.zeros((8, 16, 4), np.uint8)
    rgba[:, :8, 3] = 255
    image = Image.fromarray(rgba)
    if mode != "P":
        return image.convert(mode)
    palette = Image.new("P", (16, 8), 1)
    palette.putpalette([0, 0, 0, 0, 0, 0])
    palette.paste(0, (0, 0, 8, 8))
    return palette


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparency_becomes_white_and_is_noted(tmp_path, mode):
    options = {"transparency": 1} if mode == "P" else {}
    source = read_image(written(tmp_path, encoded(half_transparent(mode), "PNG", **options)))
    assert (source.pixels[:, :8] == 0).all() and (source.pixels[:, 8:] == 255).all()
    assert "ransparent" in source.note and "white" in source.note


def test_half_opacity_mixes_with_white(tmp_path):
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 102))
    assert (read_image(written(tmp_path, encoded(image, "PNG"))).pixels == 153).all()


def test_an_alpha_channel_that_hides_nothing_is_not_noted(tmp_path):
    image = Image.fromarray(gradient()).convert("RGBA")
    source = read_image(written(tmp_path, encoded(image, "PNG")))
    assert source.note == ""
    np.testing.assert_array_equal(source.pixels, gradient())


@pytest.mark.parametrize(
    ("format_name", "options", "note"),
    [
        ("GIF", {}, "Animated GIF: the first frame is used."),
        ("WEBP", {"lossless": True}, "Animated WebP: the first frame is used."),
        ("PNG", {}, "Animated PNG: the first frame is used."),
        ("TIFF", {}, "TIFF with several pages: the first page is used."),
        ("AVIF", {"quality": 95}, "Animated AVIF: the first frame is used."),
    ],
)
def test_of_several_frames_the_first_is_used_and_noted(tmp_path, format_name, options, note):
    first, second = Image.new("RGB", (16, 16), (0, 0, 255)), Image.new("RGB", (16, 16), (0, 255, 0))
    data = encoded(first, format_name, save_all=True, append_images=[second], **options)
    source = read_image(written(tmp_path, data))
    assert source.note == note
    assert np.abs(source.pixels.astype(int) - (0, 0, 255)).max() <= 4


def swapped_profile() -> bytes:
    """The sRGB profile with the primaries red and blue exchanged."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, blue = (struct.unpack(">I", profile[profile.index(tag) + 4 :][:4])[0] for tag in (b"rXYZ", b"bXYZ"))
    profile[red : red + 20], profile[blue : blue + 20] = profile[blue : blue + 20], profile[red : red + 20]
    return bytes(profile).replace("sRGB".encode("utf-16-be"), "test".encode("utf-16-be"))


def test_an_embedded_profile_is_converted_to_srgb(tmp_path):
    data = encoded(Image.new("RGB", (8, 8), (255, 0, 0)), "PNG", icc_profile=swapped_profile())
    pixels = read_image(written(tmp_path, data)).pixels
    assert np.abs(pixels.astype(int) - (0, 0, 255)).max() <= 2


def test_a_broken_profile_leaves_the_colours_alone(tmp_path):
    data = encoded(Image.fromarray(gradient()), "PNG", icc_profile=b"not a profile at all" * 20)
    np.testing.assert_array_equal(read_image(written(tmp_path, data)).pixels, gradient())


# ---- specific messages -----------------------------------------------------------------------------------------------

PNG_BYTES = encoded(Image.fromarray(gradient()), "PNG")
REFUSED = {
    "empty": (b"", "The file is empty"),
    "text": (b"Dear Sir or Madam,\nplease find attached\n", "not an image, whatever its name says"),
    "html": (b"<!DOCTYPE html><html><body>404</body></html>", "not an image"),
    "zeros": (bytes(500), "not an image"),
    "heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100), "is a HEIC photo.*Export it as JPEG"),
    "heic-mif1": (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic" + bytes(100), "is a HEIC photo"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "is an SVG drawing"),
    "pdf": (b"%PDF-1.7\n" + bytes(100), "is a PDF document"),
    "jpeg-xl": (b"\xff\x0a" + bytes(100), "is a JPEG XL image"),
    "photoshop": (b"8BPS\0\1" + bytes(100), "is a Photoshop document"),
    "video": (b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + bytes(100), "is a video"),
    "format-not-allowed": (b"P6 8 8 255\n" + bytes(192), "not an image"),
    "header-only": (PNG_BYTES[:20], "begins as a PNG image.*damaged"),
    "no-pixels": (png_with_header(0, 0), "begins as a PNG image.*no pixels"),
    "tiny": (encoded(Image.new("RGB", (5, 100)), "PNG"), "5×100 pixels; each side needs at least 8"),
    "ribbon": (encoded(Image.new("RGB", (2000, 10)), "PNG"), "2000×10 pixels.*Crop the image"),
    "enormous": (png_with_header(12_000, 12_000), r"12000×12000 pixels \(144 megapixels\); the limit is 64"),
    "bomb": (png_with_header(60_000, 60_000), "far more than 64 megapixels"),
    "float": (encoded(Image.new("F", (16, 16)), "TIFF"), "as floating-point numbers"),
    "lab": (encoded(Image.new("LAB", (16, 16)), "TIFF"), "as Lab colours"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_used_gets_its_own_message(tmp_path, case):
    data, message = REFUSED[case]
    with pytest.raises(MediaError, match=message):
        read_image(written(tmp_path, data))


def test_pillows_own_size_warning_raises_no_other_error(tmp_path):
    path = written(tmp_path, png_with_header(12_000, 12_000))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MediaError, match="64 megapixels"):
            read_image(path)


def test_a_file_with_too_many_bytes_is_refused_unread(tmp_path):
    path = tmp_path / "large.jpg"
    with open(path, "wb") as file:
        file.truncate(media.MAX_BYTES + 2**20)
    with pytest.raises(MediaError, match=r"51\.0 MB; the limit is 50 MB"):
        read_image(path)


def test_a_file_that_is_gone_says_so(tmp_path):
    with pytest.raises(MediaError, match="no longer there"):
        read_image(tmp_path / "gone.png")


def noise(mode: str = "RGB") -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 48, 3), np.uint8)).convert(mode)


FULL_FILES = {name: encoded(noise(), name) for name in media.FORMATS}
FULL_FILES["CMYK JPEG"] = encoded(noise("CMYK"), "JPEG")
FULL_FILES["palette PNG"] = encoded(noise("P"), "PNG", transparency=0)
FULL_FILES["animated GIF"] = encoded(noise(), "GIF", save_all=True, append_images=[noise("L")])
FULL_FILES["compressed TIFF"] = encoded(noise(), "TIFF", compression="tiff_lzw")


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
@pytest.mark.parametrize("name", FULL_FILES)
def test_truncated_data_are_named_as_damaged(tmp_path, name):
    data = FULL_FILES[name]
    with pytest.raises(MediaError, match="damaged"):
        read_image(written(tmp_path, data[: len(data) // 2]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", FULL_FILES)
def test_flipped_bytes_give_a_picture_or_a_message_and_nothing_else(tmp_path, name):
    rng = np.random.default_rng(7)
    for _ in range(60):
        data = bytearray(FULL_FILES[name])
        region = min(len(data), 200 if rng.random() < 0.7 else len(data))  # headers are where decoders stumble
        for place in rng.integers(0, region, rng.integers(1, 6)):
            data[place] = rng.integers(0, 256)
        try:
            assert isinstance(read_image(written(tmp_path, bytes(data))), SourceImage)
        except MediaError as error:
            assert str(error).endswith(".")


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts open files through /proc")
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_nothing_stays_open_and_no_temporary_file_stays(tmp_path, monkeypatch):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    before = len(os.listdir("/proc/self/fd"))
    for data in [*FULL_FILES.values(), *(data[: len(data) // 2] for data in FULL_FILES.values()), REFUSED["text"][0]]:
        try:
            read_image(written(tmp_path, data))
        except MediaError:
            continue
    assert len(os.listdir("/proc/self/fd")) == before
    assert not list(scratch.iterdir())


def test_a_source_image_is_validated():
    with pytest.raises(ValueError, match="uint8"):
        SourceImage(np.zeros((8, 8), np.uint8))


# ---- the example photographs -----------------------------------------------------------------------------------------


def test_every_example_has_a_free_licence_an_author_and_a_source():
    entries = json.loads((EXAMPLES / "licences.json").read_text(encoding="utf-8"))
    assert set(entries) == {path.name for path in EXAMPLES.glob("*.jpg")}
    table = (EXAMPLES / "LICENCES.md").read_text(encoding="utf-8")
    for name, entry in entries.items():
        assert entry["licence"] in {"CC0-1.0", "Public Domain"}
        assert entry["title"] and entry["author"] and entry["source"].startswith("https://")
        assert f"`{name}`" in table and entry["author"] in table


def test_the_examples_are_small_readable_and_carry_no_metadata():
    paths = sorted(EXAMPLES.glob("*.jpg"))
    assert sum(path.stat().st_size for path in paths) < 1_200_000
    for path in paths:
        assert max(read_image(path).pixels.shape) <= 1000
        with Image.open(path) as image:
            assert not image.getexif() and "icc_profile" not in image.info
