from __future__ import annotations

import numpy as np

from stvit.predict.regions import CLEAR, DROPPED
from stvit.video.regions import StableRegions


def blocks(side: int, numbers: np.ndarray) -> np.ndarray:
    """A grid of square regions with the given numbers."""
    return np.kron(numbers, np.ones((side, side), np.int64)).astype(np.int64)


def test_regions_keep_their_identity_whatever_their_numbers_are() -> None:
    generator, stable = np.random.default_rng(0), StableRegions()
    start = np.arange(16).reshape(4, 4)
    first = stable.follow(blocks(3, start), 16)
    np.testing.assert_array_equal(first, blocks(3, start))
    for _ in range(5):
        shuffled = generator.permutation(16)[start]
        np.testing.assert_array_equal(stable.follow(blocks(3, shuffled), 16), first)


def test_a_region_that_moves_by_a_cell_keeps_its_identity() -> None:
    stable, grid = StableRegions(), blocks(4, np.arange(9).reshape(3, 3))
    before = stable.follow(grid, 9)
    after = stable.follow(np.roll(8 - grid, 1, axis=1), 9)
    assert (np.roll(before, 1, axis=1) == after).all()


def test_identities_are_one_to_one_and_tokens_without_a_region_do_not_matter() -> None:
    generator, stable = np.random.default_rng(1), StableRegions()
    for _ in range(10):
        assignment = generator.integers(0, 36, (14, 14))
        followed = stable.follow(assignment, 36)
        pairs = set(zip(assignment.ravel().tolist(), followed.ravel().tolist(), strict=True))
        assert len(pairs) == len({number for number, _ in pairs}) == len({identity for _, identity in pairs})


def test_dropped_and_single_tokens_stay_what_they_are() -> None:
    stable = StableRegions()
    first = np.array([[0, 0, CLEAR], [1, 1, DROPPED]])
    stable.follow(first, 4)
    np.testing.assert_array_equal(
        stable.follow(np.array([[3, 3, DROPPED], [2, 2, CLEAR]]), 4), [[0, 0, DROPPED], [1, 1, CLEAR]]
    )


def test_a_grid_of_another_shape_begins_anew() -> None:
    stable = StableRegions()
    stable.follow(np.arange(4).reshape(2, 2), 4)
    grid = np.arange(6)[::-1].reshape(2, 3).copy()
    np.testing.assert_array_equal(stable.follow(grid, 6), grid)
