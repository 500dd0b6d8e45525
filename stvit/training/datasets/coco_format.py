"""Training and evaluating on any set in COCO's format, augmented as the published detectors were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from stvit.detection.detector import TEST_SCALE
from stvit.evaluate.coco_annotations import Annotations, category_ids, find_images, read_annotations
from stvit.evaluate.images import read_image
from stvit.training.recipe import Recipe, RecipeError
from stvit.training.tasks.task import Places

from .detection import NORMALISE, DetectionData, num_classes
from .transforms import CropBetween, RandomShortSide

MIN_IMAGE_SIDE = 32  # pixels; smaller images are left out, as published
MIN_BOX_SIDE = 1  # pixels; boxes without extent are left out


class CocoData(DetectionData):
    """Images and annotations of instances, with masks; the places ``train_images`` and ``validation_images``, folders,
    and ``train_annotations`` and ``validation_annotations``, files.

    Images without annotations and images with a side below 32 pixels are not trained on, as published.

    Options: ``scale``, bounds of the long and the short side in evaluation. Augmentation: ``short_sides``, of which one
    is drawn, and ``longest``; ``flip``; ``crop``, a table for one half of the samples, which are first resized to one
    of its ``short_sides``, then cut to ``sides`` from the first to the second, then resized like the others.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.scale = tuple(recipe.data.get("scale", TEST_SCALE))
        annotations, paths = read_split("train", places)
        if not annotations.has_masks:
            raise RecipeError("the training annotations lack segmentations, which the detector's mask heads learn from")
        self.categories = category_ids(num_classes(recipe), annotations.categories)
        transform = training_transform(recipe.augmentation)
        self.training = CocoTraining(annotations, paths, self.categories, transform)
        self.annotations, paths = read_split("validation", places)
        category_ids(num_classes(recipe), self.annotations.categories)
        self.validation = CocoImages(self.annotations, paths)

    def dataset(self, split: str, epoch: int) -> Dataset:
        return self.training if split == "train" else self.validation

    def ground_truth(self, split: str) -> Annotations:
        """See the base class.

        Raises:
            RecipeError: it is the test split, whose annotations COCO keeps to itself.
        """
        if split == "test":
            raise RecipeError("the annotations of COCO's test split are not public; evaluate on validation")
        return self.annotations


def read_split(split: str, places: Places) -> tuple[Annotations, list[Path]]:
    """The annotations of a split and the files of its images.

    Raises:
        RecipeError: a place is not given.
        EvaluationError: the annotations cannot be used, or images are missing.
    """
    annotations = read_annotations(places.need(f"{split}_annotations"))
    return annotations, find_images(places.need(f"{split}_images"), annotations.images)


def training_transform(augmentation: Mapping[str, Any]) -> v2.Transform:
    """See :class:`CocoData`."""
    resize = RandomShortSide(augmentation["short_sides"], augmentation["longest"])
    if crop := augmentation.get("crop"):
        cut = [RandomShortSide(crop["short_sides"], augmentation["longest"]), CropBetween(*crop["sides"])]
        resize = v2.RandomChoice([resize, v2.Compose([*cut, resize])])
    flip = [v2.RandomHorizontalFlip()] if augmentation.get("flip") else []
    clean = v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIDE, min_area=MIN_BOX_SIDE, labels_getter=of_objects)
    return v2.Compose([v2.ClampBoundingBoxes(), *flip, resize, clean, NORMALISE])


def of_objects(sample: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """What belongs to the single objects of a sample beside boxes and masks."""
    return sample[1]["labels"], sample[1]["crowd"]


class CocoImages(Dataset):
    """(image id, image (H, W, 3) uint8), in the annotations' order."""

    def __init__(self, annotations: Annotations, paths: Sequence[Path]) -> None:
        self.images, self.paths = annotations.images, paths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        image = self.images[index]
        return image.id, torch.from_numpy(read_image(self.paths[index], image.size_hw))


class CocoTraining(Dataset):
    """Training samples as :mod:`.detection_data` describes them.

    Args:
        annotations: of instances, with masks.
        paths: files of the images.
        categories: id of each class's category; objects of other categories are left out.
        transform: of an image and the dict of its ``boxes``, ``labels``, ``masks`` and ``crowd`` (bool).
    """

    def __init__(
        self,
        annotations: Annotations,
        paths: Sequence[Path],
        categories: Sequence[int],
        transform: v2.Transform,
    ) -> None:
        self.coco, self.transform = annotations.ground_truth, transform
        self.labels = {category: label for label, category in enumerate(categories)}
        self.samples = [
            (image, path)
            for image, path in zip(annotations.images, paths, strict=True)
            if min(image.size_hw) >= MIN_IMAGE_SIDE and self._objects(image.id)
        ]

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, dict[str, Tensor]]:
        image, path = self.samples[index]
        pixels = tv_tensors.Image(torch.from_numpy(read_image(path, image.size_hw)).permute(2, 0, 1))
        pixels, target = self.transform(pixels, self._target(image.id, image.size_hw))
        crowd = target.pop("crowd")
        boxes, labels, masks = (target[name].as_subclass(Tensor) for name in ("boxes", "labels", "masks"))
        found = {"boxes": boxes[~crowd], "labels": labels[~crowd], "masks": masks[~crowd]}
        return pixels.as_subclass(Tensor), {**found, "ignore_boxes": boxes[crowd]}

    def _objects(self, image_id: int) -> list[dict[str, Any]]:
        return [one for one in self.coco.imgToAnns[image_id] if one["category_id"] in self.labels]

    def _target(self, image_id: int, size_hw: tuple[int, int]) -> dict[str, Tensor]:
        """The objects of an image, those without extent left out."""
        objects = [one for one in self._objects(image_id) if min(one["bbox"][2:]) >= MIN_BOX_SIDE and one["area"] > 0]
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).view(-1, 4)
        boxes[:, 2:] += boxes[:, :2]
        masks = np.array([self.coco.annToMask(one) for one in objects], dtype=bool).reshape(-1, *size_hw)
        return {
            "boxes": tv_tensors.BoundingBoxes(boxes, format="XYXY", canvas_size=size_hw),
            "labels": torch.tensor([self.labels[one["category_id"]] for one in objects], dtype=torch.int64),
            "masks": tv_tensors.Mask(torch.from_numpy(masks)),
            "crowd": torch.tensor([one["iscrowd"] for one in objects], dtype=torch.bool),
        }
