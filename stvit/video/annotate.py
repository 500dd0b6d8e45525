"""Follows one model's results over the frames of a clip, draws them, and gives them as plain values."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from stvit.detection import Detections
from stvit.detection.detections import SHOWN_SCORE
from stvit.draw.canvas import Canvas, put_text
from stvit.draw.objects import draw_objects, object_colours, object_names
from stvit.draw.regions import draw_regions
from stvit.trace import Fate

from .tracks import ObjectTracker, RegionTracker
from .types import FrameResult, Labelled, Window

_MEMORY = 0.9  # of the running speed, from frame to frame
OUT_OF_SCOPE = "not one of the classes that it knows"  # drawn in place of the best class


@dataclass(frozen=True)
class Followed:
    """A result with identities that stay over frames.

    Attributes:
        identities: of the regions, (h, w) int16.
        colours: of the identities, (N, 3) uint8 RGB.
        numbers: of the objects, (N,); 0 for none.
        frames_per_second: the running speed of the model, or of ``result.paced_part``.
        fate, fused: of the image tokens, as ``draw_regions`` takes them.
    """

    result: FrameResult
    identities: np.ndarray | None
    colours: np.ndarray | None
    numbers: np.ndarray | None
    frames_per_second: float
    fate: Fate | None = None
    fused: bool = False

    def only_drawn(self) -> Followed:
        """Keep what the drawing needs alone: masks of half the precision, and of the regions the identities."""
        result, (found, numbers) = self.result, self.shown()
        if found is not None:
            found = replace(found, mask_probabilities=found.mask_probabilities.half())
        return replace(self, result=replace(result, found=found, regions=None), numbers=numbers)

    def shown(self) -> tuple[Detections | None, np.ndarray | None]:
        """Return the objects that are sure enough to be drawn, and their numbers."""
        found = self.result.found
        if found is None:
            return None, None
        sure = found.scores >= SHOWN_SCORE
        return found.select(sure), self.numbers[sure.numpy()]


class Annotator:
    """Follows and draws what one model says.

    Args:
        fps: of the clip.
        text_scale: of the lines on its pictures; by default what suits them.
        with_speed: whether these lines tell the speed.
    """

    def __init__(
        self, model: Labelled, fps: float, text_scale: float | None = None, *, with_speed: bool = True
    ) -> None:
        self._model, self._text_scale, self._with_speed = model, text_scale, with_speed
        self._regions, self._tracker = RegionTracker(), ObjectTracker(fps)
        self._pace_ms: float | None = None
        self._window: Window | None = None  # the latest
        self._scores, self._windows = np.zeros(1), 0  # sum over the whole windows, and their number

    def follow(self, result: FrameResult) -> Followed:
        """Give a result its identities; results come in the order of the frames."""
        before = self._pace_ms
        self._pace_ms = result.pace_ms if before is None else _MEMORY * before + (1 - _MEMORY) * result.pace_ms
        regions, found = result.regions, result.found
        if result.window is not None and result.window is not self._window:
            self._add(result.window)
        identities, colours = self._regions.follow(regions) if regions else (None, None)
        numbers = None if found is None else self._tracker.follow(found)
        fates = {"fate": regions.fate, "fused": regions.kind == "fused"} if regions else {}
        return Followed(result, identities, colours, numbers, 1e3 / self._pace_ms, **fates)

    def _add(self, window: Window) -> None:
        self._window = window
        if window.whole and window.scores is not None:
            self._scores, self._windows = self._scores + window.scores, self._windows + 1

    def draw(self, canvas: Canvas, followed: Followed) -> None:
        """Draw on a picture, which is changed."""
        result = followed.result
        if followed.identities is not None:
            fates = {"fate": followed.fate, "fused": followed.fused}
            draw_regions(canvas, followed.identities, followed.colours, result.regions_xyxy, **fates)
        found, numbers = followed.shown()
        if found is not None:
            colours = object_colours(found.labels.numpy(), numbers)
            draw_objects(canvas, found, colours, object_names(found, result.names, numbers))
        lines = [f"{self._model.label} ({result.engine})", *self._figures(followed)]
        if result.top1 and not result.in_scope:
            lines.append(OUT_OF_SCOPE)
        elif result.top1:
            lines.append(f"{result.top1[0]} {100 * result.top1[1]:.0f} %")
        elif self._model.note:
            lines.append(self._model.note)
        if result.window:
            lines.append(f"frames {result.window.first + 1} to {result.window.last + 1}")
        put_text(canvas, lines, (0, 0), scale=self._text_scale)

    def _figures(self, followed: Followed) -> list[str]:
        """Write speed and cost, with the part of the model that they count."""
        result, macs = followed.result, self._model.macs
        count = f"{macs / 1e6:.3g} million" if macs < 1e9 else f"{macs / 1e9:.3g} billion"
        cost = f"{count} multiply-adds a {'window' if result.window else 'frame'}"
        if result.counted_part:
            cost += f" in the {result.counted_part}"
        speed = f"{result.paced_part} {followed.frames_per_second:.1f} frames/s".lstrip()
        return [speed, cost] if self._with_speed else [cost]

    def record(self, followed: Followed) -> dict[str, Any]:
        """Return a result as plain JSON values; boxes XYXY in pixels of the new clip's frame."""
        result = followed.result
        values: dict[str, Any] = {"model": self._model.label, "model_ms": round(result.model_ms, 2)}
        values["engine"] = result.engine
        if result.top1:
            values["top1"] = {"label": result.top1[0], "probability": round(result.top1[1], 4)}
            values["in_scope"] = result.in_scope
        if result.window:
            window = result.window
            values["window"] = {"first_frame": window.first, "last_frame": window.last, "whole": window.whole}
        if result.regions is not None:
            values["regions"] = {"layer": result.regions.layer, "identities": followed.identities.tolist()}
        if result.found is not None:
            values["objects"] = [
                {
                    "track": int(number) or None,
                    "name": result.names[label],
                    "score": round(score, 4),
                    "box_xyxy": [round(side, 2) for side in box],
                }
                for number, label, score, box in zip(
                    followed.numbers,
                    result.found.labels.tolist(),
                    result.found.scores.tolist(),
                    result.found.boxes.tolist(),
                    strict=True,
                )
                if score >= SHOWN_SCORE
            ]
        return values

    def conclude(self) -> dict[str, Any]:
        """Return a clip model's classes of the whole clip: the mean over its whole windows, or the last one of a clip
        that is shorter than a window. Empty for other models, and without weights."""
        if self._window is None or self._window.scores is None:
            return {}
        mean = replace(self._window, scores=self._scores / self._windows) if self._windows else self._window
        best = [{"label": label, "probability": round(value, 4)} for label, value in mean.ranking()]
        return {"model": self._model.label, "windows": max(self._windows, 1), "top5": best}
