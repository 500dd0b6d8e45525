"""The examples that are shipped."""

from __future__ import annotations

import json
import re

import pytest
from PIL import Image

from demo.page.examples import GARMENTS, Gallery, garment_examples, load_examples
from weights.garments.sources import CLASS_NAMES, split_of


@pytest.mark.parametrize("kind", ["classify", "scene"])
def test_every_garment_example_is_a_picture_with_a_title_and_a_credit(kind: str) -> None:
    examples = garment_examples(kind)
    assert len(examples) >= 4
    for example in examples:
        with Image.open(example.path) as image:
            assert image.size == (224, 224)
        assert set(example.title.split(", ")) <= set(CLASS_NAMES)
        assert example.licence.startswith("MIT, ") and example.source.startswith("https://") and example.author


def test_there_is_one_picture_of_every_class_and_a_clip_or_two() -> None:
    assert [example.title for example in garment_examples("classify")] == list(CLASS_NAMES)
    clips = garment_examples("clip")
    assert 1 <= len(clips) <= 2 and all(b"ftyp" in clip.path.read_bytes()[:16] for clip in clips)


def test_every_garment_example_is_of_the_test_split_and_listed() -> None:
    entries = json.loads((GARMENTS / "licences.json").read_text())
    assert {path.name for path in GARMENTS.iterdir()} == {*entries, "licences.json"}
    assert all(entry["split"] == split_of(entry["photograph"]) == "test" for entry in entries.values())
    assert sum(path.stat().st_size for path in GARMENTS.iterdir()) < 600_000


def test_a_gallery_shows_the_first_frames_of_clips_and_nothing_where_it_has_nothing() -> None:
    gallery = Gallery((), garment_examples("clip"))
    shown = gallery.shown(garments=True)
    assert shown.count('src="thumbnails/') == len(gallery.garments) == 2
    assert gallery.shown(garments=False) == ""


def test_the_gallery_numbers_photographs_first_then_garments() -> None:
    gallery = Gallery(load_examples()[:2], garment_examples("classify")[:2])
    numbers = [re.findall(r'data-index="(\d+)"', gallery.shown(garments)) for garments in (False, True)]
    assert numbers == [["0", "1"], ["2", "3"]]
