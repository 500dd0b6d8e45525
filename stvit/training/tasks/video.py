"""Training classifiers of clips."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.predict.clips import average_views
from stvit.training.datasets.clips import Kinetics
from stvit.training.datasets.data import make_data
from stvit.training.recipe import DataPaths, Recipe, RecipeError, Table, read_table

from .task import Task

KINDS = {"kinetics": Kinetics}
KINETICS_CLASSES = 400  # of a clip model whose recipe names no number
VIEWS_AT_ONCE = 16  # in one forward pass of the evaluation


class Augmentation(Table):
    label_smoothing: float = 0.0


class VideoTask(Task):
    """Clips and their classes; data of the kind ``kinetics``, see :mod:`stvit.training.datasets.clips`, or of one's own
    with ``num_classes``. Augmentation of the labels: ``label_smoothing``.
    """

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(recipe, paths)
        self.smoothing = read_table(Augmentation, recipe.augmentation, "augmentation").label_smoothing
        self.data = make_data(KINDS, recipe, paths)
        classes = recipe.model_options.get("num_classes", KINETICS_CLASSES)
        if classes != self.data.num_classes:
            raise RecipeError(
                f"the model has {classes} classes and the data {self.data.num_classes}; set model_options.num_classes"
            )

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Cross-entropy with smoothed labels."""
        clips, labels = batch
        return {"cross_entropy": F.cross_entropy(model(clips).float(), labels, label_smoothing=self.smoothing)}

    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """``top1`` and ``top5`` in percent, of the mean probabilities of every clip's views."""
        sums = torch.zeros(3, device=accelerator.device)
        for views, labels in batches:
            of_clips = views.shape[:2]
            parts = views.flatten(0, 1).split(VIEWS_AT_ONCE)
            logits = torch.cat([model(part.to(accelerator.device)).float() for part in parts]).unflatten(0, of_clips)
            probabilities = torch.stack([average_views(of_clip) for of_clip in logits])
            best = probabilities.topk(min(5, self.data.num_classes)).indices
            hits = best == labels.to(accelerator.device)[:, None]
            sums += torch.stack([hits[:, 0].sum(), hits.sum(), hits.new_tensor(len(labels), dtype=torch.long)])
        top1, top5, count = accelerator.reduce(sums, reduction="sum").tolist()
        return {"top1": 100 * top1 / count, "top5": 100 * top5 / count}
