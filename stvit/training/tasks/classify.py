"""Training classifiers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from accelerate import Accelerator
from pydantic import ConfigDict
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.layers.reducing_vit import TrainingOutputs
from stvit.training.batches import Share
from stvit.training.datasets.classification import FolderPictures, ShardPictures
from stvit.training.datasets.data import make_data
from stvit.training.recipe import DataPaths, Recipe, RecipeError, Table, read_table

from .task import Task

KINDS = {"folder": FolderPictures, "shards": ShardPictures}

IMAGENET_CLASSES = 1000  # of a model whose recipe names no number


class Mixing(Table):
    """Augmentation of whole batches and their labels, see timm's ``Mixup``; other keys are the data's."""

    model_config = ConfigDict(extra="ignore")

    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    prob: float = 1.0
    switch_prob: float = 0.5
    label_smoothing: float = 0.0


class ClassifyTask(Task):
    """Pictures and their classes; data of the kinds ``folder`` and ``shards``, see
    :mod:`stvit.training.datasets.classification`, or of one's own with ``num_classes``.

    Augmentation of batches: ``mixup_alpha``, ``cutmix_alpha``, ``prob``, ``switch_prob``, ``label_smoothing``. A
    teacher adds the divergence of the softened class probabilities (Hinton et al., 2015).
    """

    kinds = KINDS

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(recipe, paths)
        self.data = make_data(self.kinds, recipe, paths)
        mixing, classes = read_table(Mixing, recipe.augmentation, "augmentation"), self.data.num_classes
        self.smoothing = mixing.label_smoothing
        if self.expected_classes() != classes:
            raise RecipeError(f"the data has {classes} classes; set model_options.num_classes to it")
        mixes = mixing.mixup_alpha > 0 or mixing.cutmix_alpha > 0
        self.mixup = Mixup(**mixing.model_dump(), num_classes=classes) if mixes else None
        if recipe.teacher:
            self.teacher = self.trained("teacher").requires_grad_(False)

    def expected_classes(self) -> int:
        """How many classes the model has."""
        return self.recipe.model_options.get("num_classes", IMAGENET_CLASSES)

    def check(self, share: Share, workers: int) -> None:
        """See the base class; mixing pairs the samples of a pass."""
        if self.mixup is not None and share.samples % 2:
            raise RecipeError(
                f"mixup and cutmix take an even number of samples per process and pass, not {share.samples}: change "
                "batch_size, --accumulation or the number of processes"
            )
        super().check(share, workers)

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Cross-entropy with mixed or smoothed labels, the teacher's divergence, and what the model's own method adds:
        the cross-entropy of an auxiliary head, and terms of its own."""
        images, labels = batch
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)
        own_way = getattr(model, "forward_training", None)
        outputs = own_way(images) if own_way else TrainingOutputs(model(images))
        logits, terms = outputs.logits.float(), dict(outputs.losses)
        if outputs.auxiliary_logits is not None:
            terms["auxiliary"] = self.entropy(outputs.auxiliary_logits.float(), labels)
        if self.teacher is None:
            return {"cross_entropy": self.entropy(logits, labels), **terms}
        weight = self.recipe.teacher.weight
        with torch.no_grad():
            theirs = self.teacher(images).float()
        entropy = (1 - weight) * self.entropy(logits, labels)
        return {"cross_entropy": entropy, "distillation": weight * self.divergence(logits, theirs), **terms}

    def divergence(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Divergence from the teacher's softened class probabilities, both (B, classes)."""
        temperature = self.recipe.teacher.temperature
        softened = (teacher_logits / temperature).log_softmax(-1)
        own = (logits / temperature).log_softmax(-1)
        return F.kl_div(own, softened, log_target=True, reduction="batchmean") * temperature**2

    def entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of (B, classes), with labels (B,), or mixed ones (B, classes)."""
        if self.mixup is None:
            return F.cross_entropy(logits, labels, label_smoothing=self.smoothing)
        return SoftTargetCrossEntropy()(logits, labels)

    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """``top1`` and ``top5`` in percent, and the mean cross-entropy."""
        sums = torch.zeros(4, device=accelerator.device)
        for images, labels in batches:
            labels = labels.to(accelerator.device)
            sums += self.score(model(images.to(accelerator.device)).float(), labels)
        return self.metrics(accelerator.reduce(sums, reduction="sum"))

    @staticmethod
    def score(logits: Tensor, labels: Tensor) -> Tensor:
        """(4,): right answers, right ones among five, cross-entropy and number of samples, all summed."""
        hits = logits.topk(min(5, logits.shape[1])).indices == labels[:, None]
        entropy = F.cross_entropy(logits, labels, reduction="sum")
        return torch.stack([hits[:, 0].sum(), hits.sum(), entropy, entropy.new_tensor(len(labels))])

    @staticmethod
    def metrics(sums: Tensor) -> dict[str, float]:
        """What :meth:`score` gave over all samples, as means."""
        top1, top5, entropy, count = sums.tolist()
        return {"top1": 100 * top1 / count, "top5": 100 * top5 / count, "cross_entropy": entropy / count}
