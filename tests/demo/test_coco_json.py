from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO

from demo.export import coco_json
from stvit.class_names import COCO_CLASSES
from tests.detections import made_up


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
