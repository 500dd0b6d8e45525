"""What stands around two models side by side: the headline with their speeds, and how far each has come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stvit.draw.canvas import Canvas, columns, fill, put_text, rows
from stvit.draw.palette import LINE

from .picture import Picture, even
from .types import FrameResult, Labelled

GROUND, TRACK = (15, 23, 32), (51, 65, 85)
SIDES = ((45, 191, 174), (148, 163, 184))  # as on the page: the model, the baseline
SHOWN_HW = 480, 870  # pixels of the page that a clip gets at most, so letters are made as large as they look there
LETTERS, SMALLEST_LETTERS = 15, 12  # height of a line, in pixels of the page and of the clip
_LINE_OF_SCALE = 28  # pixels of a line at OpenCV's scale 1
WIDEST = 0.5  # middle half of the factors, as part of their median, that still tells something
_DIVIDER = 4  # pixels, so that both halves get some of its colour


def headline(labels: Sequence[str], paces_ms: Sequence[Sequence[float]], part: str = "") -> str:
    """Say how fast both models are by the medians of their times, and by what factor they differ; no factor where the
    middle half of the factors includes 1 or is wider than half of their median.

    Args:
        labels: names of the models; what follows a comma is left out where they differ without it.
        paces_ms: of each model, the time of a frame in each of their turns.
        part: of the models that was timed.
    """
    short = [label.split(",")[0] for label in labels]
    names = short if len(set(short)) == 2 else labels
    first, second = (1e3 / float(np.median(times)) for times in paces_ms)
    low, factor, high = np.quantile(np.divide(paces_ms[1], paces_ms[0]), (0.25, 0.5, 0.75))
    if high - low > WIDEST * factor:
        verdict = "this machine is busy"
    elif low <= 1 <= high:
        verdict = "no clear difference"
    else:
        verdict = f"{factor:.1f}x" if factor > 1 else f"{1 / factor:.1f}x slower"
    timed = f"{part}s: " if part else ""
    return f"{timed}{names[0]} {first:.0f} frames/s, {names[1]} {second:.0f}: {verdict}"


class Scoreboard:
    """Puts two halves side by side under a headline, each above its bar and its counter, both drawn alike.

    Args:
        half_hw: size of a half, even.
        models: left and right.
        frames: of the clip; ``None`` where that is not known.

    Attributes:
        text_scale: of letters on the halves, as ``put_text`` takes it.
        top: rows above the halves.
    """

    def __init__(self, half_hw: tuple[int, int], models: Sequence[Labelled], frames: int | None) -> None:
        (height, width), (shown_h, shown_w) = half_hw, SHOWN_HW
        line = max(SMALLEST_LETTERS, LETTERS * max(2 * width / shown_w, height / shown_h))
        self.text_scale = line / _LINE_OF_SCALE
        self.top, self._foot = even(round(2.4 * line)), even(round(2.6 * line))
        self._half_hw, self._labels, self._frames, self._line = half_hw, [model.label for model in models], frames, line
        self._paces_ms: tuple[list[float], list[float]] = ([], [])
        self.headline = ""

    def add(self, results: Sequence[FrameResult]) -> None:
        """Count the times of one turn: a frame's on both sides."""
        for paces, result in zip(self._paces_ms, results, strict=True):
            paces.append(result.pace_ms)
        self.headline = headline(self._labels, self._paces_ms, results[0].paced_part)

    def pace_ms(self, side: int) -> float:
        """Return the median time of a frame so far, by which a side goes on: a turn that another program interrupts
        tells nothing of the model."""
        return float(np.median(self._paces_ms[side]))

    def compose(self, halves: Sequence[Picture], done: Sequence[int], words: Sequence[str], ended: bool) -> Picture:
        """Make the picture.

        Args:
            halves: left and right, of one size.
            done: frames that each side has finished.
            words: what stands beside each counter.
            ended: whether the number of frames is known for certain, which is the larger one of ``done``.
        """
        (height, width), total = self._half_hw, max(done) if ended else self._frames
        board = Picture.black((self.top + height + self._foot, 2 * width), halves[0].matrix)
        fill(board.canvas, GROUND)
        for side, half in enumerate(halves):
            board.paste(half, self.top, side * width)
        fill(columns(rows(board.canvas, self.top, self.top + height), width - 2, width + 2), LINE)
        scale = 1.3 * self.text_scale
        put_text(board.canvas, [self.headline], (width, self.top // 2), GROUND, (0.5, 0.5), scale)
        for side in (0, 1):
            foot = columns(rows(board.canvas, self.top + height), side * width, (side + 1) * width)
            self._draw_foot(foot, SIDES[side], done[side], total, words[side])
        return board

    def _draw_foot(self, foot: Canvas, colour: tuple[int, ...], done: int, total: int | None, words: str) -> None:
        height, width = foot[0].values.shape
        bar, whole = even(round(self._line * 0.5)), total is not None and done >= total
        fill(rows(foot, 0, bar), TRACK)
        if total:
            fill(columns(rows(foot, 0, bar), 0, round(min(done / total, 1) * width) // 2 * 2), colour)
        counter = f"frame {done}" + (f" of {total}" if total else "")
        under = rows(foot, bar)
        put_text(under, [counter], (0, (height - bar) // 2), GROUND, (0, 0.5), self.text_scale)
        flag = self._line * 1.2 if whole else 0
        if words:
            put_text(
                under, [words], (round(width - 1.5 * flag), (height - bar) // 2), GROUND, (1, 0.5), self.text_scale
            )
        if whole:
            _draw_flag(under, round(width - 1.4 * flag), (height - bar - round(flag)) // 2, flag)


def _draw_flag(canvas: Canvas, left: int, top: int, size: float) -> None:
    """A chequered flag, ``size`` pixels high."""
    square = max(2, round(size / 4) // 2 * 2)
    left, top = left // 2 * 2, max(0, top // 2 * 2)
    for row in range(3):
        for column in range(4):
            part = columns(rows(canvas, top + row * square, top + (row + 1) * square), left, left + square)
            fill(part, LINE if (row + column) % 2 == 0 else (0, 0, 0))
            left += square
        left -= 4 * square
    fill(columns(rows(canvas, top, top + round(size) // 2 * 2), left - 2, left), LINE)
