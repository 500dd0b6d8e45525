"""Average precision of boxes and masks on a data set in COCO's format, computed by pycocotools."""

from __future__ import annotations

import argparse
import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from stvit.detection.detections import Detections
from stvit.predict.detector import Detector
from stvit.predict.load import test_scale
from stvit.pretrained.model_cards import numbered_classes
from stvit.shell import positive

from .coco_annotations import Annotations, CocoImage, category_ids, find_images, index
from .data import EvaluationError, read_image
from .results import Id
from .run import EvaluatedModel

Result = dict[str, Any]

METRICS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
MASKS_AT_ONCE = 16  # pasted masks of large photographs are what takes memory


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    add("--annotations", type=Path, required=True, metavar="FILE", help="instances_*.json")
    scale = "bounds of the input's sides (default: as it was tested or trained)"
    add("--scale", type=positive, nargs=2, metavar=("LONG", "SHORT"), help=scale)
    add("--proposals", type=positive, metavar="N", help="regions that the heads look at (default: the model's own)")
    add("--mask-area-from-box", action="store_true", help="sort masks by their box's size, as published")


class CocoBenchmark:
    """A detector on a set in COCO's format.

    Args:
        options: ``images``, ``annotations``, ``scale``, ``proposals``, ``mask_area_from_box``, ``skip_invalid``,
            ``limit``.
        annotations: as :func:`read_annotations` gives them.

    Raises:
        EvaluationError: the categories are not the model's classes, or images are missing.
    """

    noun = "images"

    def __init__(self, model: EvaluatedModel, options: argparse.Namespace, annotations: Annotations) -> None:
        self.model, self.options, self.annotations = model, options, annotations
        self.images = {image.id: image for image in annotations.images[: options.limit]}
        self.ids = list(self.images)
        self.paths = dict(zip(self.ids, find_images(options.images, self.images.values()), strict=True))
        self.categories = category_ids(model.network.num_classes, annotations.categories, model.class_names)
        self.scale = options.scale or list(test_scale(model.source))
        self.proposals = options.proposals or model.network.num_proposals
        names = numbered_classes(model.network.num_classes)  # results have numbers
        how = {"proposals": self.proposals, "engine": model.engine, "wait": True}
        self.detector = Detector(model.network, classes=names, **how)
        self.engine = self.detector.engine
        self.origin = {**model.origin, "scale": self.scale, "proposals": self.proposals}
        self.origin |= {"annotations": annotations.sha256, "categories": self.categories}

    def results(self, todo: Sequence[Id]) -> Iterator[tuple[Id, Any]]:
        """The detections of each image in COCO's format."""
        for image in (self.images[one] for one in todo):
            try:
                pixels = read_image(self.paths[image.id], image.size_hw)
            except EvaluationError as error:
                yield image.id, error
                continue
            found = self.detector(pixels, scale=tuple(self.scale)).found
            yield image.id, as_results(image.id, found, self.categories)

    def metrics(self, finished: Mapping[Id, list[Result]]) -> dict[str, Any]:
        """See :func:`average_precision`."""
        by_box = self.options.mask_area_from_box
        images = [self.images[one] for one in finished]
        figures = average_precision(self.annotations, images, finished, mask_area_from_box=by_box)
        return {"skipped_objects": len(self.annotations.skipped), "mask_area_from_box": by_box, **figures}

    def table(self, metrics: Mapping[str, Any]) -> str:
        """The metrics in percent."""
        lines = [f"{'':5}" + "".join(f"{name:>7}" for name in METRICS)]
        for kind in ("box", "mask"):
            if metrics[kind] is None:
                lines.append(f"{kind:5}  the ground truth has no masks")
            else:
                cells = ("    n/a" if value is None else f"{100 * value:7.2f}" for value in metrics[kind].values())
                lines.append(f"{kind:5}" + "".join(cells))
        return "\n".join(lines)


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


def encode_mask(
    mask: np.ndarray, corner: tuple[int, int] = (0, 0), image_hw: tuple[int, int] | None = None
) -> dict[str, Any]:
    """A mask as COCO's compressed run lengths, ready for JSON. The mask of the whole image never has to exist.

    Args:
        mask: (h, w) bool, the image's or that of a part of it; all else is background.
        corner: row and column of its first pixel.
        image_hw: size of the image; by default that of the mask.
    """
    height, width = image_hw or mask.shape
    columns = np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1)))  # COCO counts down the columns
    column, row = np.diff(columns, axis=1).nonzero()  # where runs begin and, in turn, end
    places = (column + corner[1]) * height + row + corner[0]
    begins, ends = places[::2], places[1::2]
    apart = begins[1:] > ends[:-1]  # a run that goes over the edge into the next column is one run
    edges = np.stack([begins[np.r_[True, apart]], ends[np.r_[apart, True]]], axis=1) if len(places) else places
    counts = np.diff(np.r_[0, edges.ravel(), height * width]).tolist()
    if counts[-1] == 0:  # the last run reaches the end
        counts.pop()
    packed = rle.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": packed["counts"].decode("ascii")}


def average_precision(
    annotations: Annotations,
    images: Sequence[CocoImage],
    finished: Mapping[Id, list[Result]],
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
