"""Training detectors that also segment what they find."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from accelerate import Accelerator
from accelerate.utils import broadcast_object_list, gather_object
from pydantic import Field
from torch import Tensor, nn

from stvit.detection.losses import PUBLISHED, DetectionTarget, TrainingRules
from stvit.evaluate.coco import as_results, average_precision
from stvit.training.datasets.data import make_data
from stvit.training.datasets.detection import CocoData, DetectionData
from stvit.training.recipe import DataPaths, Recipe, Table, read_table

from .task import DenseTask

KINDS = {"coco": CocoData}
REPORTED = ("AP", "AP50", "AP75")


class LossOptions(Table):
    """Numbers of samples in the loss, as published by default.

    Attributes:
        anchors, regions: sampled of an image.
        proposals: of a level and of an image that go on to the second stage.
    """

    proposals: int = Field(PUBLISHED.proposals, ge=1)
    anchors: int = Field(PUBLISHED.anchor_sampling.size, ge=1)
    regions: int = Field(PUBLISHED.proposal_sampling.size, ge=1)


class DetectTask(DenseTask):
    """Images, boxes and masks; data of the kind ``coco``, or a :class:`DetectionData` of one's own.

    Options of the loss: :class:`LossOptions`.
    """

    data: DetectionData

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(recipe, paths)
        self.rules = training_rules(recipe.loss)
        self.data = make_data(KINDS, recipe, paths)

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """The losses of all stages under their published names."""
        images, targets = batch
        return model.losses(images, [DetectionTarget(**target) for target in targets], self.rules)

    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """COCO's average precision of boxes and masks in percent: ``box_AP``, ``box_AP50``, ..., ``mask_AP75``."""
        found = []
        for samples in batches:
            for image_id, image in samples:
                detections = model.predict(image, self.data.scale)
                found.append((image_id, as_results(image_id, detections, self.data.categories)))
        gathered = gather_object(found)
        metrics = [self._metrics(dict(gathered), split) if accelerator.is_main_process else None]
        return broadcast_object_list(metrics)[0]

    def _metrics(self, results: dict[int, list[dict[str, Any]]], split: str) -> dict[str, float]:
        truth = self.data.ground_truth(split)
        figures = average_precision(truth, truth.images, results)
        return {
            f"{kind}_{name}": 100 * of_kind[name]
            for kind, of_kind in figures.items()
            for name in REPORTED
            if of_kind is not None and of_kind[name] is not None
        }


def training_rules(options: Mapping[str, int]) -> TrainingRules:
    """The published rules with other numbers of samples.

    Raises:
        RecipeError: an unknown option, or a number below 1.
    """
    wanted = read_table(LossOptions, options, "loss")
    return replace(
        PUBLISHED,
        proposals=wanted.proposals,
        anchor_sampling=replace(PUBLISHED.anchor_sampling, size=wanted.anchors),
        proposal_sampling=replace(PUBLISHED.proposal_sampling, size=wanted.regions),
    )
