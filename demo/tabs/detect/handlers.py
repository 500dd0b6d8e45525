"""Between the browser and the engine: what the Detect tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import gradio as gr

from demo.benchmark import RaceState
from demo.charts import detect as detect_charts
from demo.charts.bars import notice
from demo.detections_json import coco_json
from demo.engine import BadSize, DetectRun, check_short_side
from demo.export import for_display, objects_picture
from demo.memory import OutOfMemory
from demo.page.about import about, fallback_notice
from demo.page.examples import Gallery
from demo.page.published_weights import OfficialWeights
from demo.registry import ModelSpec, Registry, UnknownModel
from demo.runtime import Runtime
from demo.tabs.classify.handlers import RANDOM_WEIGHTS_NOTE
from demo.tabs.loading import load_models, missing_weights
from demo.tabs.parts import no_file, offered_file
from demo.views.detect_view import detect_payload
from stvit.draw.objects import SHOWN_SCORE
from stvit.predict.media import MediaError

CHOOSE_FIRST = "Choose a picture first: both backbones are measured on it."
STILL_SHOWN = "Press Detect to try again. Token regions, timing and multiply-adds are still shown, with random weights."


def detector_list(registry: Registry) -> list[tuple[str, str]]:
    """Labels and names of the detectors on offer; of this project's own, with what they know."""
    return [
        (f"{spec.label} ({len(spec.classes)} garments)" if spec.classes else spec.label, spec.name)
        for spec in registry.of_task("detect")
    ]


class DetectHandlers:
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime, gallery: Gallery, official: OfficialWeights) -> None:
        self.runtime = runtime
        self.registry = runtime.registry
        self.store = runtime.engine.store
        self.gallery = gallery
        self.official = official

    def begin(self, detector: str) -> tuple[str, Any]:
        """When the page opens: where the weights of its first detector cannot be had, one of this project's own takes
        its place, with a notice; else everything stays."""
        own = self.registry.first_bundled("detect")
        if own is None or (detector,) != self.official.names or self.official.at_hand():
            return "", gr.skip()
        return fallback_notice([own]), gr.Dropdown(detector_list(self.registry), value=own.name)

    def introduce(self, detector: str) -> tuple[str, str, gr.Dropdown]:
        """What there is to say of a detector, examples that fit it, and the list of sizes where they are a choice."""
        choice = self._checked_detector(detector)
        bundled = choice.bundled is not None
        return about([choice]), self.gallery.shown(garments=bundled), gr.Dropdown(visible=not bundled)

    def load(self, path: str | None, detector: str, short_side: int, retry: bool = False) -> Iterator[str]:
        """Bring the detector into memory, with a notice on the progress."""
        choice, _ = self._checked(detector, short_side)
        if path is None:
            yield ""
            return
        yield from load_models(self.store, [choice], retry)
        yield self._weights_notice(choice)

    def load_again(self, path: str | None, detector: str, short_side: int) -> Iterator[str]:
        """Like ``load``, and tries anew to get weights that were not to be had."""
        yield from self.load(path, detector, short_side, retry=True)

    def load_both(self, path: str | None, detector: str, short_side: int) -> Iterator[str]:
        """Bring the detector and its full-token peer into memory."""
        choice, _ = self._checked(detector, short_side)
        if path is not None:
            yield from load_models(self.store, self._checked_pair(choice))
        yield self._weights_notice(choice) if path is not None else ""

    def detect(self, path: str | None, detector: str, short_side: int) -> tuple[Any, ...]:
        """Everything that the tab shows about one picture."""
        choice, short_side = self._checked(detector, short_side)
        if path is None:
            return _cleared()
        try:
            run = self.runtime.detect_file(path, choice, short_side)
        except (MediaError, OutOfMemory) as error:
            return _cleared(notice(str(error), "error"))
        return _shown(choice, run, self._weights_notice(choice) + _run_notices(run))

    def compare(self, path: str | None, detector: str, short_side: int) -> Iterator[tuple[str, RaceState | None]]:
        """A comparison of both backbones under way, drawn anew at every step."""
        choice, short_side = self._checked(detector, short_side)
        if path is None:
            yield notice(CHOOSE_FIRST, "warning"), None
            return
        try:
            for state in self.runtime.race_backbones(path, *self._checked_pair(choice), short_side):
                yield detect_charts.backbones(state), state
        except (MediaError, OutOfMemory) as error:
            yield notice(str(error), "error"), None

    def _weights_notice(self, choice: ModelSpec) -> str:
        return missing_weights(self.store, choice, "detections", STILL_SHOWN)

    def _checked(self, detector: object, short_side: object) -> tuple[ModelSpec, int]:
        try:
            return self._checked_detector(detector), check_short_side(short_side)
        except BadSize as error:
            raise gr.Error(str(error), print_exception=False) from error

    def _checked_detector(self, detector: object) -> ModelSpec:
        try:
            return self.registry.find(detector, "detect")
        except UnknownModel as error:
            raise gr.Error(str(error), print_exception=False) from error

    def _checked_pair(self, detector: ModelSpec) -> tuple[ModelSpec, ModelSpec]:
        try:
            return self.registry.pair(detector)
        except UnknownModel as error:
            raise gr.Error(str(error), print_exception=False) from error


def _run_notices(run: DetectRun) -> str:
    result = run.result
    notices = notice(run.source.note)
    if result.short_side < result.asked_short_side:
        notices += notice(
            f"The device had not enough memory for a short side of {result.asked_short_side}: "
            f"this was found at {result.short_side}.",
            "warning",
        )
    return notices


def _cleared(message: str = "") -> tuple[Any, ...]:
    return message, None, "", no_file(), no_file()


def _shown(detector: ModelSpec, run: DetectRun, message: str) -> tuple[Any, ...]:
    start = time.perf_counter()
    found, pixels = run.result.found, run.source.pixels
    classes = run.result.classes
    coco = coco_json(found, "picture.jpg", classes) if found is not None else {"annotations": []}
    note = RANDOM_WEIGHTS_NOTE if found is None else ""
    payload = detect_payload(for_display(pixels), run.result, [entry["area"] for entry in coco["annotations"]], note)
    picture = None if found is None else objects_picture(pixels, found.select(found.scores >= SHOWN_SCORE), classes)
    draw_ms = (time.perf_counter() - start) * 1e3
    result = replace(run.result, times=replace(run.result.times, draw_ms=draw_ms))
    return (
        message,
        payload,
        detect_charts.step_times(detector, result),
        offered_file("objects.jpg", picture) if picture else no_file(),
        offered_file("coco.json", json.dumps(coco, indent=1).encode()) if found is not None else no_file(),
    )
