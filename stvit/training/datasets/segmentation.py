"""Images with a class for every pixel: ADE20K, or a set laid out like it.

Training samples are (image (3, H, W) float32, normalised, labels (H, W) int64); samples to evaluate on are
(image (H, W, 3) uint8, labels (H, W) int64).
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset
from torchvision import tv_tensors
from torchvision.transforms import v2

from stvit.class_names import ADE20K_CLASSES
from stvit.evaluate.data import EvaluationError, read_image
from stvit.predict.media import DECODE_ERRORS, picture_suffixes
from stvit.segmentation import IGNORE_INDEX
from stvit.segmentation.upernet import TEST_SCALE
from stvit.training.recipe import AnyTuple, DataPaths, Recipe, RecipeError, Table, read_table

from .data import DenseData, MappedDataset, SampleError
from .transforms import CropOfSeveralClasses, RandomRatio

#: changes of brightness, contrast, saturation and hue as published, each made to every second image
DISTORTION = ({"brightness": 0.125}, {"contrast": 0.5}, {"saturation": 0.5}, {"hue": 0.1})
MOST_OF_A_CLASS = 0.75  # of a crop, as published
NORMALISE = v2.Compose(
    [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)]
)


class AdeOptions(Table):
    kind: str
    scale: Annotated[tuple[int, int], AnyTuple] = TEST_SCALE


class AdeAugmentation(Table):
    crop: int
    ratios: Annotated[tuple[float, float], AnyTuple]
    flip: bool = False
    distort: bool = False


class Ade20k(DenseData):
    """ADE20K's scene parsing benchmark, or a set laid out like it: the data path ``folder``, in it ``images/training``
    and ``images/validation`` (in any format that Pillow decodes), and ``annotations/training`` and
    ``annotations/validation`` (PNG of the same names, classes from 1, 0 for pixels to ignore).

    Options: ``scale``, bounds of the long and the short side, 2048 and 512 by default. Augmentation: ``crop``, the
    side of training samples in pixels; ``ratios``, lowest and highest multiple of the scale that images are resized to
    before that; ``flip``; ``distort``, changes of colour and brightness.
    """

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        folder, self.scale = paths.need("folder"), read_table(AdeOptions, recipe.data, "data").scale
        augmentation = read_table(AdeAugmentation, recipe.augmentation, "augmentation")
        self.crop, self.transform = augmentation.crop, training_transform(self.scale, augmentation)
        classes = recipe.model_options.get("num_classes", len(ADE20K_CLASSES))
        self.class_names = ADE20K_CLASSES if classes == len(ADE20K_CLASSES) else ()
        parts = {"train": "training", "validation": "validation"}
        self.files = {split: AdeFiles(folder, part, classes) for split, part in parts.items()}

    def dataset(self, split: str, epoch: int) -> Dataset:
        if split == "test":
            raise RecipeError("the labels of ADE20K's test split are not public; evaluate on validation")
        return MappedDataset(self.files[split], self.augment) if split == "train" else self.files[split]

    def augment(self, sample: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """A sample to evaluate on as one to train on, of the size of a crop whatever its own was."""
        image, labels = sample
        image, labels = self.transform(tv_tensors.Image(image.permute(2, 0, 1)), tv_tensors.Mask(labels))
        padding = (0, self.crop - image.shape[2], 0, self.crop - image.shape[1])
        return F.pad(image.as_subclass(Tensor), padding), F.pad(labels.as_subclass(Tensor), padding, value=IGNORE_INDEX)


def training_transform(scale: tuple[int, int], augmentation: AdeAugmentation) -> v2.Transform:
    """See :class:`Ade20k`."""
    steps: list[v2.Transform] = [RandomRatio(scale, augmentation.ratios)]
    steps.append(CropOfSeveralClasses(augmentation.crop, MOST_OF_A_CLASS))
    if augmentation.flip:
        steps.append(v2.RandomHorizontalFlip())
    if augmentation.distort:
        steps += [v2.RandomApply([v2.ColorJitter(**change)]) for change in DISTORTION]
    return v2.Compose([*steps, NORMALISE])


class AdeFiles(Dataset):
    """The samples of one part of the set, in the order of their names.

    Raises:
        RecipeError: there is no such folder, no image in it, or an image without its labels.
    """

    def __init__(self, folder: Path, part: str, num_classes: int) -> None:
        self.num_classes = num_classes
        images, labels = folder / "images" / part, folder / "annotations" / part
        for needed in (images, labels):
            if not needed.is_dir():
                raise RecipeError(f"--data folder: there is no {needed}; name a folder laid out as ADE20K's benchmark")
        suffixes, files = picture_suffixes(), sorted(path for path in images.iterdir() if path.is_file())
        pictures = [path for path in files if path.suffix.lower() in suffixes and not path.name.startswith(".")]
        if not pictures:
            raise RecipeError(f"--data folder: {images} holds no images")
        if len(pictures) < len(files):
            warnings.warn(f"{images}: {len(files) - len(pictures)} files are no images.", stacklevel=2)
        self.files = [(path, labels / f"{path.stem}.png") for path in pictures]
        if missing := [labels_path for _, labels_path in self.files if not labels_path.is_file()]:
            raise RecipeError(
                f"--data folder: {len(missing)} images have no labels, the first that is missing is {missing[0]}"
            )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        """Raises SampleError where a file is damaged or labels are none of the classes."""
        image_path, labels_path = self.files[index]
        labels = read_labels(labels_path, self.num_classes)
        try:
            return torch.from_numpy(read_image(image_path, tuple(labels.shape))), labels
        except EvaluationError as error:
            raise SampleError(str(error)) from error


def read_labels(path: Path, num_classes: int) -> Tensor:
    """(H, W) int64 from a PNG that counts classes from 1: from 0, and ``IGNORE_INDEX`` where the file has 0.

    Raises:
        SampleError: the file is damaged, has more than one channel, or labels that are none of the classes.
    """
    try:
        with Image.open(path) as file:
            values = np.array(file)
    except DECODE_ERRORS as error:
        raise SampleError(f"{path} cannot be read as an image ({error}). Copy or download it again.") from error
    if values.ndim != 2 or values.dtype != np.uint8:
        raise SampleError(f"{path} is no map of labels: expected one channel of 8 bits. Take the set's own files.")
    if values.max(initial=0) > num_classes:
        raise SampleError(f"{path}: labels reach {values.max()}, but the model has {num_classes} classes, from 1 here.")
    labels = torch.from_numpy(values).long() - 1
    return labels.masked_fill(labels < 0, IGNORE_INDEX)
