"""Images with boxes, classes and masks: what all kinds of them share, and garment scenes.

Training samples are (image (3, H, W) float32, normalised, target), the target the fields of a
:class:`~stvit.detection.losses.DetectionTarget`. Samples to evaluate on are (image id, image (H, W, 3) uint8).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision.transforms import v2

from stvit.class_names import COCO_CLASSES
from stvit.detection.preprocess import MEAN, MULTIPLE, STD
from stvit.evaluate.coco_annotations import Annotations, CocoImage, category_ids, index
from stvit.training.recipe import Recipe
from stvit.training.tasks.dense import Changed, DenseData, SceneData
from stvit.training.tasks.task import Places
from weights.garments import CATEGORIES, coco_annotations

NORMALISE = v2.Compose([v2.ToDtype(torch.float32), v2.Normalize(MEAN, STD)])  # as the detector's predict() does


def join(samples: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
    """Training samples -> images (B, 3, H, W), padded with zeros at the bottom and on the right to common multiples of
    32, and their targets."""
    images = [image for image, _ in samples]
    H, W = (-(-max(image.shape[axis] for image in images) // MULTIPLE) * MULTIPLE for axis in (1, 2))
    padded = [F.pad(image, (0, W - image.shape[2], 0, H - image.shape[1])) for image in images]
    return torch.stack(padded), [target for _, target in samples]


class DetectionData(DenseData):
    """What the kinds of data share.

    Attributes:
        categories: id of each class's category in the annotations.
    """

    categories: tuple[int, ...]
    collate = staticmethod(join)

    @abstractmethod
    def ground_truth(self, split: str) -> Annotations:
        """What a split is evaluated against."""


class GarmentDetection(DetectionData, SceneData):
    """See :class:`~stvit.training.tasks.dense.SceneData`."""

    def __init__(self, recipe: Recipe, places: Places) -> None:
        super().__init__(recipe, places)
        self.categories = category_ids(num_classes(recipe), CATEGORIES)
        self._ground_truth: dict[str, Annotations] = {}

    def ground_truth(self, split: str) -> Annotations:
        """See the base class; the scenes of a split are gone through once."""
        if split not in self._ground_truth:
            described = coco_annotations(self.scenes(split))
            images = tuple(CocoImage(i["id"], i["file_name"], (i["height"], i["width"])) for i in described["images"])
            self._ground_truth[split] = Annotations(index(described), images, sha256="", has_masks=True)
        return self._ground_truth[split]

    def dataset(self, split: str, epoch: int) -> Dataset:
        return Changed(self.scenes(split, epoch), to_train_on if split == "train" else to_evaluate_on)


def num_classes(recipe: Recipe) -> int:
    """Classes of the recipe's detector."""
    return recipe.model_options.get("num_classes", len(COCO_CLASSES))


def to_train_on(scene: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
    """A garment scene as a training sample."""
    picture, target = scene
    return NORMALISE(picture), {name: target[name] for name in ("boxes", "labels", "masks")}


def to_evaluate_on(scene: tuple[Tensor, dict[str, Any]]) -> tuple[int, Tensor]:
    """A garment scene as a sample to evaluate on."""
    picture, target = scene
    return target["image_id"], picture.permute(1, 2, 0)
