"""Masks as run lengths, beside those of pycocotools."""

from __future__ import annotations

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from stvit.evaluate.coco import encode_mask


def packed(whole: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(whole))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


@pytest.mark.parametrize("image_hw", [(37, 53), (200, 10)])
def test_run_lengths_equal_those_of_the_whole_mask(image_hw: tuple[int, int]) -> None:
    generator = np.random.default_rng(0)
    for height, width, top, left in ((5, 7, 30, 1), (37, 4, 0, 0), (37, 6, 0, 4), (1, 1, 36, 9)):
        whole = np.zeros(image_hw, np.uint8)
        part = whole[top : top + height, left : left + width]
        part[:] = generator.random(part.shape) < 0.6
        assert encode_mask(part.astype(bool), (top, left), image_hw) == packed(whole)


def test_a_full_and_an_empty_mask_have_run_lengths_too() -> None:
    for value in (0, 1):
        whole = np.full((6, 9), value, np.uint8)
        assert encode_mask(whole.astype(bool)) == packed(whole)
    assert encode_mask(np.zeros((0, 0), bool), (0, 0), (6, 9)) == packed(np.zeros((6, 9), np.uint8))
