"""Scenes in the format of COCO's annotation files."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from torch import Tensor

from .datasets import GarmentScenes
from .items import CLASS_NAMES

CATEGORIES = [{"id": i + 1, "name": name, "supercategory": "garment"} for i, name in enumerate(CLASS_NAMES)]


def file_name(index: int) -> str:
    """Name of a sample's picture."""
    return f"{index:06d}.png"


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length code of an (H, W) bool mask: columns first, beginning with a run of zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def coco_annotations(
    scenes: GarmentScenes, visit: Callable[[int, Tensor, dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Compose all scenes and describe them as COCO does.

    Args:
        scenes: the data set, without a transform.
        visit: called with index, picture and target of every scene, so that it is composed only once.

    Returns:
        A dict to be written as JSON: ``images`` (``id`` is the index), ``annotations`` (masks as uncompressed
        run-length codes, boxes as x, y, width, height) and ``categories`` (``id`` is the class plus 1).
    """
    images, annotations = [], []
    for index in range(len(scenes)):
        picture, target = scenes[index]
        if visit is not None:
            visit(index, picture, target)
        height, width = target["semantic"].shape
        images.append({"id": index, "file_name": file_name(index), "height": height, "width": width})
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"].numpy(), strict=True):
            left, top, right, bottom = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(label) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
                    "iscrowd": 0,
                }
            )
    info = {"description": f"Garments on photographs, {scenes.sources.split} split, seed {scenes.seed}"}
    return {"info": info, "images": images, "annotations": annotations, "categories": CATEGORIES}
