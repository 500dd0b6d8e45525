"""Which keys the windows of a dense backbone see: what padding and the edge of the map leave of their squares."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stvit.layers.windows import gather_with_halo, scatter_without_halo

from .stvit_r_swin import CENTRES, WINDOW

SPATIAL_NEIGHBOURHOOD = 14  # image tokens per side of the keys in the first STGM layer, w_k
GLOBAL_NEIGHBOURHOOD = 21  # and in the second
RECOVERY_NEIGHBOURHOOD = 9 * CENTRES  # semantic tokens per side in recovery: nine windows


@dataclass(frozen=True)
class Strip:
    """One row of windows in recovery.

    Attributes:
        queries: rows of the image tokens.
        keys: rows of the semantic tokens that they may see.
        bias: (1, 1, Q, K + 1), 0 or -inf on the semantic tokens; the last key stands for all tokens outside of the map,
            which are alike, so its bias is the logarithm of their number.
    """

    queries: slice
    keys: slice
    bias: Tensor


@dataclass(frozen=True)
class VisibleKeys:
    """What the windows of one map see; worked out once for all layers.

    Attributes:
        spatial, global_: (nW, 1, K) for the two STGM layers, 0 or -inf on the tokens of a window's square; ``None``
            where all are seen.
        recovery: the windows row by row.
    """

    spatial: Tensor | None
    global_: Tensor | None
    recovery: tuple[Strip, ...]


def visible_keys(grid_hw: tuple[int, int], strict: bool, device: torch.device) -> VisibleKeys:
    """Which keys the windows of a map of image tokens see.

    Args:
        grid_hw: rows and columns of the map before it is padded to windows.
        strict: see :func:`hidden_keys`.
    """

    def bias(neighbourhood: int) -> Tensor | None:
        hidden = hidden_keys(grid_hw, WINDOW, neighbourhood, strict, device)
        return torch.zeros(hidden.shape, device=device).masked_fill(hidden, -torch.inf).unsqueeze(1)

    no_mask = not strict and not any(side % WINDOW for side in grid_hw)
    return VisibleKeys(
        spatial=None if no_mask else bias(SPATIAL_NEIGHBOURHOOD),
        global_=None if no_mask else bias(GLOBAL_NEIGHBOURHOOD),
        recovery=_strips(grid_hw, hidden_keys(grid_hw, CENTRES, RECOVERY_NEIGHBOURHOOD, strict, device)),
    )


def hidden_keys(
    grid_hw: tuple[int, int], tokens_per_window: int, neighbourhood: int, strict: bool, device: torch.device
) -> Tensor:
    """(nW, K) bool: the keys in the square around each window that it must not see.

    The released weights were trained with masks that hide the padding only where exactly one axis is padded: with both
    padded they hide the bottom right corner alone, with none the tokens outside of the map are not hidden either, and
    the widths, counted in image tokens, are applied to the map of semantic tokens as they are.

    Args:
        grid_hw: rows and columns of the map of image tokens before it is padded to windows.
        tokens_per_window: tokens per window side in the map of the keys: image or semantic tokens.
        neighbourhood: side of the square in the same tokens.
        strict: hide exactly the padding and what lies outside of the map, as the paper means it.
    """
    below, right = (-side % WINDOW for side in grid_hw)
    H, W = (-(-side // WINDOW) * tokens_per_window for side in grid_hw)
    hidden = torch.zeros(1, H, W, 1, dtype=torch.bool, device=device)
    if not strict:
        hidden[:, -below or None :, -right or None :] = True
    elif tokens_per_window == WINDOW:
        hidden[:, H - below :] = True
        hidden[:, :, W - right :] = True
    keys = gather_with_halo(hidden, tokens_per_window, neighbourhood, hidden.new_ones(1))[0, :, :, 0]
    return keys & ~keys.all(dim=-1, keepdim=True)  # the same penalty on all keys cancels out


def _strips(grid_hw: tuple[int, int], hidden: Tensor) -> tuple[Strip, ...]:
    """Recovery row by row of windows: neighbouring windows share most of their keys, so a row attends one slice of the
    semantic map instead of a gathered copy for every window."""
    H, W = grid_hw
    windows_hw = tuple(-(-side // WINDOW) for side in grid_hw)
    semantic_hw = tuple(side * CENTRES for side in windows_hw)
    seen = (~hidden).float()
    inside = scatter_without_halo(seen[None, :, None], CENTRES, RECOVERY_NEIGHBOURHOOD, semantic_hw)[0, :, 0]
    outside = seen.sum(dim=1) - inside.sum(dim=1)
    inside, outside = inside.log().view(*windows_hw, *semantic_hw), outside.log().view(*windows_hw, 1)
    reach = RECOVERY_NEIGHBOURHOOD // CENTRES // 2
    strips = []
    for row in range(windows_hw[0]):
        keys = slice(max(row - reach, 0) * CENTRES, (row + reach + 1) * CENTRES)
        queries = slice(row * WINDOW, min((row + 1) * WINDOW, H))
        of_windows = torch.cat([inside[row, :, keys].flatten(1), outside[row]], dim=1)
        of_columns = of_windows.repeat_interleave(WINDOW, dim=0)[:W]
        strips.append(Strip(queries, keys, of_columns.repeat(queries.stop - queries.start, 1)[None, None]))
    return tuple(strips)
