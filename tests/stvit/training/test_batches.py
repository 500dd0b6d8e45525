"""The order of training: each sample once, the same for any number of processes, and from any step on."""

import functools
import operator
import random
from collections import Counter

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from stvit.training.batches import Order, Seeded, Share, evaluation_batches, steps_per_epoch, training_batches
from stvit.training.recipe import RecipeError


class Noise(Dataset):
    """Samples that use every generator there is."""

    def __len__(self) -> int:
        return 23

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([index, random.random(), np.random.rand(), torch.rand(()).item()], dtype=torch.float64)


def indices(share: Share, **where) -> list[list[int]]:
    return list(Order(23, share, seed=1, **{"epoch": 0, **where}))


def test_every_sample_comes_at_most_once_and_an_incomplete_step_is_left_out():
    seen = functools.reduce(operator.iadd, indices(Share(0, 1, 5, 1)), [])
    assert len(seen) == len(set(seen)) == 20


@pytest.mark.parametrize("repeats", [1, 3])
@pytest.mark.parametrize(("world", "passes"), [(2, 1), (1, 2), (2, 2), (4, 1)])
def test_steps_hold_the_same_samples_however_they_are_shared(world, passes, repeats):
    whole = [set(chunk) for chunk in indices(Share(0, 1, 8, 1, repeats))]
    parts = [indices(Share(rank, world, 8 // world // passes, passes, repeats)) for rank in range(world)]
    for step, expected in enumerate(whole):
        of_step = [chunk for part in parts for chunk in part[step * passes : (step + 1) * passes]]
        assert set(functools.reduce(operator.iadd, of_step, [])) == expected and sum(map(len, of_step)) == 8


def test_repeats_bring_every_sample_so_often_in_one_step_and_no_copy_twice():
    steps = indices(Share(0, 1, 6, 1, repeats=3))
    assert len(steps) == len(indices(Share(0, 1, 6, 1)))  # an epoch is as long as without
    numbers = functools.reduce(operator.iadd, steps, [])
    assert len(set(numbers)) == len(numbers) == 18
    for step in steps:
        counts = Counter(number % 23 for number in step)
        assert list(counts.values()) == [3, 3]
        assert all({i, i + 23, i + 46} <= set(step) for i in counts)


def test_copies_of_a_sample_go_to_different_processes():
    parts = [indices(Share(rank, 3, 2, 1, repeats=3)) for rank in range(3)]
    for chunks in zip(*parts, strict=True):
        samples = [{number % 23 for number in chunk} for chunk in chunks]
        assert samples[0] == samples[1] == samples[2] and len(samples[0]) == 2


def test_copies_of_a_sample_are_the_same_picture_drawn_anew():
    samples = Seeded(Noise(), seed=3, epoch=2)
    first, copy = samples[7], samples[7 + 2 * 23]
    assert first[0] == copy[0] == 7
    assert not (first[1:] == copy[1:]).any()


@pytest.mark.parametrize("repeats", [1, 3])
def test_going_on_continues_the_order(repeats):
    share = Share(1, 2, 2, 2, repeats)
    assert indices(share, first_step=1) == indices(share)[2:]


def test_epochs_and_seeds_differ():
    share = Share(0, 1, 5, 1)
    assert indices(share) != indices(share, epoch=1)
    assert indices(share) != list(Order(23, share, seed=2, epoch=0))


def test_too_little_data_is_named():
    with pytest.raises(ValueError, match="training set of 23 samples is smaller than one batch of 24"):
        steps_per_epoch(23, Share(0, 2, 6, 2))


def test_a_sample_does_not_depend_on_what_was_drawn_before_it():
    samples = Seeded(Noise(), seed=3, epoch=2)
    first = samples[7]
    samples[8]
    torch.rand(5)
    assert torch.equal(samples[7], first)
    assert not torch.equal(Seeded(Noise(), seed=3, epoch=3)[7], first)


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_the_same_with_and_without_workers(workers):
    share = Share(0, 1, 4, 1)
    batches = list(training_batches(Noise(), share, seed=0, epoch=1, first_step=2, workers=workers))
    alone = list(training_batches(Noise(), share, seed=0, epoch=1))
    assert len(batches) == 3 and all(torch.equal(a, b) for a, b in zip(batches, alone[2:], strict=True))


@pytest.mark.parametrize("world", [1, 2, 3])
def test_evaluation_sees_every_sample_once(world):
    parts = [evaluation_batches(Noise(), Share(rank, world, 4, 1)) for rank in range(world)]
    seen = sorted(int(row[0]) for part in parts for batch in part for row in batch)
    assert seen == list(range(23))


class Unusable(Noise):
    def __getitem__(self, index: int) -> torch.Tensor:
        raise RecipeError(f"sample {index} is broken.", "Mend it.")


@pytest.mark.parametrize("workers", [0, 1])
def test_what_workers_cannot_use_is_one_message_without_their_traceback(workers):
    for batches in (
        training_batches(Unusable(), Share(0, 1, 4, 1), seed=0, epoch=0, workers=workers),
        evaluation_batches(Unusable(), Share(0, 1, 4, 1), workers=workers),
    ):
        with pytest.raises(RecipeError, match=r"\Asample \d+ is broken. Mend it.\Z"):
            next(batches)
