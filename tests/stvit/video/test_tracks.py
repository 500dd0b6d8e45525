from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stvit.detection import Detections
from stvit.draw.regions import region_colours
from stvit.predict.regions import CLEAR, DROPPED, TokenRegions
from stvit.video.tracks import ObjectTracker, RegionTracker


def found(boxes: list[list[float]], labels: list[int], scores: list[float] | None = None) -> Detections:
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        scores=torch.tensor(scores or [0.9] * len(boxes)),
        labels=torch.tensor(labels, dtype=torch.int64),
        mask_probabilities=torch.ones(len(boxes), 28, 28),
        image_hw=(200, 400),
    )


def crossing(step: int) -> list[list[float]]:
    """Two boxes that pass each other on lanes that overlap a little."""
    return [[10 + 12 * step, 20, 60 + 12 * step, 70], [340 - 12 * step, 64, 390 - 12 * step, 114]]


def test_objects_keep_their_numbers_whatever_order_they_come_in() -> None:
    tracker, generator, seen = ObjectTracker(30.0), np.random.default_rng(0), []
    for step in range(25):
        order = generator.permutation(2)
        numbers = tracker.follow(found([crossing(step)[index] for index in order], [0, 0]))
        seen.append([int(numbers[list(order).index(index)]) for index in (0, 1)])
    assert seen[0] == [0, 0] and sorted(seen[1]) == [1, 2] and all(pair == seen[1] for pair in seen[1:])


def test_an_object_that_is_hidden_for_a_moment_comes_back_as_the_same() -> None:
    tracker = ObjectTracker(30.0)
    numbers = [
        tracker.follow(found([[50, 50, 90, 90]] if step not in (5, 6, 7) else [], [0] * (step not in (5, 6, 7))))
        for step in range(12)
    ]
    assert {int(number[0]) for number in numbers[1:] if len(number)} == {1}


def test_an_object_that_is_gone_for_long_comes_back_as_another() -> None:
    tracker = ObjectTracker(10.0)
    for step in range(40):
        numbers = tracker.follow(found([[50, 50, 90, 90]] if not 5 <= step < 30 else [], [0] * (not 5 <= step < 30)))
    assert numbers.tolist() == [2]


def test_an_object_of_another_class_in_the_same_place_is_another() -> None:
    tracker = ObjectTracker(30.0)
    for label in (3, 3, 3, 7, 7):
        numbers = tracker.follow(found([[50, 50, 90, 90]], [label]))
    assert numbers.tolist() == [2]


def test_a_clips_numbers_start_from_one_whatever_ran_before() -> None:
    for _ in range(2):
        tracker = ObjectTracker(30.0)
        for step in range(3):
            numbers = tracker.follow(found(crossing(step), [0, 0]))
        assert sorted(numbers.tolist()) == [1, 2]


@pytest.mark.parametrize("frames", [1, 3])
def test_nothing_found_is_nothing_followed(frames: int) -> None:
    tracker = ObjectTracker(30.0)
    for _ in range(frames):
        assert tracker.follow(found([], [])).tolist() == []


def blocks(side: int, numbers: np.ndarray) -> np.ndarray:
    """A grid of square regions with the given numbers."""
    return np.kron(numbers, np.ones((side, side), np.int64)).astype(np.int64)


def identities(tracker: RegionTracker, assignment: np.ndarray, num_tokens: int, kind: str = "stgm") -> np.ndarray:
    return tracker.follow(TokenRegions(kind, "STGM 1", assignment.astype(np.int16), num_tokens))[0]


def test_regions_keep_their_identity_whatever_their_numbers_are() -> None:
    generator, stable = np.random.default_rng(0), RegionTracker()
    start = np.arange(16).reshape(4, 4)
    first = identities(stable, blocks(3, start), 16)
    np.testing.assert_array_equal(first, blocks(3, start))
    for _ in range(5):
        shuffled = generator.permutation(16)[start]
        np.testing.assert_array_equal(identities(stable, blocks(3, shuffled), 16), first)


def test_a_region_that_moves_by_a_cell_keeps_its_identity() -> None:
    stable, grid = RegionTracker(), blocks(4, np.arange(9).reshape(3, 3))
    before = identities(stable, grid, 9)
    after = identities(stable, np.roll(8 - grid, 1, axis=1), 9)
    assert (np.roll(before, 1, axis=1) == after).all()


def test_identities_are_one_to_one_and_tokens_without_a_region_do_not_matter() -> None:
    generator, stable = np.random.default_rng(1), RegionTracker()
    for _ in range(10):
        assignment = generator.integers(0, 36, (14, 14))
        followed = identities(stable, assignment, 36)
        pairs = set(zip(assignment.ravel().tolist(), followed.ravel().tolist(), strict=True))
        assert len(pairs) == len({number for number, _ in pairs}) == len({identity for _, identity in pairs})


def test_dropped_and_single_tokens_stay_what_they_are() -> None:
    stable = RegionTracker()
    first = identities(stable, np.array([[0, 0, 2], [1, 1, DROPPED]]), 4, "merged")
    np.testing.assert_array_equal(first, [[0, 0, CLEAR], [1, 1, DROPPED]])
    second = identities(stable, np.array([[3, 3, DROPPED], [2, 2, 0]]), 4, "merged")
    np.testing.assert_array_equal(second, [[0, 0, DROPPED], [1, 1, CLEAR]])


def test_colours_stay_with_the_identities() -> None:
    stable, grid = RegionTracker(), blocks(4, np.arange(9).reshape(3, 3)).astype(np.int16)
    regions = TokenRegions("stgm", "STGM 1", grid, 9, semantic_grid_hw=(3, 3))
    for own in (regions, replace(regions, assignment=8 - grid)):
        numbers, colours = stable.follow(own)
        np.testing.assert_array_equal(colours[numbers], region_colours(regions)[grid])


def test_a_grid_of_another_shape_starts_again() -> None:
    stable = RegionTracker()
    identities(stable, np.arange(4).reshape(2, 2), 4)
    grid = np.arange(6)[::-1].reshape(2, 3).copy()
    np.testing.assert_array_equal(identities(stable, grid, 6), grid)
