"""The examples that are shipped."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.ops import box_iou

from demo.model_specs import build_registry
from demo.page.examples import GARMENTS, Gallery, garment_examples, load_examples
from demo.predictors import Predictors
from stvit.detection.detections import SHOWN_SCORE
from stvit.predict.media import read_image
from weights.garments.sources import CLASS_NAMES, split_of


@pytest.mark.parametrize("kind", ["classify", "scene"])
def test_every_garment_example_is_a_picture_with_a_credit_and_names_what_it_shows_in_no_caption(kind: str) -> None:
    examples = garment_examples(kind)
    assert len(examples) >= 4
    for example in examples:
        with Image.open(example.path) as image:
            assert image.size == (224, 224)
        assert {known.name for known in example.truth} <= set(CLASS_NAMES) and example.truth
        assert example.licence.startswith("MIT, ") and example.author
    captions = re.sub(r'src="[^"]*"', "", Gallery.load(kind).shown(True) + Gallery.load(kind).shown(False)).lower()
    for example in (*examples, *load_examples()):
        assert not [known.name for known in example.truth if known.name.lower() in captions]


def test_a_copy_of_an_example_is_known_by_its_bytes(tmp_path) -> None:
    gallery = Gallery.load("scene")
    first = gallery.garments[0]
    copy = Path(shutil.copy(first.path, tmp_path))
    assert gallery.truth_of(str(copy)) == first.truth and all(known.box for known in first.truth)
    assert gallery.truth_of(shutil.copy(first.path, tmp_path / "other.jpg")) == ()
    copy.write_bytes(first.path.read_bytes() + b" ")
    assert gallery.truth_of(str(copy)) == ()


def test_a_copy_of_an_example_has_the_number_that_an_address_opens_it_with(tmp_path) -> None:
    gallery = Gallery.load("classify")
    copy = shutil.copy(gallery.garments[1].path, tmp_path)
    assert (gallery.number_of(copy, garments=True), gallery.number_of(copy, garments=False)) == (2, None)


def test_the_first_scene_is_one_in_which_every_bundled_model_finds_all() -> None:
    first = garment_examples("scene")[0]
    pixels, boxes = read_image(first.path).pixels, torch.tensor([known.box for known in first.truth])
    predictors, registry = Predictors(torch.device("cpu")), build_registry()
    for model in (spec for spec in registry.of_task("detect") if spec.bundled):
        found = predictors.detect(pixels, model, model.input_size).found
        sure = found.select(found.scores >= SHOWN_SCORE)
        names, overlaps = [model.classes[label] for label in sure.labels.tolist()], box_iou(boxes, sure.boxes)
        for known, row in zip(first.truth, overlaps.tolist(), strict=True):
            assert any(name == known.name and overlap >= 0.5 for name, overlap in zip(names, row, strict=True))
    for model in registry.of_task("segment"):
        shares = {area.name: area.share for area in predictors.segment(pixels, model).areas()}
        assert all(shares.get(known.name, 0) >= 0.01 for known in first.truth)


def test_there_is_one_picture_of_every_class_and_a_few_clips() -> None:
    assert [example.truth[0].name for example in garment_examples("classify")] == list(CLASS_NAMES)
    clips = garment_examples("clip")
    assert 1 <= len(clips) <= 3 and all(b"ftyp" in clip.path.read_bytes()[:16] for clip in clips)


def test_every_garment_example_is_of_the_test_split_and_listed() -> None:
    entries = json.loads((GARMENTS / "licences.json").read_text())
    assert {path.name for path in GARMENTS.iterdir()} == {*entries, "licences.json"}
    assert all(entry["split"] == split_of(entry["photograph"]) == "test" for entry in entries.values())
    assert sum(path.stat().st_size for path in GARMENTS.iterdir()) < 600_000


def test_a_gallery_shows_the_first_frames_of_clips_and_nothing_where_it_has_nothing() -> None:
    gallery = Gallery((), garment_examples("clip"))
    shown = gallery.shown(garments=True)
    assert shown.count('src="thumbnails/') == len(gallery.garments) == 3
    assert gallery.shown(garments=False) == ""


def test_the_gallery_numbers_photographs_first_then_garments() -> None:
    gallery = Gallery(load_examples()[:2], garment_examples("classify")[:2])
    numbers = [re.findall(r'data-index="(\d+)"', gallery.shown(garments)) for garments in (False, True)]
    assert numbers == [["0", "1"], ["2", "3"]]
