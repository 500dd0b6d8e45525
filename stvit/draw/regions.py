"""Token regions on a picture, fast enough for every frame of a clip.

The token grid is coarse, and it is shown as it is: every value of a plane gets that of the one image token that covers
its centre, without smoothing.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import CLEAR, DROPPED, TokenRegions
from stvit.trace import Fate

from .canvas import Canvas, Plane, size_hw
from .palette import (
    FATE_BRIGHTNESS,
    FUSED,
    GLOW,
    GLOW_OPACITY,
    LINE,
    MARK_OPACITY,
    OPACITY,
    OUTSIDE_BRIGHTNESS,
    UNSEEN_BRIGHTNESS,
    token_colours,
)

Box = tuple[float, float, float, float]
Pattern = Callable[[np.ndarray, np.ndarray, int], np.ndarray]  # y, x and side of a square: where it is white
_GLOW_GAMMA = 0.75  # lets weak attention be seen
_PIXELS_PER_UNIT = 420  # of the picture's shorter side, for each eighth of a pattern
_MARKS: dict[str, Pattern] = {  # as on the page: lines, dots, crossing lines, dashes
    "dropped": lambda y, x, side: (x + y) % side < side // 8,
    "waiting": lambda y, x, side: (y - side / 2) ** 2 + (x - side / 2) ** 2 <= (0.18 * side) ** 2,
    "fused": lambda y, x, side: ((x + y) % side < side // 8) | ((x - y) % side < side // 8),
    "fast": lambda y, x, side: (y // (side // 8) == 4) & (x >= 0.1 * side) & (x < 0.6 * side),
}
_ROUNDING = 1e-9  # a centre on the border of two image tokens belongs to the second one, whatever floats make of it


def region_colours(regions: TokenRegions) -> np.ndarray:
    """(num_tokens, 3) uint8 RGB: a colour for each token of the layer.

    Of layers that reduce image tokens, only meant for tokens that stand for several; a merged group is coloured by its
    first image token, so that it keeps its colour while it grows from layer to layer.
    """
    if regions.semantic_grid_hw:
        return token_colours(regions.num_tokens, regions.semantic_grid_hw[1])
    if regions.kind == "fused":
        return np.tile(np.array(FUSED, np.uint8), (regions.num_tokens, 1))
    rows, columns = regions.image_grid_hw
    first = np.zeros(regions.num_tokens, np.int64)
    tokens, cells = np.unique(regions.assignment, return_index=True)
    first[tokens[tokens >= 0]] = cells[tokens >= 0]
    return token_colours(rows * columns, columns)[first]


def grid_box(canvas: Canvas, geometry: InputGeometry) -> Box:
    """Where the model's input lies on a picture, XYXY in pixels: there is the grid of image tokens.

    Raises:
        ValueError: the geometry belongs to another picture.
    """
    if size_hw(canvas) != geometry.source_hw:
        raise ValueError(f"the picture is {size_hw(canvas)}, the geometry belongs to {geometry.source_hw}")
    return geometry.input_xyxy


def draw_regions(
    canvas: Canvas,
    assignment: np.ndarray,
    colours: np.ndarray,
    box_xyxy: Box,
    *,
    opacity: float = OPACITY,
    lines: bool = True,
    fate: Fate | None = None,
    fused: bool = False,
) -> None:
    """Tint every region in the colour of its token; what lies outside of the grid is dimmed.

    Args:
        canvas: changed.
        assignment: (h, w), numbers of ``colours``, ``CLEAR`` or ``DROPPED``, see ``TokenRegions.grouped``.
        colours: (N, 3) uint8 RGB.
        box_xyxy: where the grid lies, in pixels of the picture; it may reach beyond.
        opacity: of the colours, in [0, 1].
        lines: whether to draw lines, two pixels wide, around regions.
        fate: of ``DROPPED`` image tokens, drawn by its brightness and pattern; without, they are dark.
        fused: whether regions are of image tokens fused into one, which has a pattern too.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity lies in [0, 1], not {opacity}")
    cell_rgb = colours[np.maximum(assignment, 0)]
    for plane in canvas:
        rows, columns = _plane_cells(plane, box_xyxy, assignment.shape)
        _tint(plane, plane.of(cell_rgb), assignment, rows, columns, opacity, fate or "dropped")
        if plane.step == 1:  # patterns are white, so planes of colour have none
            unit = 8 * max(1, round(min(size_hw(canvas)) / _PIXELS_PER_UNIT))
            for kind, cells in ((fate, assignment == DROPPED), ("fused" if fused else None, assignment >= 0)):
                if kind in _MARKS and cells.any():
                    _mark(plane, _MARKS[kind], cells, rows, columns, unit)
        if lines:
            _outline(plane, assignment, rows, columns)


def draw_attention(canvas: Canvas, regions: TokenRegions, token: int, box_xyxy: Box) -> None:
    """Let the picture glow where one semantic token looks, and darken it elsewhere; draw a line around the token's own
    region.

    Args:
        canvas: changed.
        token: index in raster order of the semantic grid.

    Raises:
        ValueError: no such token, or the attention was not kept.
    """
    if regions.attention is None:
        raise ValueError(f"the attention of {regions.layer} was not kept")
    if not 0 <= token < regions.num_tokens:
        raise ValueError(f"token {token} lies outside [0, {regions.num_tokens})")
    attention = regions.attention[token]
    levels = (attention / (attention.max() or 1)) ** _GLOW_GAMMA
    for plane in canvas:
        rows, columns = _plane_cells(plane, box_xyxy, levels.shape)
        framed = np.pad(levels, 1)[rows + 1][:, columns + 1][(..., *[None] * (plane.values.ndim - 2))]
        brightness, glow = UNSEEN_BRIGHTNESS + (1 - UNSEEN_BRIGHTNESS) * framed, GLOW_OPACITY * framed
        seen = plane.black + (plane.values - float(plane.black)) * brightness
        plane.values[:] = np.rint(seen + (plane.of(GLOW) - seen) * glow)
        _outline(plane, np.where(regions.assignment == token, 0, CLEAR), rows, columns)


def _tint(
    plane: Plane,
    values: np.ndarray,
    assignment: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    opacity: float,
    fate: Fate,
) -> None:
    """Mix a plane with the values of cells, those of regions; ``CLEAR`` cells are left as they are, ``DROPPED`` ones
    darkened as their fate says. ``rows`` and ``columns`` are the cell of each of its rows and columns, outside of the
    grid -1 and the number of cells."""
    row_slice, column_slice = _inside(rows, assignment.shape[0]), _inside(columns, assignment.shape[1])
    middle = plane.values[row_slice]
    for outside in (
        plane.values[: row_slice.start],
        plane.values[row_slice.stop :],
        middle[:, : column_slice.start],
        middle[:, column_slice.stop :],
    ):
        if outside.size:
            plane.darken(outside, OUTSIDE_BRIGHTNESS)
    inside, rows, columns = middle[:, column_slice], rows[row_slice], columns[column_slice]
    if not inside.size:
        return
    mixed = cv2.addWeighted(inside, 1 - opacity, _spread(values, rows, columns), opacity, 0)
    if (assignment < 0).any():
        cv2.copyTo(inside, _spread((assignment == CLEAR).astype(np.uint8), rows, columns), mixed)
        plane.darken(inside, FATE_BRIGHTNESS[fate])
        cv2.copyTo(inside, _spread((assignment == DROPPED).astype(np.uint8), rows, columns), mixed)
    inside[:] = mixed


def _mark(
    plane: Plane,
    pattern: Pattern,
    cells: np.ndarray,
    rows: np.ndarray,
    columns: np.ndarray,
    unit: int,
) -> None:
    """Draw a pattern on some cells (h, w) bool, again and again every ``unit`` pixels."""
    row_slice, column_slice = _inside(rows, cells.shape[0]), _inside(columns, cells.shape[1])
    inside = plane.values[row_slice, column_slice]
    y, x = np.ogrid[: inside.shape[0], : inside.shape[1]]
    marked = pattern(y % unit, x % unit, unit) & _spread(cells, rows[row_slice], columns[column_slice])
    inside[marked] = np.rint(inside[marked] * (1 - MARK_OPACITY) + plane.of(LINE) * MARK_OPACITY)


def _outline(plane: Plane, regions: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Draw lines between regions (h, w); all negative numbers are one, which is around the grid too."""
    framed = np.pad(np.maximum(regions, -1), 1, constant_values=-1)
    _rule(plane, plane.values, framed, rows + 1, columns + 1)
    _rule(plane, plane.values.swapaxes(0, 1), framed.T, columns + 1, rows + 1)


def _rule(plane: Plane, values: np.ndarray, regions: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> None:
    """Draw the lines that run along rows, where one row of cells ends and the next begins.

    Args:
        values: of the plane, or turned over its diagonal; changed.
        regions: (h + 2, w + 2), of the cells and of what lies around the grid.
        rows, columns: the cell of every row and column of ``values``.
    """
    above = np.flatnonzero(np.diff(rows))
    begins = (regions[rows[above]] != regions[rows[above + 1]])[:, columns]
    for ruled in (above, above + 1) if plane.step == 1 else (above + 1,):  # colour has half the resolution
        line = values[ruled]
        line[begins] = plane.of(LINE)
        values[ruled] = line


def _plane_cells(plane: Plane, box_xyxy: Box, grid_hw: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """The cells of every row and of every column of a plane."""
    (y0, y1), (x0, x1) = ((box_xyxy[axis] / plane.step, box_xyxy[axis + 2] / plane.step) for axis in (1, 0))
    height, width = plane.values.shape[:2]
    return _cells(y0, y1, grid_hw[0], height), _cells(x0, x1, grid_hw[1], width)


def _cells(start: float, end: float, parts: int, length: int) -> np.ndarray:
    """(length,) the cell of every value along one axis, -1 before the grid and ``parts`` behind."""
    cells = np.floor((np.arange(length) + 0.5 - start) * parts / (end - start) + _ROUNDING)
    return cells.clip(-1, parts).astype(np.int64)


def _inside(cells: np.ndarray, parts: int) -> slice:
    start, stop = np.searchsorted(cells, (0, parts))
    return slice(start, stop)


def _spread(values: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    return values.take(columns, axis=1).take(rows, axis=0)
