from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from stvit.class_names import COCO_CLASSES
from stvit.detection import Detections
from stvit.draw.canvas import Canvas, rgb_canvas
from stvit.draw.objects import draw_objects, label_map, object_colours, object_names, tint
from stvit.draw.palette import OPACITY, UNKNOWN, class_colours
from stvit.video.picture import Matrix
from tests.cpu_time import cpu_seconds
from tests.detections import made_up
from tests.stvit.draw.painting import GREY, WAYS, drawn, ground, mixed

COLOURS = class_colours(80)


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


def objects_on(pixels: np.ndarray, found: Detections, **options: float) -> np.ndarray:
    own = pixels.copy()
    names = object_names(found, COCO_CLASSES)
    draw_objects(rgb_canvas(own), found, object_colours(found.labels.numpy()), names, **options)
    return own


def test_no_objects_leave_the_picture_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    np.testing.assert_array_equal(objects_on(pixels, squares()), pixels)


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
    drawn = objects_on(pixels, squares((100, 200, 300, 350), image_hw=(400, 600)), opacity=0.5)
    np.testing.assert_array_equal(drawn[270, 200], np.rint((100.0 + COLOURS[0]) / 2).astype(np.uint8))
    np.testing.assert_array_equal(drawn[380, 500], pixels[380, 500])
    np.testing.assert_array_equal(drawn[200, 250], COLOURS[0])


def test_objects_of_one_class_share_a_colour_in_every_picture_and_classes_differ() -> None:
    colours = object_colours(np.array([7, 0, 7, 33, 0]))
    assert (colours[0] == colours[2]).all() and (colours[1] == colours[4]).all()
    assert len(np.unique(object_colours(np.arange(80)), axis=0)) == 80
    np.testing.assert_array_equal(object_colours(np.array([33, 7])), COLOURS[[33, 7]])  # whatever is beside them
    assert object_colours(np.array([], np.int64)).shape == (0, 3)


@pytest.mark.parametrize("box", [(-50, -20, 20, 20), (-10, -10, -5, -5), (30, 20, 30, 20), (0, 0, 60, 40)])
def test_boxes_that_leave_the_picture_or_have_no_extent_are_drawn_without_an_error(box: tuple) -> None:
    assert objects_on(np.zeros((40, 60, 3), np.uint8), squares(box)).shape == (40, 60, 3)


def test_a_hundred_objects_with_masks_cost_far_less_than_a_hundred_times_one() -> None:
    one, hundred = squares((0, 0, 1333, 800), image_hw=(800, 1333)), made_up(100, (800, 1333))
    pixels = np.zeros((800, 1333, 3), np.uint8)
    of_one, of_hundred = cpu_seconds(lambda: objects_on(pixels, one), lambda: objects_on(pixels, hundred))
    assert of_hundred < 20 * of_one  # 4 times on a quiet machine


def test_objects_of_another_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="belong to"):
        objects_on(np.zeros((41, 60, 3), np.uint8), squares())


def found(box: tuple[float, ...], score: float = 0.9, label: int = 7) -> Detections:
    return Detections(
        boxes=torch.tensor([box]),
        scores=torch.tensor([score]),
        labels=torch.tensor([label]),
        mask_probabilities=torch.ones(1, 28, 28),
        image_hw=(96, 160),
    )


def paint_tracks(canvas: Canvas, objects: Detections, *numbers: int) -> None:
    tracks = np.array(numbers)
    colours = object_colours(objects.labels.numpy(), tracks)
    draw_objects(canvas, objects, colours, object_names(objects, COCO_CLASSES, tracks))


@WAYS
@pytest.mark.parametrize("box", [(40.0, 30.0, 120.0, 80.0), (41.0, 31.0, 121.0, 81.0), (-9.0, 40.0, 60.0, 130.0)])
def test_objects_are_tinted_within_their_boxes(matrix: Matrix | None, box: tuple[float, ...]) -> None:
    pixels = drawn(lambda canvas: paint_tracks(canvas, found(box), 1), ground(), matrix)
    tinted = mixed(COLOURS[7].astype(float), OPACITY)
    x0, y0, x1, y1 = (int(min(max(side, 0), limit)) for side, limit in zip(box, (160, 96, 160, 96), strict=True))
    inside = pixels[y0 + 3 : y1 - 3, x0 + 3 : x1 - 3]
    assert np.abs(inside[len(inside) // 2 :] - tinted).max() <= 6
    far = np.ones((96, 160), bool)
    far[max(y0 - 30, 0) : y1 + 3, max(x0 - 3, 0) : x0 + 140] = False
    assert np.abs(pixels[far] - GREY).max() <= 3
    edge = pixels[(y0 + y1) // 2, x1]
    assert np.abs(edge - COLOURS[7]).max() <= (0 if matrix is None else 90)  # colour has half the resolution
    assert np.abs(edge - COLOURS[7]).mean() < np.abs(edge - GREY).mean()


@WAYS
def test_a_mask_of_a_single_column_is_tinted(matrix: Matrix | None) -> None:
    canvas_hw, labels = (96, 160), np.zeros((96, 160), np.uint8)
    labels[31:51, 41] = 1

    def paint(canvas: Canvas) -> None:
        tint(canvas, labels, np.array([[255, 0, 0]]), OPACITY)

    before, after = (drawn(work, ground(canvas_hw), matrix) for work in (lambda canvas: None, paint))
    changed = np.abs(after - before).max(axis=2)
    assert changed[31:51, 41].min() > 30 and changed[:, :36].max() == changed[:, 47:].max() == 0
    assert (after[31:51, 41] @ (1, -1, 0)).min() > 60


@WAYS
def test_names_lie_above_the_masks_of_other_objects(matrix: Matrix | None) -> None:
    sure, other = found((10.0, 10.0, 150.0, 90.0)), found((40.0, 50.0, 100.0, 90.0), 0.7, 11)
    pairs = {name: torch.cat([getattr(own, name) for own in (sure, other)]) for name in ("boxes", "scores", "labels")}
    both = replace(sure, mask_probabilities=torch.ones(2, 28, 28), **pairs)
    pixels = drawn(lambda canvas: paint_tracks(canvas, both, 1, 2), ground(), matrix)
    margin = pixels[40:47, 40]  # left of the letters
    assert np.abs(margin - COLOURS[11]).max() <= 4


def test_tracks_are_numbered_and_what_is_not_followed_is_grey() -> None:
    objects = squares((0, 0, 9, 9), (9, 9, 20, 20))
    assert object_names(objects, COCO_CLASSES, np.array([3, 0])) == ["#3 person 90 %", "bicycle 50 %"]
    colours = object_colours(np.array([3, 4, 19]), np.array([1, 0, 2]))
    np.testing.assert_array_equal(colours, [COLOURS[3], UNKNOWN, COLOURS[19]])
