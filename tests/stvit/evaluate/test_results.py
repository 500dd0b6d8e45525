"""Results on disk that survive a kill, images as they are read, masks as they are coded."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from stvit.evaluate.coco import encode_mask
from stvit.evaluate.data import EvaluationError, read_image
from stvit.evaluate.results import ResultsFile


def test_results_are_on_disk_as_soon_as_an_image_is_finished(tmp_path: Path) -> None:
    path = tmp_path / "new" / "results.jsonl"
    with ResultsFile(path, {"model": "a"}) as results:
        results.append(5, [])
        assert path.read_text().splitlines()[1:] == ['{"id":5,"result":[]}']


@pytest.mark.parametrize("left", ["", '{"form', '{"format":"stvit.evaluate 2","mod'])
def test_a_file_that_ends_within_its_first_line_is_begun_anew(tmp_path: Path, left: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(left)
    with ResultsFile(path, {"model": "a"}) as results:
        assert results.finished == {}
    assert path.read_text() == '{"format":"stvit.evaluate 2","model":"a"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("holiday notes", "not a file of results"),
        ("holiday notes\n", "not a file of results"),
        ("[1, 2]\n", "not a file of results"),
        ('{"images": []}\n', "not a file of results"),
        ('{"format":"stvit.evaluate 2","model":"b"}\n', "model b there, a here"),
        ('{"format":"stvit.evaluate 2","model":"a"}\n{"id"\n', "damaged at line 2"),
        ('{"format":"stvit.evaluate 2","model":"a"}\n{"id":5}\n', "damaged at line 2"),
    ],
)
def test_a_file_of_something_else_is_refused_and_left_as_it_is(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "results.jsonl"
    path.write_text(content)
    with pytest.raises(EvaluationError, match=message):
        ResultsFile(path, {"model": "a"})
    assert path.read_text() == content


def test_results_in_a_place_that_cannot_be_written_are_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="cannot be written"):
        ResultsFile(tmp_path, {"model": "a"})


def test_images_are_turned_upright(tmp_path: Path) -> None:
    path = tmp_path / "turned.jpg"
    stored = Image.new("RGB", (40, 24), (0, 0, 255))
    stored.paste((255, 0, 0), (0, 0, 8, 24))  # what is stored on the left is the top of the upright picture
    exif = stored.getexif()
    exif[0x0112] = 6
    stored.save(path, quality=95, exif=exif)
    pixels = read_image(path, (40, 24))
    assert pixels.shape == (40, 24, 3)
    assert pixels[2, 12, 0] > 200 and pixels[30, 12, 2] > 200
    assert read_image(path, (24, 40))[12, 2, 0] > 200  # annotated as stored, so read as stored
    with pytest.raises(EvaluationError, match="40x24 pixels, its annotation says 30x24"):
        read_image(path, (24, 30))


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "1"])
def test_images_of_every_mode_become_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.jpg" if mode == "CMYK" else "image.png")
    Image.new("RGB", (8, 6), (255, 255, 255)).convert(mode).save(path)
    pixels = read_image(path, (6, 8))
    assert pixels.shape == (6, 8, 3) and pixels.dtype == np.uint8
    assert pixels.min() > 250


def test_a_missing_image_is_named(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="is missing"):
        read_image(tmp_path / "1.png", (6, 8))


def test_masks_are_coded_as_coco_codes_them() -> None:
    mask = np.zeros((5, 7), dtype=bool)
    mask[1:3, 2:6] = True
    coded = encode_mask(mask)
    assert json.loads(json.dumps(coded))["size"] == [5, 7]
    assert rle.toBbox(coded).tolist() == [2, 1, 4, 2]
    assert rle.area(coded) == 8
