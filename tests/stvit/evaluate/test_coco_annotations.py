"""Annotation files in COCO's format: what is wrong in them is found when they are read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image
from pycocotools import mask as rle

from stvit.class_names import COCO_CATEGORY_IDS, COCO_CLASSES
from stvit.evaluate.coco import encode_mask
from stvit.evaluate.coco_annotations import CocoImage, category_ids, find_images, read_annotations, run_lengths
from stvit.evaluate.data import EvaluationError, read_image

H, W = 24, 32
MASK = encode_mask(np.arange(H * W).reshape(H, W) % 7 > 2)
GARMENTS = ("shirt", "bag", "coat")


def sound() -> dict[str, Any]:
    """Three images, five objects of ids 11 to 15."""
    box = {"bbox": [2, 3, 10, 8], "area": 80, "iscrowd": 0, "segmentation": [[2, 3, 12, 3, 12, 11, 2, 11]]}
    return {
        "images": [{"id": i, "file_name": f"{i}.png", "height": H, "width": W} for i in (1, 2, 3)],
        "annotations": [
            {"id": i, "image_id": image, "category_id": category, **box}
            for i, image, category in ((11, 1, 7), (12, 1, 3), (13, 2, 7), (14, 3, 9), (15, 3, 3))
        ],
        "categories": [{"id": i, "name": name} for i, name in zip((7, 3, 9), GARMENTS, strict=True)],
    }


@pytest.fixture
def write(tmp_path: Path) -> Callable[[Any], Path]:
    def write(data: Any) -> Path:
        path = tmp_path / "instances.json"
        path.write_text(json.dumps(data))
        return path

    return write


def test_a_sound_file_is_read_in_full(write) -> None:
    data = sound()
    data["annotations"][1]["segmentation"] = MASK
    data["annotations"][2] |= {"iscrowd": 1, "segmentation": {"size": [H, W], "counts": [100, 200, H * W - 300]}}
    found = read_annotations(write(data))
    assert [image.id for image in found.images] == [1, 2, 3] and found.has_masks and not found.skipped
    assert [found.ground_truth.annToMask(one).sum() for one in found.ground_truth.anns.values()][1:3] == [
        rle.area(MASK),
        200,
    ]


Change = Callable[[dict[str, Any]], Any]


def with_object(**fields: Any) -> Change:
    return lambda data: data["annotations"][2].update(fields)


def without(part: str, field: str) -> Change:
    return lambda data: data[part][2].pop(field)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda data: data["images"].append(data["images"][0]), "2 images have the id 1"),
        (lambda data: data["images"][0].update(id="1"), "some ids of images are numbers and some are texts"),
        (lambda data: data["images"][0].update(id=None), "entry 0 of images has the id None"),
        (lambda data: data["images"][0].update(id=[1]), r"entry 0 of images has the id \[1\]"),
        (lambda data: data["images"][0].update(height=0), "entry 0 of images has the size 32x0"),
        (lambda data: data["images"][0].update(width="32"), "entry 0 of images has the size '32'x24"),
        (lambda data: data["images"][0].update(height=10**300), r"entry 0 of images has the size 32x10{19}\."),
        (lambda data: data["images"][0].update(file_name="2.png"), r"2 images have the file_name '2\.png'"),
        (lambda data: data["images"][0].update(file_name=7), "entry 0 of images has the file_name 7"),
        (lambda data: data["images"].append(None), "entry 3 of images is no object"),
        (lambda data: data["images"].clear(), "has no images"),
        (without("images", "id"), "entry 2 of images lacks id"),
        (lambda data: data["categories"].append({"id": 7, "name": "x"}), "2 categories have the id 7"),
        (lambda data: data["categories"][0].update(name=None), "entry 0 of categories has the name None"),
        (lambda data: data["categories"].clear(), "has no categories"),
        (lambda data: data.update(categories={"7": "shirt"}), "no list of categories"),
    ],
)
@pytest.mark.parametrize("skip_invalid", [False, True])
def test_images_and_categories_must_be_sound(write, change: Change, message: str, skip_invalid: bool) -> None:
    data = sound()
    change(data)
    with pytest.raises(EvaluationError, match=message):
        read_annotations(write(data), skip_invalid=skip_invalid)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (with_object(image_id=99), r"has the image_id 99, which is not in the file"),
        (with_object(image_id="2"), r'has the image_id "2", which .*texts and numbers are different ids'),
        (with_object(image_id=None), r"has the image_id null"),
        (with_object(image_id=[2]), r"has the image_id"),
        (with_object(category_id=8), r"has the category_id 8, which is not in the file"),
        (with_object(category_id=True), r"has the category_id true"),
        (with_object(bbox=None), r"has the bbox null"),
        (with_object(bbox=[1, 2, 3]), r"has the bbox \[1, 2, 3\]"),
        (with_object(bbox=[1, 2, -3, 4]), r"has the bbox \[1, 2, -3, 4\]"),
        (with_object(bbox=[1, 2, math.nan, 4]), r"has the bbox"),
        (with_object(bbox=[1, 2, 10**400, 4]), r"has the bbox"),
        (with_object(bbox=[1, 2, "3", 4]), r"has the bbox"),
        (with_object(area=None), r"has the area null"),
        (with_object(area=-1), r"has the area -1"),
        (with_object(area=math.inf), r"has the area Infinity"),
        (with_object(iscrowd=None), r"has iscrowd null"),
        (with_object(iscrowd=2), r"has iscrowd 2"),
        (with_object(iscrowd="0"), r"has iscrowd"),
        (with_object(segmentation=None), r"has no segmentation, although others have one"),
        (with_object(segmentation=[]), r"has no segmentation"),
        (with_object(segmentation=[[]]), r"has a polygon of 0 points"),
        (with_object(segmentation=[[1, 2, 3, 4]]), r"has a polygon of 2 points, fewer than 3"),
        (with_object(segmentation=[[1, 2, 3, 4, 5, 6], [1, 2]]), r"has a polygon of 1 points"),
        (with_object(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), r"has the polygon .* not pairs of numbers"),
        (with_object(segmentation=[1, 2, 3, 4, 5, 6]), r"has the polygon 1, not pairs"),
        (with_object(segmentation=[[[1, 2], [3, 4], [5, 6]]]), r"has the polygon .* not pairs"),
        (with_object(segmentation=[[1, 2, 3, 4, 5, None]]), r"has the polygon"),
        (with_object(segmentation=[[1, 2, 3, 4, 1e9, 6]]), r"has a polygon that reaches 1000000000 pix"),
        (with_object(segmentation="mask.png"), r"has the segmentation"),
        (with_object(segmentation={"size": [W, H], "counts": MASK["counts"]}), r"run lengths of the size \[32, 24\]"),
        (with_object(segmentation={"counts": MASK["counts"]}), "run lengths of the size null"),
        (with_object(segmentation={"size": [H, W]}), r"has run lengths that are none: null"),
        (with_object(segmentation={"size": [H, W], "counts": [700]}), "run lengths of 700 pixels in an image of 768"),
        (with_object(segmentation={"size": [H, W], "counts": [-2, 770]}), "run lengths that are none"),
        (with_object(segmentation={"size": [H, W], "counts": MASK["counts"][:9]}), r"has run lengths"),
        (with_object(segmentation={"size": [H, W], "counts": "aé\ud800"}), r"has run lengths that are no"),
        (without("annotations", "bbox"), r"lacks bbox"),
        (without("annotations", "image_id"), r"lacks image_id"),
        (lambda data: data["annotations"].insert(2, "x"), "entry 2 of annotations is no object"),
        (lambda data: [data["annotations"][2].pop(k) for k in ("id", "area")], "entry 2 of annotations lacks area"),
    ],
)
def test_an_unusable_object_is_named_or_left_out_on_request(write, change: Change, message: str) -> None:
    data = sound()
    change(data)
    path = write(data)
    with pytest.raises(EvaluationError, match=rf"instances.json has 1 unusable of \d objects: .*{message}"):
        read_annotations(path)
    found = read_annotations(path, skip_invalid=True)
    assert len(found.skipped) == 1 and len(found.ground_truth.anns) in (4, 5) and found.has_masks
    assert all(found.ground_truth.annToMask(one).any() for one in found.ground_truth.anns.values())


def test_the_message_names_the_first_few_of_many(write) -> None:
    data = sound() | {"annotations": sound()["annotations"] + sound()["annotations"]}
    for one in data["annotations"][1:]:
        one["bbox"] = None
    with pytest.raises(EvaluationError) as caught:
        read_annotations(write(data))
    fourth = "entry 4 of annotations has the bbox null, not x, y, width and height (id 15)"
    assert "9 unusable of 10 objects" in caught.value.problem and "(id 12)" in caught.value.problem
    assert caught.value.problem.endswith(f"{fourth}; and 5 more.")
    assert "--skip-invalid" in caught.value.next_step


def test_a_file_without_any_usable_object_is_an_error_even_on_request(write) -> None:
    data = sound()
    for one in data["annotations"]:
        one["image_id"] = str(one["image_id"])
    with pytest.raises(EvaluationError, match="5 unusable of 5 objects"):
        read_annotations(write(data), skip_invalid=True)


def test_ids_may_be_texts_throughout(write) -> None:
    data = sound()
    for entry in data["images"]:
        entry["id"] = f"image {entry['id']}"
    for one in data["annotations"]:
        one["image_id"] = f"image {one['image_id']}"
    assert read_annotations(write(data)).ground_truth.getAnnIds(imgIds=["image 3"]) == [4, 5]


@pytest.mark.parametrize("seed", range(20))
def test_run_lengths_are_decoded_as_pycocotools_does(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = rng.random((rng.integers(1, 400), rng.integers(1, 400))) < rng.choice([0.001, 0.02, 0.5, 0.99])
    lengths = run_lengths(encode_mask(mask)["counts"])
    again = rle.frPyObjects({"size": list(mask.shape), "counts": lengths}, *mask.shape)
    assert (rle.decode(again) == mask).all()


COCO_CATEGORIES = [{"id": i, "name": n} for i, n in zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True)]
SOME = tuple(i if 3 <= n < 9 else None for n, i in enumerate(COCO_CATEGORY_IDS))


@pytest.mark.parametrize(
    ("num_classes", "categories", "names", "expected"),
    [
        (80, COCO_CATEGORIES, None, COCO_CATEGORY_IDS),
        (80, COCO_CATEGORIES[::-1], None, COCO_CATEGORY_IDS),
        (80, COCO_CATEGORIES[3:9], None, SOME),  # annotations of a part of COCO's categories
        (80, [{"id": n, "name": name} for n, name in enumerate(COCO_CLASSES)], None, tuple(range(80))),
        (6, COCO_CATEGORIES[3:9], None, (4, 5, 6, 7, 8, 9)),  # a model of just these
        (3, sound()["categories"], None, (3, 7, 9)),  # by ascending id, whatever the file's order
        (3, sound()["categories"][::-1], None, (3, 7, 9)),
        (3, sound()["categories"], GARMENTS, (7, 3, 9)),
        (3, sound()["categories"][::-1], GARMENTS, (7, 3, 9)),
        (3, sound()["categories"][:2], GARMENTS, (7, 3, None)),
        (80, [{"id": i, "name": f"thing {i}"} for i in range(80)], None, tuple(range(80))),
    ],
)
def test_classes_get_their_categories(num_classes: int, categories: list[dict], names: Any, expected: Any) -> None:
    assert category_ids(num_classes, categories, names) == expected


@pytest.mark.parametrize("num_classes", [80, 3])
def test_categories_of_another_set_are_refused(num_classes: int) -> None:
    with pytest.raises(EvaluationError, match=rf"{num_classes} classes.*2 categories"):
        category_ids(num_classes, [{"id": 1, "name": "plate"}, {"id": 2, "name": "flag"}])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("shirt", "bag", "cup"), "1 of 3 categories that the model does not know: coat. The model knows shirt, bag"),
        (("shirt", "bag"), "3 classes, but 2 names"),
    ],
)
def test_names_that_do_not_fit_are_refused(names: tuple[str, ...], message: str) -> None:
    with pytest.raises(EvaluationError, match=message):
        category_ids(3, sound()["categories"], names)


def test_a_name_of_two_categories_is_refused() -> None:
    with pytest.raises(EvaluationError, match="several categories of the name 'bag'"):
        category_ids(3, [*sound()["categories"], {"id": 4, "name": "bag"}], GARMENTS)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("annotated", ["stored", "upright"])
def test_a_turned_picture_is_read_in_the_size_it_was_annotated_in(
    tmp_path: Path, orientation: int, annotated: str
) -> None:
    stored = np.zeros((H, W, 3), np.uint8)
    stored[:6, :8] = 255  # white in the corner that is stored first
    image, exif = Image.fromarray(stored), Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    image.save(tmp_path / "turned.png", exif=exif)
    size_hw = (W, H) if annotated == "upright" and orientation > 4 else (H, W)
    found = read_image(tmp_path / "turned.png", size_hw)
    assert found.shape == (*size_hw, 3)
    as_stored = orientation == 1 or (annotated == "stored" and orientation > 4)
    assert (found == stored).all() if as_stored else not (found.shape == stored.shape and (found == stored).all())


@pytest.mark.parametrize("name", ["x" * 5000, "\ud800.png", "a\0b.png", "."])
def test_a_name_that_no_file_can_have_is_a_missing_image(tmp_path: Path, name: str) -> None:
    with pytest.raises(EvaluationError, match="1 of 1 images are missing"):
        find_images(tmp_path, [CocoImage(1, name, (H, W))])
