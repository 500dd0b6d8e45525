"""Check what the browser sends to the Classify tab, run it, and turn the result into what the tab shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import gradio as gr

from demo.answers import StageTimes
from demo.benchmark import BenchmarkState
from demo.charts import classify as charts
from demo.charts import costs as cost_charts
from demo.charts.bars import notice
from demo.errors import told
from demo.export import annotated_picture, classification_json, display_copy, for_display
from demo.page.about import about
from demo.page.gradio_private import kept_file
from demo.predictors import ClassifyRun
from demo.registry import ModelSpec
from demo.tabs.image_tab import RANDOM_WEIGHTS_NOTE, ImageHandlers
from demo.tabs.parts import Fields, weights_notice
from demo.views.token_view import cluster_payload
from stvit.predict.media import read_image
from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import TokenRegions, most_coherent

ARCHITECTURE_ONLY = (
    "It is built to the paper and given random weights: its structure, speed and multiply-adds are real, the regions "
    "show only how the mechanism works."
)
STILL_SHOWN = (
    "Press Classify to try again. Regions, timing and multiply-adds are still shown, on the same architecture with "
    "random weights."
)
EMPTY_PREDICTIONS = '<p class="placeholder">Choose a picture, and both models say what they see.</p>'


@dataclass(frozen=True)
class Kept:
    """What the downloads of one run are made of.

    Attributes:
        path: of the picture.
        geometry: from the drawn model's input to the picture as it is shown.
        regions: what is drawn; ``None`` where both models keep all their tokens.
        document: the result as JSON.
    """

    path: str
    geometry: InputGeometry
    regions: TokenRegions | None
    document: str


class ClassifyHandlers(ImageHandlers):
    """The event handlers of one page."""

    choose_first = "Choose a picture first: both models are measured on its pixels."

    def models(self, model: str, baseline: str, batch_size: int = 0) -> tuple[ModelSpec, ModelSpec]:
        return self.registry.find(model, "classify"), self.registry.find(baseline, "classify")

    pair = models

    def run_file(self, path: str, model: str, baseline: str) -> ClassifyRun:
        return self.runtime.classify_file(path, *self.models(model, baseline))

    def measure(self, path: str, model: str, baseline: str, batch_size: int) -> Iterator[BenchmarkState]:
        return self.runtime.benchmark_classifiers(path, *self.pair(model, baseline), batch_size)

    def chart(self, state: BenchmarkState) -> str:
        return charts.comparison(state)

    def weights_notice(self, specs: Sequence[ModelSpec]) -> str:
        return weights_notice(self.model_cache, specs, "predictions", ARCHITECTURE_ONLY, STILL_SHOWN)

    @told
    def introduce(self, model: str, baseline: str) -> Fields:
        """The cards of bundled models, and examples that fit the models."""
        specs = self.models(model, baseline)
        examples = self.gallery.shown(garments=any(spec.bundled for spec in specs))
        return {"about": about(specs), "examples": examples}

    @told
    def break_down(self, model: str, baseline: str) -> Fields:
        """Where the multiply-adds of both models go."""
        return {"breakdown": cost_charts.breakdown(*self.models(model, baseline))}

    def cleared(self, message: str = "") -> Fields:
        return {
            "notice": message,
            "predictions": EMPTY_PREDICTIONS,
            "clusters": None,
            "request": "",
            "save_picture": gr.Button(interactive=False),
            "save_json": gr.Button(interactive=False),
            "kept": None,
        }

    def shown(self, path: str, run: ClassifyRun, specs: Sequence[ModelSpec]) -> Fields:
        start = time.perf_counter()
        truth = next((known.name for known in self.gallery.truth_of(path)), "")
        predictions = charts.predictions(specs, (run.model, run.baseline), truth)
        panel_ms = (time.perf_counter() - start) * 1e3
        pixels, geometry = display_copy(run)
        _, drawn = run.drawn
        note = "" if drawn.predictions else RANDOM_WEIGHTS_NOTE
        label = specs[0 if drawn is run.model else 1].label
        payload = cluster_payload(pixels, geometry, drawn.regions, label, note, untrained=not drawn.predictions)
        draw_ms = (time.perf_counter() - start) * 1e3
        decoding = run.picture.decode_ms, run.picture.preprocess_ms
        times = (
            StageTimes(*decoding, run.model.model_ms, draw_ms),
            StageTimes(*decoding, run.baseline.model_ms, panel_ms),
        )
        regions = most_coherent(drawn.regions)
        document = json.dumps(classification_json(run, times), indent=1)
        return {
            "notice": self.weights_notice(specs) or notice(run.picture.source.note),
            "predictions": predictions,
            "clusters": payload,
            "request": charts.request_times(specs, times, (run.model.engine, run.baseline.engine)),
            "save_picture": gr.Button(interactive=regions is not None),
            "save_json": gr.Button(interactive=True),
            "kept": Kept(path, geometry, regions, document),
        }

    @staticmethod
    @told
    def picture_file(kept: Kept) -> str:
        """The picture with the regions on it, as JPEG."""
        pixels = for_display(read_image(kept.path).pixels)
        return kept_file("tokens.jpg", annotated_picture(pixels, kept.geometry, kept.regions))

    @staticmethod
    def json_file(kept: Kept) -> str:
        """The whole result as JSON."""
        return kept_file("result.json", kept.document.encode())
