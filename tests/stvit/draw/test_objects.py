from __future__ import annotations

import numpy as np
import pytest
import torch

from stvit.detection import Detections
from stvit.draw.objects import PALETTE, draw_objects, label_map, object_colours
from tests.cpu_time import cpu_seconds
from tests.demo.detections import made_up


def squares(*boxes: tuple[float, float, float, float], image_hw: tuple[int, int] = (40, 60)) -> Detections:
    """Objects that fill their boxes, each of a class of its own."""
    number = len(boxes)
    return Detections(
        torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        torch.linspace(0.9, 0.5, number),
        torch.arange(number),
        torch.ones(number, 28, 28),
        image_hw,
    )


def test_no_objects_leave_the_picture_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(draw_objects(pixels, squares()), pixels)


def test_of_overlapping_objects_the_smaller_one_is_seen_whatever_its_score() -> None:
    labels = label_map(squares((0, 0, 40, 40), (10, 10, 20, 20)))
    assert labels[15, 15] == 2 and labels[5, 5] == 1 and labels[5, 50] == 0
    assert label_map(squares((10, 10, 20, 20), (0, 0, 40, 40)))[15, 15] == 1


def test_the_map_shows_the_masks_that_the_detector_pastes() -> None:
    found = made_up(12, (90, 130))
    labels, masks = label_map(found), found.masks().numpy()
    assert ((labels > 0) == masks.any(axis=0)).all()
    for number, mask in enumerate(masks):
        assert mask[labels == number + 1].all()


def test_masks_tint_their_pixels_and_leave_all_others_alone() -> None:
    pixels = np.full((400, 600, 3), 100, np.uint8)
    drawn = draw_objects(pixels, squares((100, 200, 300, 350), image_hw=(400, 600)), opacity=0.5)
    np.testing.assert_array_equal(drawn[270, 200], np.rint((100.0 + PALETTE[0]) / 2).astype(np.uint8))
    np.testing.assert_array_equal(drawn[380, 500], pixels[380, 500])
    np.testing.assert_array_equal(drawn[200, 250], PALETTE[0])


def test_objects_of_one_class_share_a_colour_and_classes_of_one_picture_differ() -> None:
    colours = object_colours(np.array([7, 0, 7, 33, 0]))
    assert (colours[0] == colours[2]).all() and (colours[1] == colours[4]).all()
    assert len(np.unique(object_colours(np.arange(16)), axis=0)) == 16
    assert object_colours(np.array([], np.int64)).shape == (0, 3)


@pytest.mark.parametrize("box", [(-50, -20, 20, 20), (-10, -10, -5, -5), (30, 20, 30, 20), (0, 0, 60, 40)])
def test_boxes_that_leave_the_picture_or_have_no_extent_are_drawn_without_an_error(box: tuple) -> None:
    assert draw_objects(np.zeros((40, 60, 3), np.uint8), squares(box)).shape == (40, 60, 3)


def test_a_hundred_objects_with_masks_cost_far_less_than_a_hundred_times_one() -> None:
    one, hundred = made_up(1, (800, 1333)), made_up(100, (800, 1333))
    pixels = np.zeros((800, 1333, 3), np.uint8)
    of_one, of_hundred = cpu_seconds(lambda: draw_objects(pixels, one), lambda: draw_objects(pixels, hundred))
    assert of_hundred < 20 * of_one  # 4 times on a quiet machine


def test_objects_of_another_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="belong to"):
        draw_objects(np.zeros((41, 60, 3), np.uint8), squares())
