from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from demo.export import coco_json, run_lengths
from stvit.class_names import COCO_CLASSES
from tests.detections import made_up


@pytest.mark.parametrize("image_hw", [(37, 53), (200, 10)])
def test_run_lengths_equal_those_of_the_whole_mask(image_hw: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for height, width, top, left in ((5, 7, 30, 1), (37, 4, 0, 0), (37, 6, 0, 4), (1, 1, 36, 9)):
        whole = np.zeros(image_hw, np.uint8)
        part = whole[top : top + height, left : left + width]
        part[:] = generator.random(part.shape) < 0.6
        assert run_lengths(part.astype(bool), (top, left), image_hw) == packed(whole)


def test_a_full_and_an_empty_mask_have_run_lengths_too() -> None:
    for value in (0, 1):
        whole = np.full((6, 9), value, np.uint8)
        assert run_lengths(whole.astype(bool), (0, 0), (6, 9)) == packed(whole)
    assert run_lengths(np.zeros((0, 0), bool), (0, 0), (6, 9)) == packed(np.zeros((6, 9), np.uint8))


def test_a_coco_library_reads_boxes_masks_and_scores_back(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    found = made_up(20, (120, 160))
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_json(found, "photo.jpg")))
    coco = COCO(str(path))
    (image,) = coco.loadImgs(coco.getImgIds())
    assert (image["file_name"], image["height"], image["width"]) == ("photo.jpg", 120, 160)
    masks = found.masks().numpy()
    for number, annotation in enumerate(coco.loadAnns(coco.getAnnIds())):
        np.testing.assert_array_equal(coco.annToMask(annotation), masks[number])
        assert annotation["area"] == masks[number].sum()
        assert coco.loadCats(annotation["category_id"])[0]["name"] == COCO_CLASSES[found.labels[number]]
        x, y, width, height = annotation["bbox"]
        np.testing.assert_allclose([x, y, x + width, y + height], found.boxes[number], atol=0.02)
    results = coco.loadRes(json.loads(path.read_text())["annotations"])
    scores = [annotation["score"] for annotation in results.loadAnns(results.getAnnIds())]
    np.testing.assert_allclose(scores, found.scores, atol=1e-5)


def test_nothing_found_is_a_data_set_without_annotations() -> None:
    nothing = coco_json(made_up(0, (50, 60)))
    assert nothing["annotations"] == nothing["categories"] == []


def packed(whole: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(whole))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}
