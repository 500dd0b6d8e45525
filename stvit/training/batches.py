"""Batches in an order that depends on seed, epoch and position alone, so that a run can be resumed anywhere."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate

from .recipe import RecipeError


@dataclass(frozen=True)
class Share:
    """The part of every batch that one process takes.

    Attributes:
        rank, world: number of the process, and of how many.
        samples: per process and pass; the batch of a step is ``samples * world * passes``.
        passes: batches whose gradients are accumulated to one step.
        repeats: how often in a row a sample comes, augmented independently.
    """

    rank: int
    world: int
    samples: int
    passes: int
    repeats: int = 1


def seed_everything(*key: int | str) -> None:
    """Seed Python's, NumPy's and PyTorch's generators from a key; the same key, the same numbers, on every machine."""
    number = zlib.crc32(repr(key).encode())
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


class Seeded(Dataset):
    """Samples of a data set, each drawn with generators seeded by (seed, epoch, number).

    The copies of a sample that :class:`Order` repeats have numbers of their own: the index plus a multiple of the
    data set's length.
    """

    def __init__(self, dataset: Dataset, seed: int, epoch: int) -> None:
        self.dataset, self.seed, self.epoch = dataset, seed, epoch

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, number: int) -> Any:
        seed_everything("sample", self.seed, self.epoch, number)
        return self.dataset[number % len(self.dataset)]


class Order(Sampler[list[int]]):
    """The sample numbers of one process's passes over one epoch, from a given step on; an incomplete last step is
    dropped.

    With repeats (repeated augmentation: Hoffer et al., 2020), the copies of a sample follow each other, so that they
    fall into one step, and go to different processes. As in DeiT, an epoch has as many steps as without them: it sees
    that many times fewer samples.
    """

    def __init__(self, length: int, share: Share, seed: int, epoch: int, first_step: int = 0) -> None:
        self.share, self.first_step = share, first_step
        self.steps = steps_per_epoch(length, share)
        generator = torch.Generator().manual_seed(zlib.crc32(repr(("order", seed, epoch)).encode()))
        permutation, copies = torch.randperm(length, generator=generator), length * torch.arange(share.repeats)
        self.numbers = (permutation[:, None] + copies).flatten()[:length]

    def __len__(self) -> int:
        return (self.steps - self.first_step) * self.share.passes

    def __iter__(self) -> Iterator[list[int]]:
        share = self.share
        of_step = share.samples * share.world * share.passes
        for step in range(self.first_step, self.steps):
            numbers = self.numbers[step * of_step : (step + 1) * of_step]
            for chunk in numbers.view(share.passes, share.samples, share.world)[..., share.rank]:
                yield chunk.tolist()


def steps_per_epoch(length: int, share: Share) -> int:
    """Whole steps in one pass over a data set.

    Raises:
        RecipeError: the data set is smaller than one batch.
    """
    batch = share.samples * share.world * share.passes
    if length < batch:
        raise RecipeError(f"the training set of {length} samples is smaller than one batch of {batch}")
    return length // batch


def training_batches(
    dataset: Dataset,
    share: Share,
    *,
    seed: int,
    epoch: int,
    first_step: int = 0,
    workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Iterator[Any]:
    """One process's batches of one epoch.

    Args:
        dataset: a map-style data set.
        first_step: the first step that is not done yet.
        workers: processes that prepare samples.
        collate: joins samples to a batch; PyTorch's default by default.
    """
    order = Order(len(dataset), share, seed, epoch, first_step)
    yield from _load(Seeded(dataset, seed, epoch), order, workers, collate)


def evaluation_batches(
    dataset: Dataset,
    share: Share,
    *,
    workers: int = 0,
    collate: Callable[[list[Any]], Any] | None = None,
) -> Iterator[Any]:
    """One process's part of a data set, every sample once, in order."""
    own = range(share.rank, len(dataset), share.world)
    chunks = [list(own[i : i + share.samples]) for i in range(0, len(own), share.samples)]
    yield from _load(dataset, chunks, workers, collate)


def _load(
    dataset: Dataset, numbers: Iterable[list[int]], workers: int, collate: Callable[[list[Any]], Any] | None
) -> Iterator[Any]:
    return joined(Told(dataset), collate, batch_sampler=numbers, num_workers=workers, worker_init_fn=_one_thread)


class Told(Dataset):
    """Samples of a data set, or the RecipeError that says why one cannot be used, as a value: PyTorch puts the
    traceback of a worker process into the message of what is raised there."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def __getitem__(self, number: int) -> Any:
        try:
            return self.dataset[number]
        except RecipeError as error:
            return error


def joined(samples: Dataset, collate: Callable[[list[Any]], Any] | None = None, **options: Any) -> Iterator[Any]:
    """Batches of samples, made in worker processes.

    Args:
        samples: of which some may be a RecipeError.
        collate: joins samples to a batch; PyTorch's default by default.
        options: of PyTorch's ``DataLoader``.

    Raises:
        RecipeError: the first one among the samples.
    """
    for batch in DataLoader(samples, collate_fn=partial(_join, collate or default_collate), **options):
        if isinstance(batch, RecipeError):
            raise batch
        yield batch


def _join(collate: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    problem = next((sample for sample in samples if isinstance(sample, RecipeError)), None)
    return collate(samples) if problem is None else problem


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)
