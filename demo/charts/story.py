"""The story of two models in one line and one picture: fewer tokens, less arithmetic, less time."""

from __future__ import annotations

from html import escape

import cv2
import numpy as np

from demo.benchmark import BenchmarkState
from demo.charts.bars import is_calm
from demo.charts.costs import cost_of
from demo.engine_names import ENGINE_LABELS
from demo.export import jpeg_bytes
from demo.registry import ModelSpec
from demo.views.token_view import base64
from stvit.predict.preprocess import InputGeometry

SQUARES_SIDE = 336
ALIKE = 1.05  # a smaller ratio of multiply-adds is none worth a number


def headline(model: ModelSpec, baseline: ModelSpec, state: BenchmarkState | None = None) -> str:
    """Write how many tokens a model uses instead of how many, and what that saves, as computed and as measured.

    Args:
        state: a comparison of the two; without one, the line says nothing of their speed.
    """
    faster = speed(state) if state else ""
    parts = [f"<b>{arithmetic(model, baseline)}</b>"]
    if faster:
        parts.append(f"<b>{faster} on this machine</b> <small>{ENGINE_LABELS[state.single.engine]}</small>")
    tokens, where = fewer_tokens(model, baseline)
    first = f"<b>{tokens}</b>{where}" if tokens else ""
    return f'<p class="story">{first}{": " if first else ""}{", ".join(parts)}</p>'


def fewer_tokens(model: ModelSpec, baseline: ModelSpec) -> tuple[str, str]:
    """Say how many tokens are left of how many, and where; empty where the two have the same."""
    mine, theirs = cost_of(model).token_counts(), cost_of(baseline).token_counts()
    fewer = [count for count in mine if count not in theirs]
    if not fewer:
        return "", ""
    before = mine[max(0, mine.index(fewer[0]) - 1)]
    where = " in its deep layers" if mine[-1] != min(fewer) else ""
    return f"{min(fewer)} tokens instead of {before}", where


def arithmetic(model: ModelSpec, baseline: ModelSpec) -> str:
    """Compare the multiply-adds of the two, as computed from their layers."""
    ratio = cost_of(baseline).macs / cost_of(model).macs
    if 1 / ALIKE < ratio < ALIKE:
        return "the same arithmetic"
    return f"{ratio:.1f}× less arithmetic" if ratio > 1 else f"{1 / ratio:.1f}× more arithmetic"


def speed(state: BenchmarkState) -> str:
    """Compare the time of the two as measured, one picture at a time; empty before it is known."""
    turns = state.single
    if turns is None or turns.verdict is None or (turns.verdict == "unclear" and not state.done):
        return ""
    ratio = turns.speed_up.median
    return {
        "faster": f"{ratio:.1f}× faster",
        "slower": f"{1 / ratio:.1f}× slower",
        "unclear": "as fast" if is_calm(turns.speed_up) else "",  # else the machine is busy
    }[turns.verdict]


def squares(pixels: np.ndarray, geometry: InputGeometry, grid_hw: tuple[int, int], label: str) -> str:
    """Draw what a model sees of a picture, cut into the squares that it begins with, as HTML.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown; ``geometry`` belongs to it.
        grid_hw: rows and columns of image tokens.
        label: of the model that goes on with all of them.
    """
    rows, columns = grid_hw
    whose = f" for {escape(label)}" if label else ""
    corners = np.array([[0.0, 0.0], geometry.input_hw[::-1]])
    (left, top), (right, bottom) = np.rint(geometry.to_source(corners)).astype(int).clip(0).tolist()
    side = min(SQUARES_SIDE, bottom - top)
    seen = cv2.resize(pixels[top:bottom, left:right], (side, side), interpolation=cv2.INTER_AREA)
    return (
        f'<figure class="squares" style="--rows:{rows};--columns:{columns}"><div>'
        f'<img src="data:image/jpeg;base64,{base64(jpeg_bytes(seen))}" width="{side}" height="{side}" '
        f'alt="The picture, cut into {rows} × {columns} squares"></div>'
        f"<figcaption><b>{rows * columns} squares</b>{whose}</figcaption></figure>"
    )
