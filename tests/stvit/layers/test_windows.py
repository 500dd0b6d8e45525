"""Laws of the window operations: each cut and its inverse or counterpart."""

import pytest
import torch

from stvit.layers.windows import (
    gather_neighbourhoods,
    neighbourhood_corners,
    scatter_neighbourhoods,
    window_partition,
    window_reverse,
)


@pytest.mark.parametrize(("grid_hw", "window"), [((14, 14), 7), ((6, 9), 3), ((7, 21), 7)])
def test_reverse_undoes_partition(grid_hw, window):
    token_map = torch.randn(2, *grid_hw, 5)
    windows = window_partition(token_map, window)
    assert windows.shape == (2, grid_hw[0] * grid_hw[1] // window**2, window**2, 5)
    torch.testing.assert_close(window_reverse(windows, window, grid_hw), token_map)


def test_partition_is_in_raster_order():
    token_map = torch.arange(16).view(1, 4, 4, 1)
    assert window_partition(token_map, 2)[0, :, :, 0].tolist() == [
        [0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("grid_hw", "corners"),
    [
        ((7, 7), [(0, 0)]),
        ((14, 14), [(0, 0), (0, 4), (4, 0), (4, 4)]),
        ((7, 21), [(0, 0), (0, 6), (0, 11)]),
    ],
)
def test_neighbourhoods_stay_inside_the_map(grid_hw, corners):
    assert neighbourhood_corners(grid_hw, window_size=7, neighbourhood=10) == corners


def test_gather_copies_the_region_around_each_window():
    token_map = torch.arange(14 * 14).view(1, 14, 14, 1)
    windows = gather_neighbourhoods(token_map, 7, 10)
    assert windows.shape == (1, 4, 100, 1)
    assert torch.equal(windows[0, 1, :, 0].view(10, 10), token_map[0, 0:10, 4:14, 0])
    assert torch.equal(windows[0, 2, :, 0].view(10, 10), token_map[0, 4:14, 0:10, 0])


@pytest.mark.parametrize("grid_hw", [(14, 14), (7, 14), (28, 21)])
def test_scatter_puts_every_gathered_value_back(grid_hw):
    positions = torch.arange(1.0, grid_hw[0] * grid_hw[1] + 1).view(1, *grid_hw, 1)
    gathered = gather_neighbourhoods(positions, 7, 10)[..., 0]
    laid = scatter_neighbourhoods(gathered, 7, 10, grid_hw)
    expected = positions.flatten()
    assert ((laid == 0) | (laid == expected)).all()
    assert torch.equal((laid != 0).sum(-1), torch.full((1, laid.shape[1]), gathered.shape[-1]))
