"""Images with a class for every pixel: garment scenes, or ADE20K.

Training samples are (image (3, H, W) float32, normalised, labels (H, W) int64); samples to evaluate on are
(image (H, W, 3) uint8, labels (H, W) int64).
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, UnidentifiedImageError
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from stvit.evaluate.images import read_image
from stvit.segmentation import IGNORE_INDEX
from stvit.training.recipe import Recipe, RecipeError
from stvit.training.tasks.dense import Changed, DenseData, SceneData
from stvit.training.tasks.task import Places

from .transforms import CropOfSeveralClasses, RandomRatio

#: changes of brightness, contrast, saturation and hue as published, each made to every second image
DISTORTION = ({"brightness": 0.125}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.1})
MOST_OF_A_CLASS = 0.75  # of a crop, as published
SCALE = (2048, 512)

NORMALISE = v2.Compose(
    [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)]
)


class GarmentSegmentation(SceneData):
    """The classes are background and the garments; see :class:`~stvit.training.tasks.dense.SceneData`."""

    def dataset(self, split: str, epoch: int) -> Dataset:
        return Changed(self.scenes(split, epoch), to_train_on if split == "train" else to_evaluate_on)


def to_train_on(scene: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """A garment scene as a training sample."""
    return NORMALISE(scene[0]), scene[1]["semantic"]


def to_evaluate_on(scene: tuple[Tensor, dict[str, Any]]) -> tuple[Tensor, Tensor]:
    """A garment scene as a sample to evaluate on."""
    return scene[0].permute(1, 2, 0), scene[1]["semantic"]


class Ade20k(DenseData):
    """ADE20K's scene parsing benchmark, or a set laid out like it: the place ``folder``, in it ``images/training``,
    ``images/validation`` (JPEG) and ``annotations/training``, ``annotations/validation`` (PNG of the same names,
    classes from 1, 0 for pixels to ignore).

    Options: ``scale``, bounds of the long and the short side, 2048 and 512 by default. Augmentation: ``crop``, the
    side of training samples in pixels; ``ratios``, lowest and highest multiple of the scale that images are resized to
    before that; ``flip``; ``distort``, changes of colour and brightness.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        folder, augmentation = places.need("folder"), recipe.augmentation
        self.scale, self.crop = tuple(recipe.data.get("scale", SCALE)), augmentation["crop"]
        self.transform = training_transform(self.scale, augmentation)
        self.files = {"train": AdeFiles(folder, "training"), "validation": AdeFiles(folder, "validation")}

    def dataset(self, split: str, epoch: int) -> Dataset:
        return Changed(self.files[split], self.augment) if split == "train" else self.files[split]

    def augment(self, sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A sample to evaluate on as one to train on, of the size of a crop whatever its own was."""
        image, labels = sample
        image, labels = self.transform(tv_tensors.Image(image.permute(2, 0, 1)), tv_tensors.Mask(labels))
        padding = (0, self.crop - image.shape[2], 0, self.crop - image.shape[1])
        return F.pad(image.as_subclass(Tensor), padding), F.pad(labels.as_subclass(Tensor), padding, value=IGNORE_INDEX)


def training_transform(scale: tuple[int, int], augmentation: Mapping[str, Any]) -> v2.Transform:
    """See :class:`Ade20k`."""
    steps: list[v2.Transform] = [RandomRatio(scale, tuple(augmentation["ratios"]))]
    steps.append(CropOfSeveralClasses(augmentation["crop"], MOST_OF_A_CLASS))
    if augmentation.get("flip"):
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.get("distort"):
        steps += [v2.RandomApply([v2.ColorJitter(**change)]) for change in DISTORTION]
    return v2.Compose([*steps, NORMALISE])


class AdeFiles(Dataset):
    """The samples of one part of the set, in the order of their names.

    Raises:
        RecipeError: there is no such folder, no image in it, or an image without its labels.
    """

    def __init__(self, folder: Path, part: str) -> None:
        images, labels = folder / "images" / part, folder / "annotations" / part
        for needed in (images, labels):
            if not needed.is_dir():
                raise RecipeError(f"--place folder: there is no {needed}; name a folder laid out as ADE20K's benchmark")
        self.files = [(path, labels / f"{path.stem}.png") for path in sorted(images.glob("*.jpg"))]
        if not self.files:
            raise RecipeError(f"--place folder: {images} holds no .jpg")
        if missing := [labels_path for _, labels_path in self.files if not labels_path.is_file()]:
            raise RecipeError(
                f"--place folder: {len(missing)} images have no labels, the first that is missing is {missing[0]}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        image_path, labels_path = self.files[index]
        labels = read_labels(labels_path)
        return torch.from_numpy(read_image(image_path, tuple(labels.shape))), labels


def read_labels(path: Path) -> Tensor:
    """(H, W) int64 from a PNG that counts classes from 1: from 0, and ``IGNORE_INDEX`` where the file has 0.

    Raises:
        RecipeError: the file is damaged, or has more than one channel.
    """
    try:
        with Image.open(path) as file:
            values = np.array(file)
    except (UnidentifiedImageError, OSError) as error:
        raise RecipeError(f"{path} cannot be read as an image ({error}). Copy or download it again.") from error
    if values.ndim != 2 or values.dtype != np.uint8:
        raise RecipeError(f"{path} is no map of labels: expected one channel of 8 bits. Take the set's own files.")
    labels = torch.from_numpy(values).long() - 1
    return labels.masked_fill(labels < 0, IGNORE_INDEX)
