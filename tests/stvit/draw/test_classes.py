"""Classes of pixels as they are drawn and written to files."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from demo.export import indexed_png
from stvit.draw.canvas import rgb_canvas
from stvit.draw.classes import TAGGED, draw_classes, label_colours, name_tags
from stvit.draw.objects import object_colours
from stvit.draw.palette import OPACITY
from weights import BUNDLED_MODELS

CLASSES = ("background", "shirt", "bag")


def classes_on(pixels: np.ndarray, labels: np.ndarray) -> np.ndarray:
    own = pixels.copy()
    draw_classes(rgb_canvas(own), labels, CLASSES)
    return own


def blocks() -> np.ndarray:
    """A shirt on the left edge, and two bags of which one is a few pixels large."""
    labels = np.zeros((300, 400), np.uint8)
    labels[50:250, 0:120] = 1
    labels[100:180, 200:380] = 2
    labels[280:283, 200:203] = 2
    return labels


def test_background_alone_leaves_the_picture_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    np.testing.assert_array_equal(classes_on(pixels, np.zeros((60, 80), np.uint8)), pixels)


def test_every_class_is_tinted_in_its_own_colour_and_outlined() -> None:
    pixels, labels = np.full((300, 400, 3), 100, np.uint8), blocks()
    drawn, colours = classes_on(pixels, labels), label_colours(3)
    for label, (row, column) in {1: (60, 60), 2: (105, 210)}.items():
        np.testing.assert_array_equal(
            drawn[row, column], np.rint(100 + OPACITY * (colours[label] - 100.0)).astype(np.uint8)
        )
    np.testing.assert_array_equal(drawn[100, 210], colours[2])
    np.testing.assert_array_equal(drawn[20, 300], pixels[20, 300])


def test_colours_are_those_of_the_classes_and_differ() -> None:
    colours = label_colours(11)
    assert colours.shape == (11, 3) and colours.dtype == np.uint8
    assert len(np.unique(colours, axis=0)) == 11
    np.testing.assert_array_equal(label_colours(5), colours[:5])


def test_a_garment_has_one_colour_whether_it_is_detected_or_segmented() -> None:
    detected, segmented = (BUNDLED_MODELS[f"garments_{task}_stvit_r"].classes for task in ("detect", "segment"))
    colours = object_colours(np.arange(len(detected)))
    for label, name in enumerate(detected):
        np.testing.assert_array_equal(colours[label], label_colours(len(segmented))[segmented.index(name)])


def test_large_regions_are_named_inside_themselves_and_specks_are_not() -> None:
    labels = blocks()
    tags = name_tags(labels)
    assert [tag.label for tag in tags] == [1, 2]
    for tag in tags:
        assert labels[int(tag.y * 300), int(tag.x * 400)] == tag.label
    shirt, bag = tags
    assert (shirt.x * 400, bag.y * 300) == (pytest.approx(60, abs=2), pytest.approx(140, abs=2))


def test_regions_of_one_class_that_do_not_touch_are_named_each() -> None:
    labels = np.zeros((100, 100), np.uint8)
    labels[10:30, 10:30] = labels[60:90, 60:90] = 2
    assert len(name_tags(labels)) == 2
    labels[60:90, 60:90] = 0
    assert len(name_tags(labels)) == 1


def test_a_large_map_is_named_where_its_regions_are() -> None:
    labels = np.repeat(np.repeat(blocks(), 7, axis=0), 7, axis=1)
    for small, large in zip(name_tags(blocks()), name_tags(labels), strict=True):
        assert labels[int(large.y * labels.shape[0]), int(large.x * labels.shape[1])] == small.label
    assert TAGGED * labels.size > 49 * 9


@pytest.mark.parametrize("shape", [(8, 8), (8, 160), (160, 8), (1, 3000)])
def test_maps_of_any_shape_are_drawn(shape: tuple[int, int]) -> None:
    labels = np.ones(shape, np.uint8)
    assert classes_on(np.zeros((*shape, 3), np.uint8), labels).shape == (*shape, 3)


def test_labels_of_another_picture_are_refused() -> None:
    with pytest.raises(ValueError, match="belong to"):
        classes_on(np.zeros((41, 60, 3), np.uint8), np.zeros((40, 60), np.uint8))


def test_the_indexed_picture_holds_the_numbers_of_the_classes_and_their_colours() -> None:
    with Image.open(BytesIO(indexed_png(blocks(), label_colours(3)))) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "P", (400, 300))
        np.testing.assert_array_equal(np.array(image), blocks())
        np.testing.assert_array_equal(np.array(image.convert("RGB")), label_colours(3)[blocks()])
