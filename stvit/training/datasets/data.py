"""Sources of batches, as the loop calls them, and checks and skipping of their samples.

The data of a recipe are of a kind: one that the task brings (``folder``, ``shards``, ``coco``, ``ade20k``,
``kinetics``), or a class of one's own, written ``module:Class``, which is called with the recipe and the
:class:`~stvit.training.recipe.DataPaths` and is a :class:`Data` or a :class:`MapData`. The data of a classifier have
the attribute ``num_classes``; what else a task asks for is said by its module under :mod:`stvit.training.tasks`.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import IO, Any

import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor
from torch.utils.data import Dataset
from tqdm import tqdm

from stvit.predict.media import DECODE_ERRORS, upright
from stvit.training.batches import Share, evaluation_batches, steps_per_epoch, training_batches
from stvit.training.recipe import DataPaths, Recipe, RecipeError

READ_ON = 10  # unreadable training samples in a row that stop a run
NAMED = 3  # problems that one message names


class SampleError(RecipeError):
    """One sample cannot be used; the message names its file."""


class Data(ABC):
    """A source of batches; every process takes its own share.

    Attributes:
        class_names: in the order of the model's outputs; empty where the data do not tell them.
        size: side of the square input, pixels; by default the model's own.
        crop_pct: share of a picture's shorter side that is seen in evaluation.
        frames, stride: of clips, frames of one and frames of the video from one to the next.
    """

    class_names: tuple[str, ...] = ()
    size: int | None = None
    crop_pct: float = 1.0
    frames: int | None = None
    stride: int = 1
    _skipped: Tensor

    def __new__(cls, *arguments: Any, **options: Any) -> Data:
        data = super().__new__(cls)  # data of one's own need not call __init__ here
        data._skipped = torch.zeros((), dtype=torch.int64).share_memory_()  # counted in the processes that read
        return data

    def check(self, share: Share, workers: int) -> None:  # noqa: B027 - data of one's own may have nothing to check
        """Look for what would stop the run later; called before the first step.

        Raises:
            RecipeError: see above.
        """

    @abstractmethod
    def steps_per_epoch(self, share: Share) -> int: ...

    @abstractmethod
    def training_batches(self, epoch: int, first_step: int, share: Share, workers: int, seed: int) -> Iterator[Any]: ...

    @abstractmethod
    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]: ...

    @property
    def skipped(self) -> int:
        """Training samples of this process that could not be used so far."""
        return int(self._skipped)

    def skip(self, problem: SampleError) -> None:
        """Name and count a training sample that cannot be used."""
        self._skipped += 1
        warnings.warn(f"{problem} Another sample takes its place in training.", stacklevel=2)


class MapData(Data):
    """Data whose samples have numbers."""

    collate: Callable[[list[Any]], Any] | None = None

    @abstractmethod
    def dataset(self, split: str, epoch: int) -> Dataset:
        """The ``train`` samples of an epoch, or those of ``validation`` or ``test``; reading one that cannot be used
        raises :class:`SampleError`."""

    def check(self, share: Share, workers: int) -> None:
        """Read all samples to evaluate on once.

        Raises:
            RecipeError: there are none, or some cannot be read.
        """
        self.check_not_empty()
        check_samples(self.dataset("validation", 0), "validation", share, workers)

    def check_not_empty(self) -> None:
        """Raises RecipeError where there are no samples to evaluate on."""
        if not len(self.dataset("validation", 0)):
            raise RecipeError("the validation set is empty")

    def steps_per_epoch(self, share: Share) -> int:
        return steps_per_epoch(len(self.dataset("train", 0)), share)

    def training_batches(self, epoch: int, first_step: int, share: Share, workers: int, seed: int) -> Iterator[Any]:
        samples = SkipUnreadable(self.dataset("train", epoch), self.skip)
        where = {"epoch": epoch, "first_step": first_step}
        return training_batches(samples, share, seed=seed, **where, workers=workers, collate=self.collate)

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        return evaluation_batches(self.dataset(split, 0), share, workers=workers, collate=self.collate)


class DenseData(MapData):
    """Data whose samples to evaluate on differ in size; batches of them are lists.

    Attributes:
        scale: bounds of the long and the short side of the network's input in evaluation.
    """

    scale: tuple[int, int]

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        return evaluation_batches(self.dataset(split, 0), share, workers=workers, collate=list)


class MappedDataset(Dataset):
    """The samples of a data set, each changed by a function as it is read."""

    def __init__(self, samples: Dataset, change: Callable[[Any], Any]) -> None:
        self.samples, self.change = samples, change

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        return self.change(self.samples[index])


class SkipUnreadable(Dataset):
    """A training set where the next sample takes the place of one that cannot be used.

    Args:
        samples: the training set.
        skip: called with every problem.
    """

    def __init__(self, samples: Dataset, skip: Callable[[SampleError], None]) -> None:
        self.samples, self.skip = samples, skip

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> Any:
        """Raises RecipeError where sample after sample cannot be used."""
        for offset in range(min(READ_ON, len(self))):
            try:
                return self.samples[(index + offset) % len(self)]
            except SampleError as error:
                self.skip(problem := error)
        raise RecipeError(f"{offset + 1} samples in a row cannot be used, the last of them: {problem}")


class Problems(Dataset):
    """For every sample, why it cannot be used; empty if it can."""

    def __init__(self, samples: Dataset) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> str:
        try:
            self.samples[index]
        except SampleError as error:
            return str(error)
        return ""


def check_samples(samples: Dataset, what: str, share: Share, workers: int) -> None:
    """Read this process's share of a data set.

    Raises:
        RecipeError: samples cannot be used; the message counts them and names the first.
    """
    batches = evaluation_batches(Problems(samples), share, workers=workers, collate=list)
    progress = tqdm(batches, f"checking {what}", -(-len(samples) // (share.samples * share.world)), leave=False,
                    disable=share.rank > 0)  # fmt: skip
    refuse(what, [problem for batch in progress for problem in batch if problem])


def refuse(what: str, problems: list[str]) -> None:
    """Raises RecipeError if there are problems."""
    if problems:
        more = f" (and {len(problems) - NAMED} more)" if len(problems) > NAMED else ""
        raise RecipeError(
            f"{len(problems)} samples of {what} cannot be used: {' '.join(problems[:NAMED])}{more} Mend or remove them."
        )


def open_picture(source: Path | IO[bytes], name: str) -> Image.Image:
    """Decode a picture to RGB, upright and on a white ground, as :func:`stvit.predict.media.read_image` does, but of
    any format and size, and without colour profiles, as published accuracies were measured.

    Args:
        name: of it, for the message.

    Raises:
        SampleError: it cannot be decoded.
    """
    try:
        with Image.open(source) as picture:
            picture.load()
            return upright(picture)[0].convert("RGB")
    except UnidentifiedImageError as error:  # its text is that of the source, which may be bytes in memory
        raise SampleError(f"{name} cannot be read as a picture (it is of no known format).") from error
    except DECODE_ERRORS as error:
        raise SampleError(f"{name} cannot be read as a picture ({error}).") from error


def make_data(kinds: Mapping[str, Callable[[Recipe, DataPaths], Data]], recipe: Recipe, paths: DataPaths) -> Data:
    """The data that a recipe names.

    Args:
        kinds: those of the recipe's task, by name.

    Raises:
        RecipeError: there is no such kind, or its options or paths are wrong.
    """
    kind = recipe.data["kind"]
    return (kinds[kind] if kind in kinds else _own_kind(kind, recipe, kinds))(recipe, paths)


def _own_kind(kind: str, recipe: Recipe, kinds: Mapping[str, Any]) -> Callable[[Recipe, DataPaths], Data]:
    module, found, name = kind.partition(":")
    if not found:
        raise RecipeError(
            f"there is no data of kind {kind!r} to {recipe.task}; choose one of {', '.join(kinds)}, or name a class as "
            "module:Class"
        )
    try:
        return getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"data of kind {kind!r} cannot be found: {error}") from error
