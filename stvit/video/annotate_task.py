"""One model on a clip."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from .annotate import Annotator
from .types import ClipInfo, Frame, FrameResult, Limits, Model

MAX_SIDE = 1920


class Single:
    """A task: one model's results, drawn on every frame."""

    max_side = MAX_SIDE

    def __init__(self, model: Model) -> None:
        self._model = model
        self.batch_size = model.batch_size

    def begin(self, info: ClipInfo, limits: Limits, frame_hw: tuple[int, int]) -> None:
        self._model.begin(frame_hw)
        self._annotator = Annotator(self._model, info.fps)

    def prepare(self, pixels: np.ndarray) -> Any:
        return self._model.prepare(pixels)

    def infer(self, batch: list[Any]) -> list[FrameResult]:
        return self._model.infer(batch)

    def draw(self, frame: Frame, result: FrameResult) -> tuple[Iterable[Frame], dict[str, Any]]:
        followed = self._annotator.follow(result)
        self._annotator.draw(frame.picture.canvas, followed)
        record = {"frame": frame.index, "time_s": round(frame.time_s, 4), **self._annotator.record(followed)}
        return [frame], record

    def finish(self) -> Iterable[Frame]:
        return []

    def conclude(self) -> dict[str, Any]:
        known = self._annotator.conclude()
        return {"model": known} if known else {}

    def close(self) -> None:
        """Nothing is held."""
