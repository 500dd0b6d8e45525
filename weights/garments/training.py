"""Garments as training data; recipes name a class as ``kind = "weights.garments.training:GarmentPictures"``."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms import v2

from stvit.evaluate.coco_annotations import Annotations, CocoImage, category_ids, index
from stvit.training.batches import Share
from stvit.training.datasets import clips, detection, segmentation
from stvit.training.datasets.classification import BATCH_OPTIONS
from stvit.training.datasets.data import DenseData, MapData, MappedDataset
from stvit.training.recipe import AnyTuple, DataPaths, Recipe, RecipeError, Table, read_table

from .datasets import MOTIONS, GarmentClassification, GarmentClips, GarmentScenes, difficulty_of
from .export import CATEGORIES, coco_annotations
from .sources import CLASS_NAMES, DEBIAN_FOLDER, SPLITS, Sources


class GarmentOptions(Table):
    """Options of all garments.

    Attributes:
        size: height and width in pixels.
        train_samples: in an epoch; by default, as of the other splits, as many as there are garments.
        curriculum: difficulties of the first epochs.
    """

    kind: str
    size: int
    train_samples: int | None = None
    validation_samples: int | None = None
    test_samples: int | None = None
    curriculum: Annotated[tuple[float, ...], AnyTuple] = ()


class SceneOptions(GarmentOptions):
    max_items: int = 6


class MotionOptions(GarmentOptions):
    frames: int
    label: Literal["motion", "item"]


class PictureAugmentation(Table):
    """Attributes:
    flip: mirror every second picture.
    crop: smallest share of the picture that a crop keeps.
    """

    flip: bool = False
    crop: float | None = None


class GarmentData(MapData):
    """Garments on photographs; needs the data path ``backgrounds`` and perhaps ``items``. Every epoch has others.

    Args:
        options: those of :class:`GarmentOptions`, and those of the kind.
    """

    def __init__(self, options: GarmentOptions, paths: DataPaths) -> None:
        self.size, self.curriculum = options.size, options.curriculum
        self.lengths = {split: getattr(options, f"{split}_samples") for split in SPLITS}
        photos, items = paths.need("backgrounds"), paths.get("items") or DEBIAN_FOLDER
        self.sources = {split: Sources.load(photos, split, items) for split in SPLITS}

    def check(self, share: Share, workers: int) -> None:
        """The sources have been read whole; raises RecipeError where there are no samples to evaluate on."""
        self.check_not_empty()

    def samples(self, split: str, epoch: int) -> dict[str, Any]:
        """The arguments of the data sets that depend on split and epoch."""
        which: dict[str, Any] = {"length": self.lengths[split]}
        if split == "train":
            which |= {"seed": epoch, "difficulty": difficulty_of(epoch, self.curriculum)}
        return which


class GarmentPictures(GarmentData):
    """One garment on a photograph, to classify. Augmentation: :class:`PictureAugmentation`."""

    num_classes, class_names = len(CLASS_NAMES), CLASS_NAMES

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(read_table(GarmentOptions, recipe.data, "data"), paths)
        of_pictures = {name: value for name, value in recipe.augmentation.items() if name not in BATCH_OPTIONS}
        augmentation = read_table(PictureAugmentation, of_pictures, "augmentation")
        normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)]
        augment: list[Any] = [v2.RandomHorizontalFlip()] if augmentation.flip else []
        if augmentation.crop is not None:
            augment.append(v2.RandomResizedCrop(self.size, scale=(augmentation.crop, 1.0)))
        self.transforms = {True: v2.Compose([*augment, *normalise]), False: v2.Compose(normalise)}

    def dataset(self, split: str, epoch: int) -> Dataset:
        which, transform = self.samples(split, epoch), self.transforms[split == "train"]
        return GarmentClassification(self.sources[split], self.size, transform=transform, **which)


class GarmentMotions(GarmentData):
    """One garment that moves before a photograph: every epoch shows the same garments, on other ground and moving in
    other ways.

    Options beside those of all garments: ``frames`` of a clip; ``label``, ``motion`` (eight) or ``item`` (ten).
    """

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(MotionOptions, recipe.data, "data")
        self.frames, self.label = options.frames, options.label
        self.class_names = MOTIONS if self.label == "motion" else CLASS_NAMES
        self.num_classes = len(self.class_names)
        super().__init__(options, paths)

    def dataset(self, split: str, epoch: int) -> Dataset:
        samples = GarmentClips(self.sources[split], self.size, frames=self.frames, **self.samples(split, epoch))
        return MappedDataset(samples, self._training_sample if split == "train" else self._evaluation_sample)

    def _training_sample(self, sample: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, int]:
        """A clip (3, T, H, W) uint8 and its targets -> the clip, normalised, and its class."""
        clip, target = sample
        return clips.NORMALISE(clip.transpose(0, 1)).transpose(0, 1), target[self.label]

    def _evaluation_sample(self, sample: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, int]:
        """The same with the clip as its only view."""
        clip, label = self._training_sample(sample)
        return clip[None], label


class SceneData(GarmentData, DenseData):
    """Several garments on a photograph. Options beside those of all garments: ``max_items`` in a scene."""

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(SceneOptions, recipe.data, "data")
        super().__init__(options, paths)
        self.max_items, self.scale = options.max_items, (self.size, self.size)

    def scenes(self, split: str, epoch: int = 0) -> GarmentScenes:
        """The scenes of ``train`` in an epoch, or those of ``validation`` or ``test``."""
        which = self.samples(split, epoch)
        return GarmentScenes(self.sources[split], self.size, max_items=self.max_items, **which)


class GarmentDetection(SceneData, detection.DetectionData):
    """Scenes to detect garments in."""

    class_names = CLASS_NAMES

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(recipe, paths)
        self.categories = category_ids(detection.num_classes(recipe), CATEGORIES)
        self._ground_truth: dict[str, Annotations] = {}

    def ground_truth(self, split: str) -> Annotations:
        """See the base class; the scenes of a split are composed once for it."""
        if split not in self._ground_truth:
            described = coco_annotations(self.scenes(split))
            images = tuple(CocoImage(i["id"], i["file_name"], (i["height"], i["width"])) for i in described["images"])
            self._ground_truth[split] = Annotations(index(described), images, sha256="", has_masks=True)
        return self._ground_truth[split]

    def dataset(self, split: str, epoch: int) -> Dataset:
        return MappedDataset(self.scenes(split, epoch), boxes_and_masks if split == "train" else image_and_id)


def boxes_and_masks(scene: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, dict[str, Tensor]]:
    """A scene as a training sample of a detector."""
    picture, target = scene
    return detection.NORMALISE(picture), {name: target[name] for name in ("boxes", "labels", "masks")}


def image_and_id(scene: tuple[Tensor, dict[str, Any]]) -> tuple[int, Tensor]:
    """A scene as a sample to evaluate a detector on."""
    picture, target = scene
    return target["image_id"], picture.permute(1, 2, 0)


class GarmentSegmentation(SceneData):
    """Scenes with a class for every pixel: background and the garments."""

    class_names = ("background", *CLASS_NAMES)

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        super().__init__(recipe, paths)
        if (classes := recipe.model_options.get("num_classes")) != len(self.class_names):
            raise RecipeError(f"labels reach {len(CLASS_NAMES)}, but the model has {classes} classes from 0")

    def dataset(self, split: str, epoch: int) -> Dataset:
        return MappedDataset(self.scenes(split, epoch), normalised_labels if split == "train" else image_and_labels)


def normalised_labels(scene: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """A scene as a training sample of a segmenter."""
    return segmentation.NORMALISE(scene[0]), scene[1]["semantic"]


def image_and_labels(scene: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """A scene as a sample to evaluate a segmenter on."""
    return scene[0].permute(1, 2, 0), scene[1]["semantic"]
