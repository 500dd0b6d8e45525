"""What a data set in COCO's format holds: its images, its categories and its ground truth."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pycocotools.coco import COCO

from stvit.class_names import COCO_CATEGORY_IDS, COCO_CLASSES

from .errors import EvaluationError

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}


@dataclass(frozen=True)
class CocoImage:
    """One image of the set; ``size_hw`` in pixels."""

    id: int
    file_name: str
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class Annotations:
    """An annotation file.

    Attributes:
        ground_truth: as pycocotools holds it.
        images: in the file's order.
        sha256: of the file.
        has_masks: whether every object has a segmentation.
    """

    ground_truth: COCO
    images: tuple[CocoImage, ...]
    sha256: str
    has_masks: bool

    @property
    def categories(self) -> list[dict[str, Any]]:
        """In the file's order."""
        return self.ground_truth.dataset["categories"]


def read_annotations(path: Path) -> Annotations:
    """Read the annotations of instances.

    Raises:
        EvaluationError: the file is missing, is not JSON, or lacks something.
    """
    try:
        content = path.read_bytes()
        data = json.loads(content)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be opened ({error.strerror}). Check --annotations.") from error
    except ValueError as error:
        raise EvaluationError(f"{path} is not JSON ({error}). Choose COCO's instances_*.json.") from error
    check_fields(path, data)
    for number, annotation in enumerate(data["annotations"], start=1):
        annotation["id"] = number  # pycocotools takes an object of id 0 for "no match"
        annotation.setdefault("iscrowd", 0)
    images = tuple(CocoImage(i["id"], i["file_name"], (i["height"], i["width"])) for i in data["images"])
    has_masks = all(annotation.get("segmentation") for annotation in data["annotations"])
    return Annotations(index(data), images, hashlib.sha256(content).hexdigest(), has_masks)


def check_fields(path: Path, data: Any) -> None:
    """
    Raises:
        EvaluationError: a field of COCO's format that the evaluation needs is missing.
    """
    for part, names in FIELDS.items():
        entries = data.get(part) if isinstance(data, dict) else None
        if not isinstance(entries, list):
            raise EvaluationError(
                f"{path} has no list of {part}, so it is no annotation file of instances. Choose COCO's "
                "instances_*.json, of a part of the set whose ground truth is public."
            )
        for number, entry in enumerate(entries):
            if missing := [name for name in names if name not in entry]:
                raise EvaluationError(f"{path}: entry {number} of {part} lacks {', '.join(missing)}. Correct the file.")


def index(data: dict[str, Any]) -> COCO:
    """pycocotools' view of annotations or results that are in memory."""
    coco = COCO()
    coco.dataset = data
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def category_ids(num_classes: int, categories: Sequence[dict[str, Any]]) -> tuple[int, ...]:
    """The category of each of the model's classes.

    Classes are COCO's if the model has 80 and the file's categories are COCO's or some of them. Else the model's
    classes are the file's categories in the file's order.

    Raises:
        EvaluationError: neither holds.
    """
    of_coco = dict(zip(COCO_CATEGORY_IDS, COCO_CLASSES, strict=True))
    if num_classes == len(of_coco) and all(of_coco.get(c["id"]) == c["name"] for c in categories):
        return COCO_CATEGORY_IDS
    if num_classes == len(categories):
        return tuple(category["id"] for category in categories)
    raise EvaluationError(
        f"The model has {num_classes} classes, the annotation file has {len(categories)} categories that are not "
        "COCO's. Choose the model that was trained on this set (--num-classes), or the annotations of COCO."
    )


def find_images(folder: Path, images: Iterable[CocoImage]) -> list[Path]:
    """The file of every image.

    Raises:
        EvaluationError: a file is missing, or its name leads out of the folder.
    """
    paths = []
    for image in images:
        name = Path(image.file_name)
        if name.is_absolute() or ".." in name.parts:
            raise EvaluationError(f"The annotation file names {image.file_name!r}, outside of {folder}. Correct it.")
        paths.append(folder / name)
    if missing := [path for path in paths if not path.is_file()]:
        raise EvaluationError(
            f"{len(missing)} of {len(paths)} images are missing, the first is {missing[0]}. Check --images against the "
            "annotation file."
        )
    return paths
