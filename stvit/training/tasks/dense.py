"""What detection and segmentation have in common: models with a backbone, evaluated on images of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from accelerate import PartialState
from torch import nn
from torch.utils.data import Dataset

from stvit.training.batches import Share, evaluation_batches
from stvit.training.datasets.garments import GarmentData
from stvit.training.recipe import Recipe
from weights.garments import GarmentScenes

from .task import MapData, Places, Task


class DenseTask(Task):
    """A task whose model has a ``backbone`` and heads on it."""

    def build_model(self) -> nn.Module:
        """As for every task; on several GPUs the heads' BatchNorm sees the batches of all of them, as published."""
        model, machines = super().build_model(), PartialState()
        if machines.num_processes > 1 and machines.device.type == "cuda":
            for name, part in list(model.named_children()):
                if name != "backbone":
                    setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))
        return model


class DenseData(MapData):
    """Data whose samples to evaluate on are as they come, batches of them lists.

    Attributes:
        scale: bounds of the long and the short side of the network's input in evaluation.
    """

    scale: tuple[int, int]

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        return evaluation_batches(self.dataset(split, 0), share, workers=workers, collate=list)


class SceneData(GarmentData, DenseData):
    """Several garments on a photograph.

    Options beside those of all garments: ``max_items`` in a scene.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        super().__init__(recipe, places)
        self.max_items = recipe.data.get("max_items", 6)
        self.scale = (self.size, self.size)

    def scenes(self, split: str, epoch: int = 0) -> GarmentScenes:
        """The scenes of ``train`` in an epoch, or those of ``validation`` or ``test``."""
        which = self.samples(split, epoch)
        return GarmentScenes(self.sources[split], self.size, max_items=self.max_items, **which)


class Changed(Dataset):
    """The samples of a data set, each changed by a function as it is read."""

    def __init__(self, samples: Dataset, change: Callable[[Any], Any]) -> None:
        self.samples, self.change = samples, change

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.change(self.samples[index])
