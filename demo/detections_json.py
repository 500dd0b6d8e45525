"""Detections in COCO's JSON format, masks as compressed run lengths."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from stvit.class_names import COCO_CATEGORY_IDS, COCO_CLASSES
from stvit.detection import Detections
from stvit.detection.detections import mask_in_image

IMAGE_ID = 1


def coco_json(found: Detections, file_name: str = "", classes: Sequence[str] = COCO_CLASSES) -> dict[str, Any]:
    """The objects of one picture as a COCO data set of one image; ``annotations`` are COCO results as well.

    Args:
        found: the objects.
        file_name: of the picture.
        classes: names of the labels. COCO's own have the numbers that they have there, others count from 1.
    """
    height, width = found.image_hw
    present = sorted(set(found.labels.tolist()))
    ids = COCO_CATEGORY_IDS if classes is COCO_CLASSES else range(1, len(classes) + 1)
    return {
        "images": [{"id": IMAGE_ID, "width": width, "height": height, "file_name": file_name}],
        "categories": [{"id": ids[label], "name": classes[label]} for label in present],
        "annotations": [_annotation(found, number, ids) for number in range(len(found))],
    }


def _annotation(found: Detections, number: int, ids: Sequence[int]) -> dict[str, Any]:
    left, top, right, bottom = (round(value, 2) for value in found.boxes[number].tolist())
    mask, corner = mask_in_image(found.mask_probabilities[number], found.boxes[number], found.image_hw)
    return {
        "id": number + 1,
        "image_id": IMAGE_ID,
        "category_id": ids[int(found.labels[number])],
        "bbox": [left, top, round(right - left, 2), round(bottom - top, 2)],
        "score": round(float(found.scores[number]), 5),
        "area": int(mask.sum()),
        "iscrowd": 0,
        "segmentation": run_lengths(mask.numpy(), corner, found.image_hw),
    }


def run_lengths(mask: np.ndarray, corner: tuple[int, int], image_hw: tuple[int, int]) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths of the whole image, which never has to exist.

    Args:
        mask: (h, w) bool, a part of the image.
        corner: row and column of its first pixel.
        image_hw: size of the image.
    """
    height, width = image_hw
    columns = np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))  # COCO counts down the columns
    column, row = np.diff(columns, axis=1).nonzero()  # where runs begin and, in turn, end
    places = (column + corner[1]) * height + row + corner[0]
    begins, ends = places[::2], places[1::2]
    apart = begins[1:] > ends[:-1]  # a run that goes over the edge into the next column is one run
    edges = np.stack([begins[np.r_[True, apart]], ends[np.r_[apart, True]]], axis=1) if len(places) else places
    counts = np.diff(np.r_[0, edges.ravel(), height * width]).tolist()
    if counts[-1] == 0:  # the last run reaches the end
        counts.pop()
    packed = coco_mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}
