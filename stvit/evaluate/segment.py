"""Mean intersection over union of a segmenter on ADE20K, or on a set laid out like it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stvit.class_names import ADE20K_CLASSES
from stvit.errors import UserError
from stvit.predict.engines import Engine
from stvit.predict.load import test_scale
from stvit.predict.media import DECODE_ERRORS, picture_suffixes
from stvit.segmentation import IGNORE_INDEX, SlidingWindow
from stvit.segmentation.score_maps import PUBLISHED_RATIOS
from stvit.shell import positive
from stvit.training.tasks.segment import confusion_matrix, segmentation_metrics

from .data import EvaluationError, read_image
from .results import Id
from .run import EvaluatedModel


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--images", type=Path, required=True, metavar="DIR", help="folder of the pictures, e.g. images/validation")
    add("--annotations", type=Path, required=True, metavar="DIR", help="PNG of the same names: classes from 1, 0: none")
    add("--zero-is-a-class", action="store_true", help="classes are counted from 0 in the annotations, 255: none")
    add("--scale", type=positive, nargs=2, metavar=("LONG", "SHORT"), help="bounds of the input's sides")
    add("--multi-scale", action="store_true", help="average 6 scales, each mirrored too, as published (Table 14)")
    add("--window", type=positive, nargs=2, metavar=("SIDE", "STRIDE"), help="run on overlapping crops")


class SegmentBenchmark:
    """A segmenter on pictures with a class for every pixel.

    Args:
        options: ``images``, ``annotations``, ``zero_is_a_class``, ``scale``, ``multi_scale``, ``window``, ``limit``.

    Raises:
        EvaluationError: there are no pictures, or annotations are missing.
    """

    noun = "images"

    def __init__(self, model: EvaluatedModel, options: argparse.Namespace) -> None:
        self.model, self.options = model, options
        suffixes = picture_suffixes()
        folder = options.images
        if not folder.is_dir():
            raise EvaluationError(f"There is no folder {folder}.", "Check --images.")
        pictures = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in suffixes and not path.name.startswith(".")
        )
        if not pictures:
            raise EvaluationError(f"{folder} holds no pictures.", "Check --images.")
        self.ids = [path.relative_to(folder).as_posix() for path in pictures][: options.limit]
        if missing := [name for name in self.ids if not self._labels_of(name).is_file()]:
            raise EvaluationError(
                f"{len(missing)} of {len(self.ids)} pictures have no annotation, the first is {missing[0]}.",
                "Check --annotations against --images.",
            )
        self.how: dict[str, Any] = {"scale": tuple(options.scale or test_scale(model.source))}
        if options.multi_scale:
            self.how |= {"ratios": PUBLISHED_RATIOS, "flip": True}
        window = options.window
        self.origin = {**model.origin, **self.how, "window": window, "images": str(folder)}
        self.origin |= {"annotations": str(options.annotations), "zero_is_a_class": options.zero_is_a_class}
        self.engine = Engine(model.network, model.engine, wait=True)
        run = {"run": lambda images: self.engine(images).outputs}
        self.how |= {"window": SlidingWindow(*window) if window else None, **run}

    def results(self, todo: Sequence[Id]) -> Iterator[tuple[Id, Any]]:
        """The confusion matrix of each picture, its entries above zero: [number in the matrix, pixels]."""
        classes = self.model.network.num_classes
        for name in todo:
            try:
                labels = self._labels(name)
                pixels = read_image(self.options.images / name, tuple(labels.shape))
                found = confusion_matrix(self.model.network.predict(pixels, **self.how), labels, classes).flatten()
            except UserError as error:
                yield name, error
                continue
            used = found.nonzero().flatten()
            yield name, torch.stack([used, found[used]], dim=1).tolist()

    def metrics(self, finished: Mapping[Id, list[list[int]]]) -> dict[str, Any]:
        """``mIoU``, ``pixel_accuracy``, ``mean_accuracy`` and ``iou_by_class``, percent.

        Raises:
            EvaluationError: not one pixel has a class.
        """
        classes = self.model.network.num_classes
        total = torch.zeros(classes**2, dtype=torch.int64)
        for entries in finished.values():
            numbers, pixels = torch.tensor(entries, dtype=torch.int64).view(-1, 2).unbind(1)
            total[numbers] += pixels
        if not total.any():
            raise EvaluationError("Not one pixel has a class.", "Check the annotations, and --zero-is-a-class.")
        confusion = total.view(classes, classes)
        union = confusion.sum(0) + confusion.sum(1) - confusion.diag()
        ious = zip(self._class_names(), confusion.diag().tolist(), union.tolist(), strict=True)
        by_class = {name: 100 * right / of for name, right, of in ious if of}
        return {**segmentation_metrics(confusion), "iou_by_class": by_class}

    def table(self, metrics: Mapping[str, Any]) -> str:
        scales = "multi-scale" if self.options.multi_scale else "single scale"
        return (
            f"{self.model.name}, {scales}: mIoU {metrics['mIoU']:.2f} %, pixel accuracy "
            f"{metrics['pixel_accuracy']:.2f} %, mean accuracy {metrics['mean_accuracy']:.2f} %"
        )

    def _labels_of(self, name: str) -> Path:
        return (self.options.annotations / name).with_suffix(".png")

    def _labels(self, name: str) -> Tensor:
        """(H, W) int64; raises EvaluationError."""
        labels = decode_labels(self._labels_of(name)).astype(np.int64)
        if not self.options.zero_is_a_class:
            labels = np.where(labels == 0, IGNORE_INDEX, labels - 1)
        return torch.from_numpy(labels)

    def _class_names(self) -> Sequence[str]:
        numbers = [str(i) for i in range(self.model.network.num_classes)]
        known = self.model.class_names or ADE20K_CLASSES
        return known if len(known) == len(numbers) else numbers


def decode_labels(path: Path) -> np.ndarray:
    """Read a label map (H, W) of whole numbers, stored as grey values or as indices of a palette.

    Raises:
        EvaluationError: it is missing or damaged, or has colours.
    """
    try:
        with Image.open(path) as image:
            labels = np.array(image)
    except DECODE_ERRORS as error:
        raise EvaluationError(f"{path} cannot be read as an image ({error}).", "Copy or download it again.") from error
    if labels.ndim != 2 or labels.dtype.kind not in "ui":
        raise EvaluationError(f"{path} is no map of class numbers.", "Annotations have one channel of whole numbers.")
    return labels
