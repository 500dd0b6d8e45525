"""Annotation files in COCO's format: images, categories and objects, checked in full when a file is read.

Evaluation and training read through :func:`read_annotations`, so that nothing unusable is found after hours of work.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools.coco import COCO

from stvit.class_names import COCO_CLASSES

from .data import SHOWN, EvaluationError, first_of
from .results import Id

FIELDS = {
    "images": ("id", "file_name", "height", "width"),
    "annotations": ("image_id", "category_id", "bbox", "area"),
    "categories": ("id", "name"),
}
MAX_COORDINATE = 1e5  # pixels; pycocotools' memory grows with the length of a polygon's outline
MAX_NUMBER = 1e12
MAX_CHARACTERS = 7  # of one compressed run length, 5 bits each


@dataclass(frozen=True)
class CocoImage:
    """One image of the set; ``size_hw`` in pixels, as annotated."""

    id: Id
    file_name: str
    size_hw: tuple[int, int]


@dataclass(frozen=True)
class Annotations:
    """An annotation file.

    Attributes:
        ground_truth: as pycocotools holds it; annotations are numbered from 1.
        images: in the file's order.
        sha256: of the file.
        has_masks: whether the objects have segmentations.
        skipped: what is wrong with each object that was left out.
    """

    ground_truth: COCO
    images: tuple[CocoImage, ...]
    sha256: str
    has_masks: bool
    skipped: tuple[str, ...] = ()

    @property
    def categories(self) -> list[dict[str, Any]]:
        """In the file's order."""
        return self.ground_truth.dataset["categories"]


def read_annotations(path: Path, *, skip_invalid: bool = False) -> Annotations:
    """Read and check the annotations of instances.

    Images and categories must be well-formed with unique ids. Objects must refer to them and have a usable box, and
    either all or none of them a usable segmentation.

    Args:
        skip_invalid: leave out unusable objects instead of raising an error.

    Raises:
        EvaluationError: the file is missing, is not JSON, or holds something unusable; the message names the first few.
    """
    try:
        content = path.read_bytes()
        data = json.loads(content)
    except OSError as error:
        raise EvaluationError(f"{path} cannot be opened ({error.strerror}).", "Check --annotations.") from error
    except (ValueError, RecursionError) as error:
        raise EvaluationError(f"{path} is not JSON ({error}).", "Choose COCO's instances_*.json.") from error
    check_lists(path, data)
    problems = [*image_problems(data["images"]), *category_problems(data["categories"])]
    if problems:
        raise EvaluationError(f"{path} cannot be used: {first_of(problems)}.", "Correct the file.")
    images = tuple(CocoImage(i["id"], i["file_name"], (i["height"], i["width"])) for i in data["images"])
    objects, skipped = usable_objects(data["annotations"], images, {c["id"] for c in data["categories"]})
    if skipped and (not skip_invalid or not objects):
        advice = "Correct the file, or leave them out with --skip-invalid." if objects else "Correct the file."
        raise EvaluationError(
            f"{path} has {len(skipped)} unusable of {len(data['annotations'])} objects: {first_of(skipped)}.", advice
        )
    for number, annotation in enumerate(objects, start=1):
        annotation["id"] = number  # pycocotools takes an object of id 0 for "no match"
    ground_truth = index({**data, "annotations": objects})
    has_masks = any(annotation.get("segmentation") for annotation in objects)
    return Annotations(ground_truth, images, hashlib.sha256(content).hexdigest(), has_masks, tuple(skipped))


def check_lists(path: Path, data: Any) -> None:
    """Check that a file has the lists of COCO's format.

    Raises:
        EvaluationError: one is missing, or there are no images or categories.
    """
    for part in FIELDS:
        entries = data.get(part) if isinstance(data, dict) else None
        if entries == [] and part != "annotations":
            raise EvaluationError(f"{path} has no {part}.", "Choose COCO's instances_*.json.")
        if not isinstance(entries, list):
            raise EvaluationError(
                f"{path} has no list of {part}, so it is no annotation file of instances.",
                "Choose COCO's instances_*.json, of a part of the set whose ground truth is public.",
            )


def image_problems(images: list[Any]) -> Iterable[str]:
    """What is wrong with the list of images, a clause each."""
    yield from field_problems("images", images, ("id", "file_name", "height", "width"))
    for number, image in enumerate(images):
        if isinstance(image, dict) and image.keys() >= set(FIELDS["images"]):
            if not isinstance(image["file_name"], str) or not image["file_name"]:
                yield f"entry {number} of images has the file_name {image['file_name']!r}"
            if not all(is_whole(image[side]) and 0 < image[side] <= MAX_COORDINATE for side in ("height", "width")):
                yield f"entry {number} of images has the size {image['width']!r:.20}x{image['height']!r:.20}"
    yield from repeated_ids("images", images)
    names = Counter(i["file_name"] for i in images if isinstance(i, dict) and isinstance(i.get("file_name"), str))
    yield from (f"{times} images have the file_name {name!r}" for name, times in names.items() if times > 1)


def category_problems(categories: list[Any]) -> Iterable[str]:
    """What is wrong with the list of categories, a clause each."""
    yield from field_problems("categories", categories, ("id", "name"))
    for number, category in enumerate(categories):
        if isinstance(category, dict) and not isinstance(category.get("name", ""), str):
            yield f"entry {number} of categories has the name {category['name']!r}"
    yield from repeated_ids("categories", categories)


def field_problems(part: str, entries: list[Any], names: Sequence[str]) -> Iterable[str]:
    """Entries that are no objects, lack a field, or have an id that is neither a number nor a text."""
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict):
            yield f"entry {number} of {part} is no object"
        elif missing := [name for name in names if name not in entry]:
            yield f"entry {number} of {part} lacks {', '.join(missing)}"
        elif not is_id(entry["id"]):
            yield f"entry {number} of {part} has the id {entry['id']!r}, neither a whole number nor a text"


def repeated_ids(part: str, entries: list[Any]) -> Iterable[str]:
    """Ids that several entries have, or that are of different kinds."""
    ids = [entry["id"] for entry in entries if isinstance(entry, dict) and is_id(entry.get("id"))]
    yield from (f"{times} {part} have the id {value!r}" for value, times in Counter(ids).items() if times > 1)
    if len({type(value) for value in ids}) > 1:
        yield f"some ids of {part} are numbers and some are texts"


def usable_objects(
    annotations: list[Any], images: Iterable[CocoImage], categories: set[Id]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Separate the objects that can be used from what is wrong with the others, a clause each."""
    sizes = {image.id: image.size_hw for image in images}
    masks_wanted = any(isinstance(one, dict) and one.get("segmentation") for one in annotations)
    usable, problems = [], []
    for number, annotation in enumerate(annotations):
        problem = object_problem(annotation, sizes, categories, masks_wanted)
        if problem is None:
            annotation["iscrowd"] = int(annotation.get("iscrowd", 0))
            usable.append(annotation)
        else:
            known = isinstance(annotation, dict) and "id" in annotation
            name = f" (id {shortened(annotation['id'])})" if known else ""
            problems.append(f"entry {number} of annotations {problem}{name}")
    return usable, problems


def object_problem(
    annotation: Any, sizes: Mapping[Id, tuple[int, int]], categories: set[Id], masks_wanted: bool
) -> str | None:
    """What is wrong with one object, as a clause that follows its name."""
    if not isinstance(annotation, dict):
        return "is no object"
    if missing := [name for name in FIELDS["annotations"] if name not in annotation]:
        return f"lacks {', '.join(missing)}"
    for field, known in (("image_id", sizes.keys()), ("category_id", categories)):
        value = annotation[field]
        if not is_id(value) or value not in known:
            other_kind = isinstance(value, str) != isinstance(next(iter(known)), str)
            why = ": texts and numbers are different ids" if other_kind else ""
            return f"has the {field} {shortened(value)}, which is not in the file{why}"
    box, area = annotation["bbox"], annotation["area"]
    if not isinstance(box, list) or len(box) != 4 or not all(map(is_finite, box)) or min(box[2:]) < 0:
        return f"has the bbox {shortened(box)}, not x, y, width and height"
    if not is_finite(area) or area < 0:
        return f"has the area {shortened(area)}"
    if annotation.get("iscrowd", 0) not in (0, 1):
        return f"has iscrowd {shortened(annotation['iscrowd'])}, neither 0 nor 1"
    return mask_problem(annotation.get("segmentation"), sizes[annotation["image_id"]]) if masks_wanted else None


def mask_problem(segmentation: Any, size_hw: tuple[int, int]) -> str | None:
    """What is wrong with a segmentation in a set that has masks."""
    if not segmentation:
        return "has no segmentation, although others have one"
    if isinstance(segmentation, list):
        return next(filter(None, map(polygon_problem, segmentation)), None)
    if not isinstance(segmentation, dict):
        return f"has the segmentation {shortened(segmentation)}, neither polygons nor run lengths"
    if segmentation.get("size") != list(size_hw):
        return f"has run lengths of the size {shortened(segmentation.get('size'))} in an image of {list(size_hw)}"
    counts = segmentation.get("counts")
    lengths = run_lengths(counts) if isinstance(counts, str) else counts
    if not isinstance(lengths, list) or not all(is_whole(n) and n >= 0 for n in lengths):
        return f"has run lengths that are none: {shortened(counts)}"
    if sum(lengths) != math.prod(size_hw):
        return f"has run lengths of {sum(lengths)} pixels in an image of {math.prod(size_hw)}"
    return None


def polygon_problem(polygon: Any) -> str | None:
    """What is wrong with one polygon, [x1, y1, x2, y2, ...]."""
    if not isinstance(polygon, list) or len(polygon) % 2 or not all(map(is_finite, polygon)):
        return f"has the polygon {shortened(polygon)}, not pairs of numbers"
    if len(polygon) < 6:
        return f"has a polygon of {len(polygon) // 2} points, fewer than 3"
    if max(map(abs, polygon)) > MAX_COORDINATE:
        return f"has a polygon that reaches {max(map(abs, polygon)):.0f} pixels far"
    return None


def run_lengths(counts: str) -> list[int] | None:
    """Decode COCO's compressed run lengths; ``None`` where they are damaged, which pycocotools would read beyond.

    A number is a series of characters of 5 bits each, lowest first, bit 6 set on all but the last and the sign in the
    last one's bit 5. From the fourth on, numbers are differences to the one two before.
    """
    codes = np.frombuffer(counts.encode(errors="surrogatepass"), np.uint8).astype(np.int64) - 48
    if not len(codes) or codes.min() < 0 or codes.max() > 63 or codes[-1] & 32:
        return None
    last = np.flatnonzero((codes & 32) == 0)
    first = np.concatenate([[0], last[:-1] + 1])
    lengths = last - first + 1
    if lengths.max() > MAX_CHARACTERS:
        return None
    shifts = 5 * (np.arange(len(codes)) - np.repeat(first, lengths))
    values = np.add.reduceat((codes & 31) << shifts, first)
    values -= ((codes[last] & 16) > 0).astype(np.int64) << (5 * lengths)
    values[1::2] = values[1::2].cumsum()
    values[2::2] = values[2::2].cumsum()
    return values.tolist()


def is_id(value: Any) -> bool:
    return is_whole(value) or isinstance(value, str)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


def shortened(value: Any) -> str:
    """The value for a message."""
    text = json.dumps(value)
    return text if len(text) <= 40 else text[:37] + "..."


def index(data: dict[str, Any]) -> COCO:
    """pycocotools' view of annotations or results that are in memory."""
    coco = COCO()
    coco.dataset = data
    with redirect_stdout(io.StringIO()):
        coco.createIndex()
    return coco


def category_ids(
    num_classes: int, categories: Sequence[Mapping[str, Any]], class_names: Sequence[str] | None = None
) -> tuple[Id | None, ...]:
    """The category of each of the model's classes; ``None`` for a class that the file has no category for.

    Classes are matched by name where the names are known: those given, or COCO's for a model of 80 classes on a file
    that has COCO's categories or some of them. Else the model's classes are the file's categories by ascending id.

    Args:
        num_classes: of the model.
        categories: of the file, each with its ``id`` and ``name``.
        class_names: in the order of the model's outputs, if they are known.

    Raises:
        EvaluationError: the categories are not the model's classes.
    """
    names = [category["name"] for category in categories]
    if class_names is None and num_classes == len(COCO_CLASSES) and set(names) <= set(COCO_CLASSES):
        class_names = COCO_CLASSES
    if class_names is None:
        if num_classes == len(categories):
            return tuple(sorted(category["id"] for category in categories))
        raise EvaluationError(
            f"The model has {num_classes} classes, the annotation file has {len(categories)} categories that are not "
            "COCO's.",
            "Choose the model that was trained on this set (--record, or --num-classes), or the annotations of COCO.",
        )
    if len(class_names) != num_classes:
        raise EvaluationError(f"The model has {num_classes} classes, but {len(class_names)} names are given for them.")
    if unknown := [name for name in names if name not in class_names]:
        raise EvaluationError(
            f"The annotation file has {len(unknown)} of {len(names)} categories that the model does not know: "
            f"{', '.join(unknown[:SHOWN])}{', ...' if len(unknown) > SHOWN else ''}. The model knows "
            f"{', '.join(class_names[:SHOWN])}{', ...' if len(class_names) > SHOWN else ''}.",
            "Choose the model that was trained on this set.",
        )
    if repeated := [name for name, times in Counter(names).items() if times > 1]:
        raise EvaluationError(f"The annotation file has several categories of the name {repeated[0]!r}.", "Rename one.")
    by_name = {category["name"]: category["id"] for category in categories}
    return tuple(by_name.get(name) for name in class_names)


def is_file(path: Path) -> bool:
    """Whether there is such a file; also for names that no file can have, which raise in :meth:`Path.is_file`."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long; a surrogate that the file system's encoding lacks
        return False


def find_images(folder: Path, images: Iterable[CocoImage]) -> list[Path]:
    """The file of every image.

    Raises:
        EvaluationError: a file is missing, or its name leads out of the folder.
    """
    paths = []
    for image in images:
        name = Path(image.file_name)
        if name.is_absolute() or ".." in name.parts:
            raise EvaluationError(f"The annotation file names {image.file_name!r}, outside of {folder}.", "Correct it.")
        paths.append(folder / name)
    if missing := [path for path in paths if not is_file(path)]:
        raise EvaluationError(
            f"{len(missing)} of {len(paths)} images are missing, the first is {missing[0]}.",
            "Check --images against the annotation file.",
        )
    return paths
