"""Training classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.training.datasets.classification import picture_data
from stvit.training.recipe import Recipe, RecipeError

from .task import Places, Task

IMAGENET_CLASSES = 1000  # of a model whose recipe names no number


class ClassifyTask(Task):
    """Images and their classes; see :mod:`.pictures` for the data.

    Augmentation of batches: ``mixup_alpha``, ``cutmix_alpha``, ``prob``, ``switch_prob``, ``label_smoothing``. A
    teacher adds the divergence of the softened class probabilities (Hinton et al., 2015).
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        super().__init__(recipe, places)
        self.data = picture_data(recipe, places)
        augmentation = recipe.augmentation
        self.smoothing = augmentation.get("label_smoothing", 0.0)
        mixing = {
            k: augmentation[k] for k in ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob") if k in augmentation
        }
        mixes = mixing.get("mixup_alpha") or mixing.get("cutmix_alpha")
        classes = self.data.num_classes
        if recipe.model_options.get("num_classes", IMAGENET_CLASSES) != classes:
            raise RecipeError(f"the data has {classes} classes; set model_options.num_classes to it")
        self.mixup = Mixup(**mixing, label_smoothing=self.smoothing, num_classes=classes) if mixes else None
        if recipe.teacher:
            self.teacher = self.trained("teacher").requires_grad_(False)

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Cross-entropy with mixed or smoothed labels, and the teacher's divergence."""
        images, labels = batch
        if self.mixup is None:
            logits = model(images).float()
            entropy = F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        else:
            images, targets = self.mixup(images, labels)
            logits = model(images).float()
            entropy = SoftTargetCrossEntropy()(logits, targets)
        if self.teacher is None:
            return {"cross_entropy": entropy}
        weight, temperature = self.recipe.teacher.get("weight", 0.5), self.recipe.teacher.get("temperature", 1.0)
        with torch.no_grad():
            softened = (self.teacher(images).float() / temperature).log_softmax(-1)
        own = (logits / temperature).log_softmax(-1)
        divergence = F.kl_div(own, softened, log_target=True, reduction="batchmean") * temperature**2
        return {"cross_entropy": (1 - weight) * entropy, "distillation": weight * divergence}

    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """``top1`` and ``top5`` in percent, and the mean cross-entropy."""
        sums = torch.zeros(4, device=accelerator.device)
        for images, labels in batches:
            labels = labels.to(accelerator.device)
            logits = model(images.to(accelerator.device)).float()
            hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
            entropy = F.cross_entropy(logits, labels, reduction="sum")
            sums += torch.stack([hits[:, 0].sum(), hits.sum(), entropy, entropy.new_tensor(len(labels))])
        top1, top5, entropy, count = accelerator.reduce(sums, reduction="sum").tolist()
        return {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "cross_entropy": entropy / count}
