"""Cutting a token map into windows and putting it together again; each cut stands beside its inverse or counterpart.

A token map is (B, H, W, C); a set of windows is (B, nW, T, C), the windows and the T tokens in each in raster order.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn import functional as F


def window_partition(token_map: Tensor, window_size: int) -> Tensor:
    """(B, H, W, C) -> (B, nW, window_size**2, C), disjoint windows; H and W are multiples of ``window_size``."""
    B, H, W, C = token_map.shape
    w = window_size
    windows = token_map.view(B, H // w, w, W // w, w, C).transpose(2, 3)
    return windows.reshape(B, (H // w) * (W // w), w * w, C)


def window_reverse(windows: Tensor, window_size: int, grid_hw: tuple[int, int]) -> Tensor:
    """(B, nW, window_size**2, C) -> (B, H, W, C), the inverse of :func:`window_partition`."""
    H, W = grid_hw
    w = window_size
    B, C = windows.shape[0], windows.shape[-1]
    return windows.view(B, H // w, W // w, w, w, C).transpose(2, 3).reshape(B, H, W, C)


def pad_to_multiple(token_map: Tensor, multiple: int) -> Tensor:
    """(B, H, W, C) -> (B, H', W', C): zeros at the bottom and on the right, up to multiples of ``multiple``."""
    H, W = token_map.shape[1:3]
    below, right = -H % multiple, -W % multiple
    return F.pad(token_map, (0, 0, 0, right, 0, below)) if below or right else token_map


def neighbourhood_corners(grid_hw: tuple[int, int], window_size: int, neighbourhood: int) -> list[tuple[int, int]]:
    """Top-left corners of the neighbourhood of every window, in raster order of the windows.

    A neighbourhood is a ``neighbourhood``-sided square around its window, moved as little as needed to lie inside the
    map. On the 14x14 map of a 224-pixel image, 7x7 windows and 10x10 neighbourhoods start at rows and columns 0 and 4:
    what the released code obtains from an unfold with stride 4.
    """
    margin = (neighbourhood - window_size) // 2

    def starts(length: int) -> list[int]:
        last = max(length - neighbourhood, 0)
        return [min(max(first - margin, 0), last) for first in range(0, length, window_size)]

    return [(row, column) for row in starts(grid_hw[0]) for column in starts(grid_hw[1])]


def gather_neighbourhoods(token_map: Tensor, window_size: int, neighbourhood: int) -> Tensor:
    """(B, H, W, C) -> (B, nW, T, C): overlapping neighbourhoods, one per window; T = neighbourhood**2 where the map is
    large enough, see :func:`neighbourhood_corners`."""
    corners = neighbourhood_corners(tuple(token_map.shape[1:3]), window_size, neighbourhood)
    n = neighbourhood
    return torch.stack([token_map[:, r : r + n, c : c + n] for r, c in corners], dim=1).flatten(2, 3)


def scatter_neighbourhoods(weights: Tensor, window_size: int, neighbourhood: int, grid_hw: tuple[int, int]) -> Tensor:
    """(B, nW, ..., T) -> (B, nW, ..., H*W): lay each window's weights over the whole map, 0 outside its neighbourhood.

    The counterpart of :func:`gather_neighbourhoods` for attention weights.
    """
    H, W = grid_hw
    height, width = min(neighbourhood, H), min(neighbourhood, W)
    whole = weights.new_zeros(*weights.shape[:-1], H, W)
    for i, (r, c) in enumerate(neighbourhood_corners(grid_hw, window_size, neighbourhood)):
        whole[:, i, ..., r : r + height, c : c + width] = weights[:, i].unflatten(-1, (height, width))
    return whole.flatten(-2)


def gather_with_halo(token_map: Tensor, window_size: int, neighbourhood: int, halo: Tensor) -> Tensor:
    """(B, H, W, C) -> (B, nW, neighbourhood**2, C): the square around every window, which may reach out of the map.

    Unlike :func:`gather_neighbourhoods`, every window stands at the same place in its square, and the last windows need
    not lie inside the map.

    Args:
        halo: broadcasts to (B, 1, 1, C), what stands outside of the map.
    """
    return torch.cat(list(gather_by_rows(token_map, window_size, neighbourhood, halo)), dim=1)


def gather_by_rows(
    token_map: Tensor, window_size: int, neighbourhood: int, halo: Tensor, max_bytes: int | None = None
) -> Iterator[Tensor]:
    """The same in pieces of whole rows of windows, one after the other.

    Args:
        max_bytes: size of a piece, unless a single row is larger; ``None`` for all rows in one.
    """
    B, H, W, C = token_map.shape
    before, (height, width) = _frame((H, W), window_size, neighbourhood)
    framed = halo.expand(B, height, width, C).clone()
    framed[:, before : before + H, before : before + W] = token_map
    squares = framed.unfold(1, neighbourhood, window_size).unfold(2, neighbourhood, window_size)
    at_once = squares.shape[1]
    if max_bytes and not isinstance(B, int):  # exported for batches of any size, none of which can be measured
        at_once = 1
    elif max_bytes:
        at_once = max(max_bytes // (squares[:, 0].numel() * squares.element_size()), 1)
    for rows in squares.split(at_once, dim=1):
        yield rows.permute(0, 1, 2, 4, 5, 3).reshape(B, -1, neighbourhood**2, C)


def scatter_without_halo(weights: Tensor, window_size: int, neighbourhood: int, grid_hw: tuple[int, int]) -> Tensor:
    """(B, nW, Q, neighbourhood**2) -> (B, nW, Q, H*W): lay each window's weights over the whole map and drop what lies
    outside of it.

    The counterpart of :func:`gather_with_halo` for attention weights.
    """
    H, W = grid_hw
    before, frame_hw = _frame(grid_hw, window_size, neighbourhood)
    framed = weights.new_zeros(*weights.shape[:3], *frame_hw)
    for i in range(weights.shape[1]):
        row, column = (window_size * j for j in divmod(i, -(-W // window_size)))
        square = weights[:, i].unflatten(-1, (neighbourhood, neighbourhood))
        framed[:, i, :, row : row + neighbourhood, column : column + neighbourhood] = square
    return framed[..., before : before + H, before : before + W].flatten(3)


def _frame(grid_hw: tuple[int, int], window_size: int, neighbourhood: int) -> tuple[int, tuple[int, int]]:
    """How far the squares reach beyond the first windows, and the size of the map that holds them all."""
    reach = neighbourhood - window_size  # the odd token lies after the window
    height, width = (-(-side // window_size) * window_size + reach for side in grid_hw)
    return reach // 2, (height, width)
