"""Pictures with a class each: a folder for each class, or WebDataset shards."""

from __future__ import annotations

import io
import os
import tarfile
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import webdataset as wds
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from timm.data.constants import DEFAULT_CROP_PCT
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets.folder import find_classes, make_dataset
from tqdm import tqdm

from stvit.predict.media import picture_suffixes
from stvit.training.batches import Share, joined, seed_everything, steps_per_epoch
from stvit.training.recipe import AnyTuple, DataPaths, Recipe, RecipeError, Table, read_table

from .data import READ_ON, Data, MapData, SampleError, open_picture, refuse

#: options of the augmentation that work on batches, not on pictures
BATCH_OPTIONS = ("mixup_alpha", "cutmix_alpha", "prob", "switch_prob", "label_smoothing")
SHUFFLE_BUFFER = 2000


Channels = Annotated[tuple[float, float, float], AnyTuple]


class PictureOptions(Table):
    """Attributes:
    size: side of the square input, pixels.
    mean, std: of the input's channels, for values in [0, 1].
    """

    kind: str
    size: int
    mean: Channels = IMAGENET_DEFAULT_MEAN
    std: Channels = IMAGENET_DEFAULT_STD


class FolderOptions(PictureOptions):
    classes: int


class ShardOptions(FolderOptions):
    train_samples: int


class FolderPictures(MapData):
    """A folder with ``train``, ``validation`` and perhaps ``test``, in each a folder for every class; the data path
    ``folder``. Classes, their numbers and their pictures are those of torchvision's ``ImageFolder``, in every format
    that Pillow decodes.

    Options: ``size``, ``classes``. Augmentation: that of timm's ``create_transform``.
    """

    crop_pct = DEFAULT_CROP_PCT

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(FolderOptions, recipe.data, "data")
        self.folder, self.num_classes, self.size = paths.need("folder"), options.classes, options.size
        self.transforms = {training: picture_transform(recipe, training) for training in (True, False)}
        self.class_numbers = self._classes("train")
        if len(self.class_numbers) != self.num_classes:
            raise RecipeError(
                f"{self.folder / 'train'} holds {len(self.class_numbers)} folders, the recipe has {self.num_classes} "
                "classes"
            )
        self.class_names = tuple(self.class_numbers)
        self._files: dict[str, list[tuple[str, int]]] = {}

    def dataset(self, split: str, epoch: int) -> Dataset:
        if split not in self._files:
            if unknown := sorted(self._classes(split).keys() - self.class_numbers.keys()):
                raise RecipeError(f"{self.folder / split} holds folders that train lacks: {', '.join(unknown[:4])}")
            self._files[split] = find_pictures(self.folder / split, self.class_numbers, every_class=split == "train")
        return PictureFiles(self._files[split], self.transforms[split == "train"])

    def _classes(self, split: str) -> dict[str, int]:
        if not (self.folder / split).is_dir():
            raise RecipeError(f"{self.folder} holds no folder {split!r}")
        try:
            return find_classes(self.folder / split)[1]
        except FileNotFoundError as error:
            raise RecipeError(f"{self.folder / split} holds no folders of classes") from error


class UnlabelledPictures(MapData):
    """A folder with ``train`` and ``validation``, and pictures anywhere below them, for tasks that need no labels; the
    data path ``folder``. Options and augmentation as of :class:`FolderPictures`, without ``classes``; labels are 0.
    """

    crop_pct, num_classes = DEFAULT_CROP_PCT, 0

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(PictureOptions, recipe.data, "data")
        self.folder, self.size = paths.need("folder"), options.size
        self.transforms = {training: picture_transform(recipe, training) for training in (True, False)}
        self._files: dict[str, list[tuple[str, int]]] = {}

    def dataset(self, split: str, epoch: int) -> Dataset:
        if split not in self._files:
            suffixes = picture_suffixes()
            found = sorted(path for path in (self.folder / split).rglob("*") if path.suffix.lower() in suffixes)
            if not found:
                raise RecipeError(f"{self.folder / split} holds no pictures")
            self._files[split] = [(str(path), 0) for path in found]
        return PictureFiles(self._files[split], self.transforms[split == "train"])


class PictureFiles(Dataset):
    """Samples (picture, class) of files.

    Args:
        files: paths and class numbers.
        transform: from a PIL picture in RGB to a tensor.
    """

    def __init__(self, files: list[tuple[str, int]], transform: Any) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        path, label = self.files[index]
        return self.transform(open_picture(Path(path), path)), label


def find_pictures(folder: Path, class_numbers: Mapping[str, int], *, every_class: bool) -> list[tuple[str, int]]:
    """The pictures below the class folders and their class numbers, as torchvision's ``ImageFolder`` finds them; other
    files are counted in one warning.

    Args:
        every_class: refuse a class without pictures.

    Raises:
        RecipeError: see above.
    """
    suffixes = picture_suffixes()
    try:
        pictures = make_dataset(
            str(folder),
            dict(class_numbers),
            is_valid_file=lambda path: os.path.splitext(path)[1].lower() in suffixes,
            allow_empty=not every_class,
        )
    except FileNotFoundError as error:
        raise RecipeError(f"{folder}: {error}") from error
    found = Counter(_suffix(name) for _, _, files in os.walk(folder, followlinks=True) for name in files)
    found.subtract(_suffix(path) for path, _ in pictures)
    if others := +found:
        ends = ", ".join(f"{count} {suffix or 'without a suffix'}" for suffix, count in sorted(others.items()))
        warnings.warn(f"{folder}: {others.total()} files are no pictures in a class folder ({ends}).", stacklevel=2)
    return pictures


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


class ShardPictures(Data):
    """WebDataset shards ``train-*.tar`` and ``validation-*.tar`` of pictures (in any format that Pillow decodes) and
    class numbers (``cls``); the data path ``shards``, a folder.

    Every process and worker reads its own shards, so there are at least as many. A run that goes on skips what it has
    read already. Options: ``size``, ``classes``, ``train_samples`` (all shards together).
    """

    crop_pct = DEFAULT_CROP_PCT

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        options = read_table(ShardOptions, recipe.data, "data")
        self.folder, self.num_classes, self.size = paths.need("shards"), options.classes, options.size
        self.samples = options.train_samples
        self.transforms = {training: picture_transform(recipe, training) for training in (True, False)}
        others = sorted(suffix.removeprefix(".") for suffix in picture_suffixes())
        # of several pictures in a sample, the first kind counts
        self.picture_kinds = ("jpg", "jpeg", "png", "webp", *others)

    def check(self, share: Share, workers: int) -> None:
        """Look at every class number, and decode the pictures to evaluate on.

        Raises:
            RecipeError: there are none, or samples or whole shards cannot be used.
        """
        for split in ("train", "validation"):
            shards = tqdm(self._shards(split, share, workers), f"checking {split}", leave=False, disable=share.rank > 0)
            refuse(split, [problem for shard in shards for problem in self._wrong_classes(shard)])
        samples = self._read(self._shards("validation", share, workers)).compose(self._problems)
        batches = DataLoader(samples, batch_size=share.samples, num_workers=workers, collate_fn=list)
        progress = tqdm(batches, "checking validation", leave=False, disable=share.rank > 0)
        problems = [problem for batch in progress for problem in batch]
        if not problems:
            raise RecipeError(f"the validation shards in {self.folder} hold no samples")
        refuse("validation", list(filter(None, problems)))

    def steps_per_epoch(self, share: Share) -> int:
        return steps_per_epoch(self.samples, share)

    def training_batches(self, epoch: int, first_step: int, share: Share, workers: int, seed: int) -> Iterator[Any]:
        pictures = (
            self._read(self._shards("train", share, workers))
            .compose(wds.detshuffle(SHUFFLE_BUFFER, seed=seed, epoch=epoch - 1))
            .compose(partial(self._to_train_on, key=(seed, epoch, share.rank)))
        )
        batches = joined(pictures.repeat(), batch_size=share.samples, num_workers=workers)
        yield from islice(batches, first_step * share.passes, None)

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        pictures = self._read(self._shards(split, share, workers)).compose(self._to_evaluate_on)
        yield from joined(pictures, batch_size=share.samples, num_workers=workers)

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

    def _to_evaluate_on(self, samples: Iterator[dict[str, Any]]) -> Iterator[tuple[Tensor, int] | SampleError]:
        for sample in samples:
            try:
                yield self._decode(sample)
            except SampleError as error:
                yield error

    def _to_train_on(
        self, samples: Iterator[dict[str, Any]], key: tuple[int, ...]
    ) -> Iterator[tuple[Tensor, int] | RecipeError]:
        in_a_row = 0
        for sample in samples:
            seed_everything("sample", *key, sample["__key__"])
            try:
                decoded = self._decode(sample, training=True)
            except SampleError as error:
                self.skip(error)
                if (in_a_row := in_a_row + 1) == READ_ON:
                    yield RecipeError(f"{in_a_row} samples in a row cannot be used, the last of them: {error}")
                continue
            in_a_row = 0
            yield decoded

    def _problems(self, samples: Iterator[dict[str, Any]]) -> Iterator[str]:
        for sample in self._to_evaluate_on(samples):
            yield str(sample) if isinstance(sample, SampleError) else ""

    def _decode(self, sample: dict[str, Any], training: bool = False) -> tuple[Tensor, int]:
        """Picture and class alone: WebDataset's own decoders would also unpickle what a shard holds."""
        name = f"sample {sample['__key__']} of {sample['__url__']}"
        picture = next((sample[kind] for kind in self.picture_kinds if kind in sample), None)
        if picture is None or "cls" not in sample:
            raise SampleError(f"{name} has no picture or no class.")
        label = self._class_number(sample["cls"], name)
        return self.transforms[training](open_picture(io.BytesIO(picture), name)), label

    def _wrong_classes(self, shard: str) -> Iterator[str]:
        """Find class numbers of a shard that are none.

        Raises:
            RecipeError: it is no tar file, or is cut off.
        """
        try:
            with tarfile.open(shard) as members:
                for member in members:
                    if member.isfile() and os.path.basename(member.name).partition(".")[2].lower() == "cls":
                        try:
                            self._class_number(members.extractfile(member).read(), f"{member.name} of {shard}")
                        except SampleError as error:
                            yield str(error)
                members.fileobj.seek(members.offset)
                if members.fileobj.read(tarfile.BLOCKSIZE).strip(b"\0"):  # tarfile takes a damaged header for the end
                    raise tarfile.ReadError("it is damaged or cut off")
        except (tarfile.TarError, OSError) as error:
            raise RecipeError(f"{shard} cannot be read ({error}). Copy or download it again.") from error

    def _class_number(self, text: bytes, name: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = -1
        if not 0 <= number < self.num_classes:
            shown = text[:20].decode(errors="replace").strip()
            raise SampleError(f"{name} is of class {shown!r}, not a number from 0 to {self.num_classes - 1}.")
        return number


def picture_transform(recipe: Recipe, training: bool) -> Any:
    """timm's transform of one picture.

    Raises:
        RecipeError: an option that it does not have.
    """
    augmentation = {k: v for k, v in recipe.augmentation.items() if training and k not in BATCH_OPTIONS}
    try:
        seen = {name: tuple(recipe.data[name]) for name in ("mean", "std") if name in recipe.data}
        how = {"is_training": training, "interpolation": "bicubic", **seen}
        return create_transform(recipe.data["size"], **how, **augmentation)
    except TypeError as error:
        raise RecipeError(f"the augmentation is not one of timm's create_transform: {error}") from error
