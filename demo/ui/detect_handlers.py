"""Between the browser and the engine: what the Detect tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr

from demo import detect_charts
from demo.bars import notice
from demo.coco import coco_json
from demo.detection import BadSize, DetectRun, check_short_side
from demo.drawing import SCORE_SHOWN, draw_objects
from demo.export import for_display, jpeg_bytes
from demo.media import MediaError
from demo.memory import OutOfMemory
from demo.race import RaceState
from demo.roster import DETECTORS, ModelChoice, UnknownModel, find, full_token_peer
from demo.ui.classify_handlers import RANDOM_WEIGHTS_NOTE
from demo.ui.detect_view import detect_payload
from demo.ui.inputs import Example, chosen_example
from demo.ui.loading import labels, load_models, without_weights
from demo.ui.parts import no_file, offered_file
from demo.ui.runtime import Runtime

CHOOSE_FIRST = "Choose a picture first: both backbones are measured on it."
STILL_SHOWN = "Press Detect to try again. Token regions, timing and multiply-adds are still shown, with random weights."


class DetectHandlers:
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime, examples: Sequence[Example]) -> None:
        self.runtime = runtime
        self.store = runtime.engine.store
        self.examples = examples

    def choose_example(self, event: gr.EventData) -> str:
        """The path of an example, from the index that the browser sent."""
        return str(chosen_example(self.examples, event).path)

    def load(self, path: str | None, detector: str, short_side: int, retry: bool = False) -> Iterator[str]:
        """Bring the detector into memory, with a notice on the progress."""
        choice, _ = _checked(detector, short_side)
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
        choice, _ = _checked(detector, short_side)
        if path is not None:
            yield from load_models(self.store, [choice, full_token_peer(choice)])
        yield self._weights_notice(choice) if path is not None else ""

    def detect(self, path: str | None, detector: str, short_side: int) -> tuple[Any, ...]:
        """Everything that the tab shows about one picture."""
        choice, short_side = _checked(detector, short_side)
        if path is None:
            return _cleared()
        try:
            run = self.runtime.detect_file(path, choice.name, short_side)
        except (MediaError, OutOfMemory) as error:
            return _cleared(notice(str(error), "error"))
        return _shown(run, self._weights_notice(choice) + _run_notices(run))

    def compare(self, path: str | None, detector: str, short_side: int) -> Iterator[tuple[str, RaceState | None]]:
        """A comparison of both backbones under way, drawn anew at every step."""
        choice, short_side = _checked(detector, short_side)
        if path is None:
            yield notice(CHOOSE_FIRST, "warning"), None
            return
        try:
            for state in self.runtime.race_backbones(path, choice.name, short_side):
                yield detect_charts.backbones(state), state
        except (MediaError, OutOfMemory) as error:
            yield notice(str(error), "error"), None

    def _weights_notice(self, choice: ModelChoice) -> str:
        _, missing = without_weights(self.store, [choice.name])
        if not missing:
            return ""
        reason = f"No detections from {labels(missing)}: {missing[0].problem}"
        return notice(reason, "warning", f"{missing[0].next_step} {STILL_SHOWN}")


def _checked(detector: object, short_side: object) -> tuple[ModelChoice, int]:
    try:
        return find(detector, DETECTORS), check_short_side(short_side)
    except (UnknownModel, BadSize) as error:
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


def _shown(run: DetectRun, message: str) -> tuple[Any, ...]:
    start = time.perf_counter()
    found, pixels = run.result.found, run.source.pixels
    coco = coco_json(found, "picture.jpg") if found is not None else {"annotations": []}
    note = RANDOM_WEIGHTS_NOTE if found is None else ""
    payload = detect_payload(for_display(pixels), run.result, [entry["area"] for entry in coco["annotations"]], note)
    picture = None if found is None else jpeg_bytes(draw_objects(pixels, found.select(found.scores >= SCORE_SHOWN)))
    draw_ms = (time.perf_counter() - start) * 1e3
    result = replace(run.result, times=replace(run.result.times, draw_ms=draw_ms))
    return (
        message,
        payload,
        detect_charts.step_times(result),
        offered_file("objects.jpg", picture) if picture else no_file(),
        offered_file("coco.json", json.dumps(coco, indent=1).encode()) if found is not None else no_file(),
    )
