"""Tasks on clips: one model's results on every frame, or two models side by side."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .annotate import Annotator, Followed
from .decode import ClipReader
from .picture import Picture
from .scoreboard import Scoreboard
from .types import ClipInfo, Frame, FrameResult, Limits, Model

CLEAR_LEAD = 3  # trial passes by which the faster model leads
MOST_TRIALS = 9  # after which it may lead by less
Pair = tuple[FrameResult, FrameResult]


class AnnotateTask:
    """Draws one model's results on every frame."""

    max_side = 1920

    def __init__(self, model: Model) -> None:
        self._model = model
        self.batch_size = model.batch_size

    def begin(self, info: ClipInfo, limits: Limits, frame_hw: tuple[int, int]) -> None:
        self._model.begin(frame_hw)
        self.engines: Counter[str] = Counter()
        self._annotator = Annotator(self._model, info.fps)

    def prepare(self, pixels: np.ndarray) -> Any:
        return self._model.prepare(pixels)

    def infer(self, batch: list[Any]) -> list[FrameResult]:
        return self._model.infer(batch)

    def draw(self, frame: Frame, result: FrameResult) -> tuple[Iterable[Frame], dict[str, Any]]:
        followed = self._annotator.follow(result)
        self.engines[result.engine] += 1
        self._annotator.draw(frame.picture.canvas, followed)
        record = {"frame": frame.index, "time_s": round(frame.time_s, 4), **self._annotator.record(followed)}
        return [frame], record

    def finish(self) -> Iterable[Frame]:
        return []

    def conclude(self) -> dict[str, Any]:
        known = self._annotator.conclude()
        return {"model": known} if known else {}

    def close(self) -> None:
        """Nothing to release."""


class SideBySideTask:
    """Shows a model on the left and its baseline on the right, each at the pace that it really reaches.

    Both models run on every frame, one after the other on the same device and engine: on graphs where both have them as
    the clip starts, else in eager PyTorch. Who comes first alternates from batch to batch; what is timed is the pass
    that is shown, with its token regions, of detectors that of the backbone. From the medians of these times follows
    when each model would have finished each frame, had it been alone. The one that proves faster in a few trial passes
    sets the clock: its half shows every frame at the frame's own time. The other half shows the last frame that the
    slower model would have finished by then, and goes on when the faster one is done, so the new clip is longer than
    the old one by what the slower model takes longer. Where that order turns round within a clip, both halves show the
    same frame.

    The slower half's frames are read a second time; only what is drawn on them waits in memory: 2 KB for each object
    and two bytes for each image token, for every frame by which the slower model lags, at most all of the clip's.
    """

    max_side = 960  # of each half

    def __init__(self, model: Model, baseline: Model) -> None:
        self._models = (model, baseline)
        self.batch_size = min(model.batch_size, baseline.batch_size)
        self._slow_frames: Iterator[Frame] = iter(())

    def begin(self, info: ClipInfo, limits: Limits, frame_hw: tuple[int, int]) -> None:
        engines = {model.begin(frame_hw) for model in self._models}
        if len(engines) > 1 or "eager" in engines:  # a graph that came midway would change the race
            for model in self._models:
                model.in_eager()
        self._board = Scoreboard(frame_hw, self._models, info.frames)
        scale = self._board.text_scale
        self._annotators = tuple(Annotator(model, info.fps, scale, with_speed=False) for model in self._models)
        self._info, self._turn, self._fast = info, 0, -1
        self._finished_ms = [0.0, 0.0]
        self._waiting: deque[tuple[int, float, Followed]] = deque()  # what the slower model finishes later
        self._slow_frames = iter(ClipReader(info, self.max_side, limits))
        self._slow_panel: Picture | None = None
        self._slow_done = 0
        self._last: Frame | None = None
        self.engines: Counter[str] = Counter()
        self._first_done_s: float | None = None  # of the new clip, when the faster model has finished

    def prepare(self, pixels: np.ndarray) -> tuple[Any, Any]:
        model, baseline = self._models
        prepared = model.prepare(pixels)
        return prepared, prepared if model.input_key == baseline.input_key else baseline.prepare(pixels)

    def infer(self, batch: list[tuple[Any, Any]]) -> list[Pair]:
        if self._fast >= 0:
            return list(zip(*self._in_turns(batch), strict=True))
        self._fast, pair = self._find_faster(batch)
        return list(zip(*pair, strict=True))

    def _find_faster(self, batch: list[tuple[Any, Any]]) -> tuple[int, tuple[list[FrameResult], list[FrameResult]]]:
        """Return the side that wins more of a few trial passes, which go on until its lead is clear, and the results of
        the last."""
        lead = 0  # of the right side, in passes
        for _ in range(MOST_TRIALS):
            left, right = self._in_turns(batch)
            lead += int(np.sign(left[0].pace_ms - right[0].pace_ms))
            if abs(lead) == CLEAR_LEAD:
                break
        return int(lead > 0), (left, right)

    def draw(self, frame: Frame, pair: Pair) -> tuple[Iterable[Frame], dict[str, Any]]:
        followed = [annotator.follow(result) for annotator, result in zip(self._annotators, pair, strict=True)]
        for side, result in enumerate(pair):
            self.engines[result.engine] += 1
            self._finished_ms[side] += self._board.pace_ms(side)
        fast, slow = self._fast, 1 - self._fast
        self._waiting.append((frame.index, self._finished_ms[slow], followed[slow].only_drawn()))
        while self._waiting and self._waiting[0][1] <= self._finished_ms[fast]:
            self._advance()
        self._annotators[fast].draw(frame.picture.canvas, followed[fast])
        record = {"frame": frame.index, "time_s": round(frame.time_s, 4)}
        for name, annotator, own in zip(("model", "baseline"), self._annotators, followed, strict=True):
            record[name] = annotator.record(own)
        self._last = frame
        return [self._both(frame, frame.index + 1)], record

    def finish(self) -> Iterator[Frame]:
        """Yield the slower half to its end; a second of the new clip stands for as long as before."""
        last, total_ms = self._last, self._finished_ms[self._fast]
        if last is None:
            return
        scale = max(last.time_s, 1 / self._info.fps) / total_ms
        self._first_done_s = last.time_s
        while self._waiting:
            finished_ms = self._waiting[0][1]
            self._advance()
            later_s = (finished_ms - total_ms) * scale
            later = replace(last, time_s=last.time_s + later_s, duration_s=max(last.duration_s - later_s, 0.0))
            if self._first_done_s == last.time_s:
                self._first_done_s = later.time_s  # of the first frame with a flag
            yield self._both(later, last.index + 1, ended=True)

    def conclude(self) -> dict[str, Any]:
        names = ("model", "baseline")
        known = {name: own.conclude() for name, own in zip(names, self._annotators, strict=True)}
        race: dict[str, Any] = {"headline": self._board.headline, "engines": list(self.engines)}
        if self._first_done_s is not None:
            race["first_done_s"] = round(self._first_done_s, 4)
        return {**{name: values for name, values in known.items() if values}, "race": race}

    def close(self) -> None:
        if hasattr(self._slow_frames, "close"):
            self._slow_frames.close()

    def _in_turns(self, batch: list[tuple[Any, Any]]) -> Pair:
        self._turn += 1
        order = (0, 1) if self._turn % 2 else (1, 0)
        results = {side: self._models[side].infer([both[side] for both in batch], compared=True) for side in order}
        self._board.add((results[0][0], results[1][0]))  # frames of one batch share its time
        return results[0], results[1]

    def _advance(self) -> None:
        """Draw the next frame of the slower half."""
        index, _, followed = self._waiting.popleft()
        frame = next(self._slow_frames, None)
        if frame is None:  # of a damaged file the second reading may give less
            return
        self._slow_done, self._slow_panel = index + 1, frame.picture
        self._annotators[1 - self._fast].draw(self._slow_panel.canvas, followed)

    def _both(self, frame: Frame, fast_done: int, ended: bool = False) -> Frame:
        own, slow = frame.picture, self._slow_panel or Picture.black(frame.picture.size_hw, frame.picture.matrix)
        behind_ms = self._finished_ms[1 - self._fast] - self._finished_ms[self._fast]
        behind = "" if behind_ms <= 0 or (ended and self._slow_done == fast_done) else f"{behind_ms / 1e3:.2f} s behind"
        of_sides = [(own, fast_done, "finished first" if ended else ""), (slow, self._slow_done, behind)]
        halves, done, words = zip(*(of_sides if self._fast == 0 else of_sides[::-1]), strict=True)
        return replace(frame, picture=self._board.compose(halves, done, words, ended))
