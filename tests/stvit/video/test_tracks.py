from __future__ import annotations

import numpy as np
import pytest
import torch

from stvit.detection import Detections
from stvit.video.tracks import ObjectTracker


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
