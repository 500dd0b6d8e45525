"""A folder in COCO's format with everything that such a set may hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from weights.garments.export import run_lengths

SIZES_HW = {1: (64, 96), 2: (80, 48), 3: (64, 64), 4: (20, 40), 5: (70, 64)}
CATEGORIES = [{"id": 3, "name": "square"}, {"id": 7, "name": "bar"}]
COLOURS = {3: (250, 20, 20), 7: (20, 20, 250)}
OBJECTS = [  # image, category, box as x, y, width, height, how its mask is written
    (1, 7, (10, 12, 40, 20), "polygon"),
    (1, 3, (60, 30, 24, 24), "run lengths"),
    (2, 3, (8, 40, 30, 30), "polygon"),
    (2, 7, (0, 0, 48, 30), "crowd"),
    (4, 3, (2, 2, 10, 10), "polygon"),  # in an image too small to be trained on
    (5, 7, (5, 50, 30, 10), "polygon"),
    (5, 3, (5, 5, 0, 10), "polygon"),  # without extent
]


def write_coco(folder: Path) -> dict[str, Path]:
    """Write images and annotations; image 3 shows nothing. The same set serves as training and as validation.

    Returns:
        The places of a recipe with data of kind ``coco``.
    """
    images = folder / "images"
    images.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for image_id, size_hw in SIZES_HW.items():
        pixels = rng.integers(90, 130, (*size_hw, 3), dtype=np.uint8)
        for owner, category, (x, y, w, h), _ in OBJECTS:
            if owner == image_id:
                pixels[y : y + h, x : x + w] = COLOURS[category]
        Image.fromarray(pixels).save(images / f"{image_id}.png")
    annotations = {
        "images": [{"id": i, "file_name": f"{i}.png", "height": h, "width": w} for i, (h, w) in SIZES_HW.items()],
        "annotations": [annotation(number, *one) for number, one in enumerate(OBJECTS, start=1)],
        "categories": CATEGORIES,
    }
    file = folder / "annotations.json"
    file.write_text(json.dumps(annotations))
    return {f"{split}_{what}": path for split in ("train", "validation") for what, path in
            (("images", images), ("annotations", file))}  # fmt: skip


def annotation(number: int, image_id: int, category: int, box: tuple[int, ...], written: str) -> dict[str, Any]:
    x, y, w, h = box
    if written == "polygon":
        segmentation: Any = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    else:
        mask = np.zeros(SIZES_HW[image_id], bool)
        mask[y : y + h, x : x + w] = True
        segmentation = {"size": list(mask.shape), "counts": run_lengths(mask)}
    crowd = {"iscrowd": int(written == "crowd")}
    what = {"image_id": image_id, "category_id": category, "bbox": list(box), "area": w * h}
    return {"id": number, **what, "segmentation": segmentation, **crowd}
