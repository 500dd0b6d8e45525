"""Between the browser and the engine: what the Segment tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from demo.benchmark import RaceState
from demo.charts import segment as segment_charts
from demo.charts.bars import notice
from demo.engine import SegmentRun
from demo.export import classes_picture, for_display, indexed_png
from demo.memory import OutOfMemory
from demo.page.about import about
from demo.page.examples import Gallery
from demo.registry import ModelSpec, Registry, UnknownModel
from demo.runtime import Runtime
from demo.tabs.classify.handlers import RANDOM_WEIGHTS_NOTE
from demo.tabs.loading import load_models, missing_weights
from demo.tabs.parts import no_file, offered_file
from demo.views.segment_view import segment_payload
from stvit.draw.classes import class_colours
from stvit.predict.media import MediaError

CHOOSE_FIRST = "Choose a picture first: both segmenters are measured on it."
STILL_SHOWN = (
    "Press Segment to try again. Token regions, timing and multiply-adds are still shown, with random weights."
)


def segmenter_list(registry: Registry) -> list[tuple[str, str]]:
    """Labels and names of the segmenters on offer."""
    return [(spec.label, spec.name) for spec in registry.of_task("segment")]


class SegmentHandlers:
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime, gallery: Gallery) -> None:
        self.runtime = runtime
        self.registry = runtime.registry
        self.store = runtime.engine.store
        self.gallery = gallery

    def introduce(self, segmenter: str) -> str:
        """What there is to say of a segmenter."""
        return about([self._checked(segmenter)])

    def load(self, path: str | None, segmenter: str, retry: bool = False) -> Iterator[str]:
        """Bring the segmenter into memory, with a notice on the progress."""
        choice = self._checked(segmenter)
        if path is not None:
            yield from load_models(self.store, [choice], retry)
        yield self._weights_notice(choice) if path is not None else ""

    def load_again(self, path: str | None, segmenter: str) -> Iterator[str]:
        """Like ``load``, and tries anew to get weights that were not to be had."""
        yield from self.load(path, segmenter, retry=True)

    def load_both(self, path: str | None, segmenter: str) -> Iterator[str]:
        """Bring the segmenter and its peer into memory."""
        choice = self._checked(segmenter)
        if path is not None:
            yield from load_models(self.store, self._checked_pair(choice))
        yield self._weights_notice(choice) if path is not None else ""

    def segment(self, path: str | None, segmenter: str) -> tuple[Any, ...]:
        """Everything that the tab shows about one picture."""
        choice = self._checked(segmenter)
        if path is None:
            return _cleared()
        try:
            run = self.runtime.segment_file(path, choice)
        except (MediaError, OutOfMemory) as error:
            return _cleared(notice(str(error), "error"))
        return _shown(choice, run, self._weights_notice(choice) + run_notices(run))

    def compare(self, path: str | None, segmenter: str) -> Iterator[tuple[str, RaceState | None]]:
        """A comparison of both segmenters under way, drawn anew at every step."""
        choice = self._checked(segmenter)
        if path is None:
            yield notice(CHOOSE_FIRST, "warning"), None
            return
        try:
            for state in self.runtime.race_segmenters(path, *self._checked_pair(choice)):
                yield segment_charts.segmenters(state), state
        except (MediaError, OutOfMemory) as error:
            yield notice(str(error), "error"), None

    def _weights_notice(self, choice: ModelSpec) -> str:
        return missing_weights(self.store, choice, "classes", STILL_SHOWN)

    def _checked(self, segmenter: object) -> ModelSpec:
        try:
            return self.registry.find(segmenter, "segment")
        except UnknownModel as error:
            raise gr.Error(str(error), print_exception=False) from error

    def _checked_pair(self, segmenter: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
        try:
            return self.registry.pair(segmenter)
        except UnknownModel as error:
            raise gr.Error(str(error), print_exception=False) from error


def run_notices(run: SegmentRun) -> str:
    """What a visitor should know about how a picture was read and labelled."""
    notices, longest = notice(run.source.note), max(run.source.pixels.shape[:2])
    if run.result.labelled_side < longest:
        notices += notice(
            f"The device had not enough memory for a map of {longest} pixels: classes were found in one of "
            f"{run.result.labelled_side}, so their edges are coarser.",
            "warning",
        )
    return notices


def _cleared(message: str = "") -> tuple[Any, ...]:
    return message, None, "", no_file(), no_file()


def _shown(segmenter: ModelSpec, run: SegmentRun, message: str) -> tuple[Any, ...]:
    start = time.perf_counter()
    result, pixels = run.result, run.source.pixels
    payload = segment_payload(for_display(pixels), result, RANDOM_WEIGHTS_NOTE if result.labels is None else "")
    if result.labels is None:
        files = no_file(), no_file()
    else:
        picture = classes_picture(pixels, result.labels, result.classes)
        labels = indexed_png(result.labels, class_colours(len(result.classes)))
        files = offered_file("classes.jpg", picture), offered_file("labels.png", labels)
    draw_ms = (time.perf_counter() - start) * 1e3
    timed = replace(result, times=replace(result.times, draw_ms=draw_ms))
    return message, payload, segment_charts.step_times(segmenter, timed), *files
