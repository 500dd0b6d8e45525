"""Check what the browser sends to the Detect tab, run it, and turn the result into what the tab shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr

from demo.benchmark import BenchmarkState
from demo.charts import dense as charts
from demo.charts.bars import notice
from demo.charts.found import found_objects
from demo.errors import told
from demo.export import coco_json, for_display, objects_picture
from demo.file_names import file_stem
from demo.page.about import about
from demo.page.gradio_private import kept_file
from demo.predictors import DetectRun, check_short_side
from demo.registry import ModelSpec
from demo.tabs.image_tab import GARMENTS_WANTED, RANDOM_WEIGHTS_NOTE, ImageHandlers
from demo.tabs.parts import Fields, weights_notice
from demo.tabs.pickers import drop_words
from demo.views.dense_view import detect_payload
from stvit.detection import Detections
from stvit.detection.detections import SHOWN_SCORE
from stvit.predict.media import read_image


@dataclass(frozen=True)
class Kept:
    """What the downloads of one run are made of: the picture's path, the objects, the names of their classes, and the
    beginning of the names of the files."""

    path: str
    found: Detections
    classes: Sequence[str]
    file: str


def wanted(detector: ModelSpec) -> str:
    """What to drop for a detector, in words."""
    return GARMENTS_WANTED if detector.bundled else "a photo"


class DetectHandlers(ImageHandlers):
    """The event handlers of one page."""

    choose_first = "Choose a picture first: both backbones are measured on it."

    def models(self, detector: str, short_side: int) -> tuple[ModelSpec, ...]:
        check_short_side(short_side)
        return self.with_twin(self.registry.find(detector, "detect"))

    def pair(self, detector: str, short_side: int) -> tuple[ModelSpec, ModelSpec]:
        return self.registry.pair(self.models(detector, short_side)[0])

    def run_file(self, engine: str | None, path: str, detector: str, short_side: int) -> list[DetectRun]:
        specs = self.models(detector, short_side)
        return [self.runtime.detect_file(path, spec, short_side, engine) for spec in specs]

    def measure(self, engine: str | None, path: str, detector: str, short_side: int) -> Iterator[BenchmarkState]:
        return self.runtime.benchmark_backbones(path, *self.pair(detector, short_side), short_side, engine)

    def chart(self, state: BenchmarkState) -> str:
        return charts.backbones(state)

    def weights_notice(self, specs: Sequence[ModelSpec]) -> str:
        return weights_notice(self.model_cache, [spec for spec in specs if spec.has_weights], "detections", "")

    @told
    def introduce(self, detector: str) -> Fields:
        """The card of a bundled detector, examples that fit it, what to drop, and the list of sizes where they are a
        choice."""
        spec = self.registry.find(detector, "detect")
        bundled = spec.bundled is not None
        return {
            "about": about([spec]),
            "examples": self.gallery.shown(garments=bundled),
            "short_side": gr.Dropdown(visible=not bundled),
            "picture": gr.update(placeholder=drop_words(wanted(spec))),
        }

    def cleared(self, message: str = "") -> Fields:
        return {
            "notice": message,
            "detections": None,
            "twin": None,
            "answers": "",
            "steps": "",
            "save_picture": gr.Button(interactive=False),
            "save_coco": gr.Button(interactive=False),
            "kept": None,
        }

    def shown(self, path: str, runs: Sequence[DetectRun], specs: Sequence[ModelSpec]) -> Fields:
        start = time.perf_counter()
        run, titles = runs[0], [spec.label for spec in specs]
        files = [file_stem([spec], "detect") for spec in specs]
        found, pixels = run.result.found, for_display(run.source.pixels)
        payload = detect_payload(pixels, run.result, "" if found else RANDOM_WEIGHTS_NOTE, titles[0], files[0])
        draw_ms = (time.perf_counter() - start) * 1e3
        result = replace(run.result, times=replace(run.result.times, draw_ms=draw_ms))
        twin = [
            detect_payload(pixels, other.result, "", titles[1], files[1])
            for other in runs[1:]
            if other.result.found is not None
        ]
        results, noun = [each.result for each in runs], "garment" if specs[0].bundled else "object"
        return {
            "notice": self.weights_notice(specs) + _run_notices(run),
            "detections": payload,
            "twin": next(iter(twin), None),
            "answers": found_objects(specs, results, self.gallery.truth_of(path), noun),
            "steps": charts.detection_steps(specs[0], result),
            "save_picture": gr.Button(interactive=found is not None),
            "save_coco": gr.Button(interactive=found is not None),
            "kept": None if found is None else Kept(path, found, result.classes, files[0]),
        }

    @staticmethod
    @told
    def picture_file(kept: Kept) -> str:
        """The picture with the likely objects on it, as JPEG."""
        likely = kept.found.select(kept.found.scores >= SHOWN_SCORE)
        drawn = objects_picture(read_image(kept.path).pixels, likely, kept.classes)
        return kept_file(f"{kept.file}-objects.jpg", drawn)

    @staticmethod
    def coco_file(kept: Kept) -> str:
        """All objects in COCO's format."""
        coco = coco_json(kept.found, "picture.jpg", kept.classes)
        return kept_file(f"{kept.file}-coco.json", json.dumps(coco, indent=1).encode())


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
