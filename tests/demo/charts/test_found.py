"""What is said of objects and classes that were found, and of examples, how much of what they show."""

from __future__ import annotations

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from demo.charts.found import found_classes, found_objects
from demo.page.examples import Known
from stvit.detection import Detections
from stvit.predict.results import ClassArea, SegmentationResult

CLASSES = ("dress", "bag", "boot")
MODELS = [SimpleNamespace(label=label, about="tokens; knows <three>") for label in ("Ours", "Full")]
TRUTH = (Known("dress", (0, 0, 40, 40)), Known("dress", (50, 0, 90, 40)), Known("bag", (0, 50, 40, 90)))


def objects(*entries: tuple[int, float, tuple[int, ...]]) -> SimpleNamespace:
    labels, scores, boxes = zip(*entries, strict=True) if entries else ((), (), ())
    found = Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores),
        labels=torch.tensor(labels, dtype=torch.int64),
        mask_probabilities=torch.zeros(len(entries), 28, 28),
        image_hw=(100, 100),
    )
    return SimpleNamespace(found=found, classes=CLASSES)


def words(shown: str) -> list[list[str]]:
    """What each card says, part by part, with whether it is marked right or wrong."""
    cards = re.findall(r"</header>(.*?)</section>", shown)
    return [re.findall(r'<(?:p|li) class="(?:mark )?(\w+)">(.*?)</', card) for card in cards]


def test_objects_of_an_example_are_ticked_by_class_and_place_and_what_is_not_there_is_wrong() -> None:
    right = (0, 0.9, (1, 1, 41, 41)), (0, 0.8, (50, 0, 90, 42)), (1, 0.7, (0, 50, 40, 88))
    wrong = (0, 0.9, (0, 0, 40, 40)), (1, 0.9, (60, 60, 90, 90)), (1, 0.4, (0, 50, 40, 90)), (2, 0.6, (50, 0, 90, 40))
    first, second = words(found_objects(MODELS, [objects(*right), objects(*wrong)], TRUTH, "garment"))
    assert first == [("right", "Found 3 of 3"), ("right", "✓ dress"), ("right", "✓ dress"), ("right", "✓ bag")]
    assert second[:4] == [("wrong", "Found 1 of 3"), ("right", "✓ dress"), ("wrong", "✗ dress"), ("wrong", "✗ bag")]
    assert second[4:] == [("wrong", "✗ bag is not there"), ("wrong", "✗ boot is not there")]


def test_of_other_pictures_objects_are_counted_and_nothing_found_is_said() -> None:
    several = objects(*[(label, 0.9, (0, 0, 40, 40)) for label in (0, 0, 2)], (1, 0.2, (0, 0, 40, 40)))
    shown = found_objects(MODELS, [several, objects()], (), "garment")
    assert "<b>2 × dress, boot</b>" in shown and words(shown)[1] == [("none", "No garment found")]
    assert "No object found" in found_objects(MODELS[:1], [objects()], (), "object")
    assert words(found_objects(MODELS, [objects()] * 2, TRUTH, "garment"))[0][0] == ("wrong", "Found 0 of 3")
    assert found_objects(MODELS[:1], [SimpleNamespace(found=None)], TRUTH, "object") == ""  # without weights


@pytest.mark.parametrize(("covered", "mark"), [(20, "right"), (4, "wrong")])
def test_a_class_is_found_where_it_covers_enough_of_its_box_and_seen_where_it_covers_enough_of_the_picture(
    covered: int, mark: str
) -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[:covered, :40], labels[60:62, 60:70], labels[90:, 88:] = 1, 2, 3
    result = SimpleNamespace(labels=labels, classes=("background", *CLASSES))
    result.areas = lambda: SegmentationResult.areas(result)
    assert ClassArea(2, "bag", 20, 0.002) in result.areas()
    (card,) = words(found_classes(MODELS[:1], [result], TRUTH[:1], "garment"))
    assert card[1:] == [(mark, f"{'✓' if mark == 'right' else '✗'} dress"), ("wrong", "✗ boot is not there")]
    assert "<b>dress, boot</b>" in found_classes(MODELS[:1], [result], (), "garment")
    labels[:] = 0
    assert "No garment found" in found_classes(MODELS[:1], [result], (), "garment")
