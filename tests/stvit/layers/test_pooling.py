"""Pooling of image tokens into the centres that semantic tokens start from."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stvit.layers.pooling import AdaptivePooling, regular_bins


@pytest.mark.parametrize(
    ("length", "bins", "expected"),
    [(7, 3, (3, 2)), (14, 7, (2, 2)), (7, 7, (1, 1)), (7, 1, (7, 1)), (14, 4, None), (7, 2, (4, 3)), (2, 3, None)],
)
def test_bins_are_regular_where_all_have_one_length_and_one_distance(
    length: int, bins: int, expected: tuple[int, int] | None
) -> None:
    assert regular_bins(length, bins) == expected


@pytest.mark.parametrize(("side", "centres"), [(7, 3), (7, 2), (14, 4), (14, 7), (2, 3)])
def test_max_pooling_takes_the_maxima_of_adaptive_bins(side: int, centres: int) -> None:
    token_map = torch.randn(2, side, side, 5, generator=torch.Generator().manual_seed(0))
    expected = F.adaptive_max_pool2d(token_map.permute(0, 3, 1, 2), centres).flatten(2).transpose(1, 2)
    assert torch.equal(AdaptivePooling(centres, "max")(token_map), expected)
