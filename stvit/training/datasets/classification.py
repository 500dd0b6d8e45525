"""Pictures with a class each: garments, a folder for each class, or WebDataset shards."""

from __future__ import annotations

import io
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
import webdataset as wds
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageDataset, create_transform
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from stvit.training.batches import Share, seed_everything, steps_per_epoch
from stvit.training.recipe import Recipe, RecipeError
from stvit.training.tasks.task import Data, MapData, Places, data_of_kind
from weights.garments import CLASS_NAMES, GarmentClassification

from .garments import GarmentData

#: options of the augmentation that work on batches, not on pictures
BATCH_OPTIONS = ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob", "label_smoothing")
SHUFFLE_BUFFER = 2000


def picture_data(recipe: Recipe, places: Places) -> Data:
    """The data that a classification recipe names.

    Raises:
        RecipeError: no such kind, or an option of it is missing.
    """
    kinds = {"garments": GarmentPictures, "folder": FolderPictures, "shards": ShardPictures}
    return data_of_kind(kinds, recipe, places)


class GarmentPictures(GarmentData):
    """One garment on a photograph. Augmentation: ``flip``, and ``crop``, the smallest share of the picture that a crop
    keeps.
    """

    num_classes = len(CLASS_NAMES)

    def __init__(self, recipe: Recipe, places: Places) -> None:
        super().__init__(recipe, places)
        augmentation = recipe.augmentation
        if unknown := sorted(augmentation.keys() - {"flip", "crop", *BATCH_OPTIONS}):
            raise RecipeError(f"garments have no augmentation {', '.join(unknown)}; there are flip and crop")
        normalise = [v2.ToDtype(torch.float32, scale=True), v2.Normalize(IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)]
        augment: list[Any] = [v2.RandomHorizontalFlip()] if augmentation.get("flip") else []
        if "crop" in augmentation:
            augment.append(v2.RandomResizedCrop(self.size, scale=(augmentation["crop"], 1.0)))
        self.transforms = {True: v2.Compose([*augment, *normalise]), False: v2.Compose(normalise)}

    def dataset(self, split: str, epoch: int) -> Dataset:
        which, transform = self.samples(split, epoch), self.transforms[split == "train"]
        return GarmentClassification(self.sources[split], self.size, transform=transform, **which)


class FolderPictures(MapData):
    """A folder with ``train``, ``validation`` and perhaps ``test``, in each a folder for every class; the place
    ``folder``.

    Options: ``size``, ``classes``. Augmentation: that of timm's ``create_transform``.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.folder, self.num_classes = places.need("folder"), recipe.data["classes"]
        self.transforms = {training: picture_transform(recipe, training) for training in (True, False)}
        self.classes = {name: number for number, name in enumerate(self._class_folders("train"))}
        if len(self.classes) != self.num_classes:
            raise RecipeError(
                f"{self.folder / 'train'} holds {len(self.classes)} folders, the recipe has {self.num_classes} classes"
            )

    def dataset(self, split: str, epoch: int) -> Dataset:
        if unknown := sorted(set(self._class_folders(split)) - self.classes.keys()):
            raise RecipeError(f"{self.folder / split} holds folders that train lacks: {', '.join(unknown[:4])}")
        transform = self.transforms[split == "train"]
        return ImageDataset(str(self.folder / split), class_map=self.classes, transform=transform)

    def _class_folders(self, split: str) -> list[str]:
        if not (self.folder / split).is_dir():
            raise RecipeError(f"{self.folder} holds no folder {split!r}")
        return sorted(path.name for path in (self.folder / split).iterdir() if path.is_dir())


class ShardPictures:
    """WebDataset shards ``train-*.tar`` and ``validation-*.tar`` of pictures (``jpg``, ``jpeg``, ``png``, ``webp``) and
    class numbers (``cls``); the place ``shards``, a folder.

    Every process and worker reads its own shards, so there are at least as many. A run that goes on skips what it has
    read already. Options: ``size``, ``classes``, ``train_samples`` (all shards together).
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.folder, self.num_classes = places.need("shards"), recipe.data["classes"]
        self.samples = recipe.data["train_samples"]
        self.transforms = {training: picture_transform(recipe, training) for training in (True, False)}

    def steps_per_epoch(self, share: Share) -> int:
        return steps_per_epoch(self.samples, share)

    def training_batches(self, epoch: int, first_step: int, share: Share, workers: int, seed: int) -> Iterator[Any]:
        shards = self._shards("train", share, workers)
        pictures = (
            self._read(shards)
            .compose(wds.detshuffle(SHUFFLE_BUFFER, seed=seed, epoch=epoch - 1))
            .compose(lambda samples: self._decoded(samples, True, (seed, epoch, share.rank)))
        )
        loader = DataLoader(pictures.repeat(), batch_size=share.samples, num_workers=workers)
        yield from islice(loader, first_step * share.passes, None)

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        pictures = self._read(self._shards(split, share, workers))
        pictures = pictures.compose(lambda samples: self._decoded(samples, False, (share.rank,)))
        yield from DataLoader(pictures, batch_size=share.samples, num_workers=workers)

    @staticmethod
    def _read(shards: list[str]) -> wds.WebDataset:
        """Raw samples in order; the shards are this process's own, so WebDataset divides them among workers alone."""
        return wds.WebDataset(shards, shardshuffle=False, nodesplitter=None, empty_check=False)

    def _shards(self, split: str, share: Share, workers: int) -> list[str]:
        shards = sorted(map(str, self.folder.glob(f"{split}-*.tar")))[share.rank :: share.world]
        if len(shards) < max(workers, 1):
            raise RecipeError(
                f"{self.folder} has too few {split}-*.tar for {share.world} processes with {workers} workers each: "
                "every worker reads at least one shard"
            )
        return shards

    def _decoded(self, samples: Iterator[dict[str, Any]], training: bool, key: tuple[int, ...]) -> Iterator[Any]:
        """Pictures and classes alone: WebDataset's own decoders would also unpickle what a shard holds."""
        for sample in samples:
            picture = next((sample[kind] for kind in ("jpg", "jpeg", "png", "webp") if kind in sample), None)
            if picture is None or "cls" not in sample:
                raise RecipeError(f"sample {sample['__key__']} of {sample['__url__']} has no picture or no class")
            image = Image.open(io.BytesIO(picture)).convert("RGB")
            seed_everything("sample", *key, sample["__key__"])
            yield self.transforms[training](image), int(sample["cls"])


def picture_transform(recipe: Recipe, training: bool) -> Any:
    """timm's transform of one picture.

    Raises:
        RecipeError: an option that it does not have.
    """
    augmentation = {k: v for k, v in recipe.augmentation.items() if training and k not in BATCH_OPTIONS}
    try:
        return create_transform(recipe.data["size"], is_training=training, interpolation="bicubic", **augmentation)
    except TypeError as error:
        raise RecipeError(f"the augmentation is not one of timm's create_transform: {error}") from error
