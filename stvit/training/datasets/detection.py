"""Images with boxes, classes and masks: any set in COCO's format, augmented as the published detectors were.

Training samples are (image (3, H, W) float32, normalised, target), the target the fields of a
:class:`~stvit.detection.losses.DetectionTarget`. Samples to evaluate on are (image id, image (H, W, 3) uint8).
"""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from stvit.class_names import COCO_CLASSES
from stvit.detection.detector import TEST_SCALE
from stvit.detection.preprocess import MEAN, MULTIPLE, STD
from stvit.evaluate.coco_annotations import (
    Annotations,
    CocoImage,
    Id,
    category_ids,
    find_images,
    first_of,
    read_annotations,
)
from stvit.evaluate.data import EvaluationError, of_another_size, read_image
from stvit.predict.media import DECODE_ERRORS
from stvit.training.batches import Share
from stvit.training.recipe import AnyTuple, DataPaths, Recipe, RecipeError, Table, read_table

from .data import DenseData, SampleError, check_samples
from .transforms import CropBetween, RandomShortSide

MIN_IMAGE_SIDE = 32  # pixels; smaller images are left out, as published
MIN_BOX_SIDE = 1  # pixels; boxes without extent are left out
NORMALISE = v2.Compose([v2.ToDtype(torch.float32), v2.Normalize(MEAN, STD)])  # as the detector's predict() does


class CocoOptions(Table):
    kind: str
    scale: Annotated[tuple[int, int], AnyTuple] = TEST_SCALE
    skip_invalid: bool = False


class CropOptions(Table):
    short_sides: Annotated[tuple[int, ...], AnyTuple]
    sides: Annotated[tuple[int, int], AnyTuple]


class CocoAugmentation(Table):
    short_sides: Annotated[tuple[int, ...], AnyTuple]
    longest: int
    flip: bool = False
    crop: CropOptions | None = None


class DetectionData(DenseData):
    """Data for detectors.

    Attributes:
        categories: id of each class's category in the annotations to evaluate on, if it has one there.
    """

    categories: tuple[Id | None, ...]

    @staticmethod
    def collate(samples: Sequence[tuple[Tensor, dict[str, Tensor]]]) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Training samples -> images (B, 3, H, W), padded with zeros at the bottom and on the right to common multiples
        of 32, and their targets."""
        images = [image for image, _ in samples]
        H, W = (-(-max(image.shape[axis] for image in images) // MULTIPLE) * MULTIPLE for axis in (1, 2))
        padded = [F.pad(image, (0, W - image.shape[2], 0, H - image.shape[1])) for image in images]
        return torch.stack(padded), [target for _, target in samples]

    @abstractmethod
    def ground_truth(self, split: str) -> Annotations:
        """The annotations that a split is evaluated against."""


class CocoData(DetectionData):
    """Images and annotations of instances, with masks; the data paths ``train_images`` and ``validation_images``,
    folders, and ``train_annotations`` and ``validation_annotations``, files.

    Images without annotations and images with a side below 32 pixels are not trained on, as published.

    Options: ``scale``, bounds of the long and the short side in evaluation; ``skip_invalid``, leave out objects that
    cannot be used instead of stopping. Augmentation: ``short_sides``, of which one
    is drawn, and ``longest``; ``flip``; ``crop``, a table for one half of the samples, which are first resized to one
    of its ``short_sides``, then cut to ``sides`` from the first to the second, then resized like the others.
    """

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(CocoOptions, recipe.data, "data")
        self.scale = options.scale
        annotations, files = read_split("train", paths, options.skip_invalid)
        if not annotations.has_masks:
            raise RecipeError("the training annotations lack segmentations, which the detector's mask heads learn from")
        training_categories = category_ids(num_classes(recipe), annotations.categories)
        names = {category["id"]: category["name"] for category in annotations.categories}
        of_coco = num_classes(recipe) == len(COCO_CLASSES) and set(names.values()) <= set(COCO_CLASSES)
        self.class_names = COCO_CLASSES if of_coco else tuple(names[category] for category in training_categories)
        transform = training_transform(read_table(CocoAugmentation, recipe.augmentation, "augmentation"))
        self.training = CocoTraining(annotations, files, training_categories, transform)
        self.annotations, files = read_split("validation", paths, options.skip_invalid)
        self.categories = category_ids(num_classes(recipe), self.annotations.categories, self.class_names)
        self.validation = CocoImages(self.annotations, files)

    def check(self, share: Share, workers: int) -> None:
        """Compare the sizes of the training images with their annotations, and read all images to evaluate on.

        Raises:
            RecipeError: images that cannot be opened, or are of other sizes.
        """
        check_samples(ImageHeaders(self.training.samples), "train", share, workers)
        super().check(share, workers)

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


def num_classes(recipe: Recipe) -> int:
    """Classes of the recipe's detector."""
    return recipe.model_options.get("num_classes", len(COCO_CLASSES))


def read_split(split: str, paths: DataPaths, skip_invalid: bool) -> tuple[Annotations, list[Path]]:
    """The annotations of a split, checked as evaluation checks them, and the files of its images.

    Raises:
        RecipeError: a path is not given, the annotations cannot be used, or images are missing.
    """
    file = paths.need(f"{split}_annotations")
    try:
        annotations = read_annotations(file, skip_invalid=skip_invalid)
        images = find_images(paths.need(f"{split}_images"), annotations.images)
    except EvaluationError as error:
        next_step = error.next_step.replace("--skip-invalid", "--set data.skip_invalid=true")
        raise RecipeError(error.problem, next_step.replace("--images", "--data")) from error
    if annotations.skipped:
        warnings.warn(
            f"{file}: {len(annotations.skipped)} objects are left out: {first_of(annotations.skipped)}.", stacklevel=2
        )
    return annotations, images


def training_transform(augmentation: CocoAugmentation) -> v2.Transform:
    """See :class:`CocoData`."""
    resize = RandomShortSide(augmentation.short_sides, augmentation.longest)
    if crop := augmentation.crop:
        cut = [RandomShortSide(crop.short_sides, augmentation.longest), CropBetween(*crop.sides)]
        resize = v2.RandomChoice([resize, v2.Compose([*cut, resize])])
    flip = [v2.RandomHorizontalFlip()] if augmentation.flip else []
    clean = v2.SanitizeBoundingBoxes(min_size=MIN_BOX_SIDE, min_area=MIN_BOX_SIDE, labels_getter=of_objects)
    return v2.Compose([v2.ClampBoundingBoxes(), *flip, resize, clean, NORMALISE])


def of_objects(sample: tuple[Tensor, dict[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """Labels and crowd flags, which are filtered together with the boxes of a sample."""
    return sample[1]["labels"], sample[1]["crowd"]


def read_sample(path: Path, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB.

    Raises:
        SampleError: the image is missing, damaged, or of another size.
    """
    try:
        return read_image(path, size_hw)
    except EvaluationError as error:
        raise SampleError(str(error)) from error


class ImageHeaders(Dataset):
    """The sizes of image files, compared with their annotations; nothing is decoded."""

    def __init__(self, samples: Sequence[tuple[CocoImage, Path]]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> None:
        """Raises SampleError where a file is no image or of another size."""
        image, path = self.samples[index]
        try:
            with Image.open(path) as file:
                found_hw = file.height, file.width
        except DECODE_ERRORS as error:
            raise SampleError(f"{path} cannot be read as an image ({error}).") from error
        if image.size_hw not in (found_hw, found_hw[::-1]):  # exchanged by an orientation in EXIF
            raise SampleError(str(of_another_size(path, found_hw, image.size_hw)))


class CocoImages(Dataset):
    """(image id, image (H, W, 3) uint8), in the annotations' order."""

    def __init__(self, annotations: Annotations, paths: Sequence[Path]) -> None:
        self.images, self.paths = annotations.images, paths

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[int, Tensor]:
        image = self.images[index]
        return image.id, torch.from_numpy(read_sample(self.paths[index], image.size_hw))


class CocoTraining(Dataset):
    """Training samples as this module describes them.

    Args:
        annotations: of instances, with masks.
        paths: files of the images.
        categories: id of each class's category, if it has one; objects of other categories are left out.
        transform: of an image and the dict of its ``boxes``, ``labels``, ``masks`` and ``crowd`` (bool).
    """

    def __init__(
        self,
        annotations: Annotations,
        paths: Sequence[Path],
        categories: Sequence[Id | None],
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
        pixels = tv_tensors.Image(torch.from_numpy(read_sample(path, image.size_hw)).permute(2, 0, 1))
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
