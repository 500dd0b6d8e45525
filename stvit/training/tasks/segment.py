"""Training semantic segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from stvit.class_names import ADE20K_CLASSES
from stvit.segmentation import IGNORE_INDEX
from stvit.training.datasets.data import DenseData, make_data
from stvit.training.datasets.segmentation import Ade20k
from stvit.training.recipe import AnyTuple, DataPaths, Recipe, RecipeError, Table, read_table

from .task import DenseTask

KINDS = {"ade20k": Ade20k}


class LossOptions(Table):
    class_weights: Annotated[tuple[float, ...] | None, AnyTuple] = None


class SegmentTask(DenseTask):
    """Images and a class for every pixel; data of the kind ``ade20k``, or a :class:`DenseData` of one's own."""

    data: DenseData

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(recipe, paths)
        self.data = make_data(KINDS, recipe, paths)
        weights = read_table(LossOptions, recipe.loss, "loss").class_weights
        classes = recipe.model_options.get("num_classes", len(ADE20K_CLASSES))
        if weights is not None and len(weights) != classes:
            raise RecipeError(f"there are {len(weights)} class_weights for {classes} classes")
        self.class_weights = None if weights is None else torch.tensor(weights, dtype=torch.float32)

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Cross-entropy of the head and, weighted, of the auxiliary head."""
        images, labels = batch
        weights = None if self.class_weights is None else self.class_weights.to(images.device)
        return model.losses(images, labels, weights)

    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """``mIoU``, ``pixel_accuracy`` and ``mean_accuracy`` in percent, over all labelled pixels of the split."""
        confusion = torch.zeros(model.num_classes, model.num_classes, dtype=torch.int64)
        for samples in batches:
            for image, labels in samples:
                confusion += confusion_matrix(model.predict(image, scale=self.data.scale), labels, model.num_classes)
        return segmentation_metrics(accelerator.reduce(confusion.to(accelerator.device), reduction="sum").cpu())


def confusion_matrix(predicted: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """(K, K) int64: the pixels of every class, row by row, by what was predicted for them.

    Args:
        predicted: (H, W) int64.
        labels: (H, W) int64; those of ``IGNORE_INDEX`` are left out.

    Raises:
        RecipeError: labels that are none of the classes.
    """
    known = labels != IGNORE_INDEX
    if known.any() and labels[known].max() >= num_classes:
        raise RecipeError(f"labels reach {labels[known].max()}, but the model has {num_classes} classes from 0")
    pairs = labels[known] * num_classes + predicted[known]
    return torch.bincount(pairs, minlength=num_classes**2).view(num_classes, num_classes)


def segmentation_metrics(confusion: Tensor) -> dict[str, float]:
    """Percentages from a confusion matrix (K, K).

    The mean intersection over union leaves out classes that were neither there nor predicted, the mean accuracy those
    that were not there.
    """
    right, labelled, predicted = confusion.diag().double(), confusion.sum(dim=1), confusion.sum(dim=0)
    return {
        "mIoU": 100 * (right / (labelled + predicted - right)).nanmean().item(),
        "pixel_accuracy": 100 * (right.sum() / labelled.sum()).item(),
        "mean_accuracy": 100 * (right / labelled).nanmean().item(),
    }
