"""Average precision of boxes and masks on a data set in COCO's format, computed by pycocotools."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stvit.detection.detections import Detections

from .coco_annotations import Annotations, CocoImage, Id, index
from .images import read_image
from .results import Result, ResultsFile

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MASKS_AT_ONCE = 16  # pasted masks of large photographs are what takes memory


class Detector(Protocol):
    """What is evaluated."""

    num_classes: int

    def predict(self, image: np.ndarray, scale: tuple[int, int]) -> Detections: ...


def detect(
    detector: Detector,
    images: Iterable[tuple[CocoImage, Path]],
    categories: Sequence[Id | None],
    results: ResultsFile,
    *,
    scale: tuple[int, int],
    progress: Callable[[], Any] = lambda: None,
) -> None:
    """Run the detector on the images that have no results yet.

    Args:
        images: those that are wanted, with their files.
        categories: id of each class's category; objects of classes without one are left out.
        results: where the results go, image by image.
        scale: bounds of the long and the short side of the network's input.
        progress: told after every image that was not finished before.

    Raises:
        EvaluationError: an image is missing or damaged.
    """
    for image, path in images:
        if image.id not in results.finished:
            detections = detector.predict(read_image(path, image.size_hw), scale=scale)
            results.append(image.id, as_results(image.id, detections, categories))
            progress()


def as_results(image_id: Id, detections: Detections, categories: Sequence[Id | None]) -> list[Result]:
    """Detections in COCO's format: box as x, y, width and height, mask as run lengths of the source image.

    Args:
        categories: id of each class's category; objects of classes without one are left out.
    """
    results = []
    known = torch.tensor([category is not None for category in categories], device=detections.labels.device)
    detections = detections.select(known[detections.labels])
    for start in range(0, len(detections), MASKS_AT_ONCE):
        some = detections.select(torch.arange(start, min(start + MASKS_AT_ONCE, len(detections))))
        objects = zip(some.boxes.tolist(), some.scores.tolist(), some.labels.tolist(), some.masks(), strict=True)
        for (x1, y1, x2, y2), score, label, mask in objects:
            box = [x1, y1, x2 - x1, y2 - y1]
            result = {"image_id": image_id, "category_id": categories[label], "bbox": box, "score": score}
            results.append({**result, "segmentation": encode_mask(mask.cpu().numpy())})
    return results


def encode_mask(mask: np.ndarray) -> dict[str, Any]:
    """A mask (H, W) bool as COCO's compressed run lengths, ready for JSON."""
    encoded = rle.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode("ascii")}


def average_precision(
    annotations: Annotations,
    images: Sequence[CocoImage],
    finished: dict[Id, list[Result]],
    *,
    mask_area_from_box: bool = False,
) -> dict[str, dict[str, float | None] | None]:
    """COCO's twelve metrics for boxes and for masks, in [0, 1].

    Whether a detected object counts as small, medium or large depends on its area. Here a mask has its own area. The
    released detectors were evaluated with the area of the box instead, because their results named both: that shifts
    APs, APm, APl and the recalls of masks by size, nothing else.

    Args:
        images: those that count.
        finished: results by image.
        mask_area_from_box: give masks their box's area, as the released evaluation did.

    Returns:
        By ``"box"`` and ``"mask"``, by metric; ``None`` for a metric without any object to find, and for masks if the
        ground truth has none.
    """
    detected = [result for image in images for result in finished[image.id]]
    image_ids = [image.id for image in images]
    boxes = [{key: value for key, value in result.items() if key != "segmentation"} for result in detected]
    metrics = {"box": summarise(annotations.ground_truth, boxes, image_ids, "bbox"), "mask": None}
    if annotations.has_masks:
        left_out = None if mask_area_from_box else "bbox"  # pycocotools measures the box wherever there is one
        masks = [{key: value for key, value in result.items() if key != left_out} for result in detected]
        metrics["mask"] = summarise(annotations.ground_truth, masks, image_ids, "segm")
    return metrics


def summarise(ground_truth: COCO, detected: list[Result], image_ids: list[Id], kind: str) -> dict[str, float | None]:
    """The metrics by name; ``kind`` as pycocotools names it."""
    with redirect_stdout(io.StringIO()):
        # pycocotools looks at the first result to see of what kind they are, so it cannot load none.
        empty = {**ground_truth.dataset, "annotations": []}
        found = ground_truth.loadRes(detected) if detected else index(empty)
        evaluation = COCOeval(ground_truth, found, kind)
        evaluation.params.imgIds = image_ids
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return {name: None if value < 0 else float(value) for name, value in zip(METRICS, evaluation.stats, strict=True)}
