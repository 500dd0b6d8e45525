"""Check what the browser sends to the Classify tab, run it, and turn the result into what the tab shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr
import numpy as np

from demo.answers import ClassifyAnswer, StageTimes
from demo.benchmark import BenchmarkState
from demo.card import Shown, Side, card
from demo.charts import classify as charts
from demo.charts import costs as cost_charts
from demo.charts import story as stories
from demo.charts.bars import notice
from demo.errors import told
from demo.export import annotated_picture, annotated_pixels, classification_json, display_copy, for_display
from demo.file_names import file_stem
from demo.page.about import about
from demo.page.examples import Gallery
from demo.page.gradio_private import address_of, kept_file
from demo.page.links import link_to
from demo.page.solved import FirstComparison, example
from demo.predictors import ClassifyRun
from demo.registry import ModelSpec
from demo.runtime import Runtime
from demo.tabs.image_tab import RANDOM_WEIGHTS_NOTE, ImageHandlers
from demo.tabs.parts import Fields, weights_notice
from demo.tabs.pickers import drop_words
from demo.views.token_view import cluster_payload
from stvit.predict.media import read_image
from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import TokenRegions, most_coherent

ARCHITECTURE_ONLY = (
    "It is built to the paper and given random weights: its structure, speed and multiply-adds are real, the regions "
    "show only how the mechanism works."
)
TOKENS_FILE = "classify tokens"
EMPTY_PREDICTIONS = '<p class="placeholder">Choose a picture, and both models say what they see.</p>'


def wanted(specs: Sequence[ModelSpec]) -> str:
    """What to drop for two models: what both know, in words."""
    classes = next((spec.classes for spec in specs if spec.bundled), None)
    return f"a picture of one garment ({', '.join(classes)})" if classes else "a photo"


@dataclass(frozen=True)
class Kept:
    """What the downloads of one run are made of.

    Attributes:
        path: of the picture.
        geometry: from the drawn model's input to the picture as it is shown.
        regions: what is drawn; ``None`` where both models keep all their tokens.
        drawn: name of the model whose tokens are drawn.
        answers: of both models, without their regions.
        document: the result as JSON.
    """

    path: str
    geometry: InputGeometry
    regions: TokenRegions | None
    drawn: str
    answers: tuple[ClassifyAnswer, ClassifyAnswer]
    document: str


class ClassifyHandlers(ImageHandlers):
    """The event handlers of one page."""

    choose_first = "Choose a picture first: both models are measured on its pixels."

    def __init__(self, runtime: Runtime, gallery: Gallery) -> None:
        super().__init__(runtime, gallery)
        self.solved = example(runtime.registry)
        self.first_comparison = self.solved and FirstComparison(runtime, self.solved)

    def models(self, model: str, baseline: str, batch_size: int = 0) -> tuple[ModelSpec, ModelSpec]:
        return self.registry.find(model, "classify"), self.registry.find(baseline, "classify")

    pair = models

    def run_file(self, engine: str | None, path: str, model: str, baseline: str) -> ClassifyRun:
        return self.runtime.classify_file(path, *self.models(model, baseline), engine)

    def measure(
        self, engine: str | None, path: str, model: str, baseline: str, batch_size: int
    ) -> Iterator[BenchmarkState]:
        return self.runtime.benchmark_classifiers(path, *self.pair(model, baseline), batch_size, engine)

    def measure_shortly(self, engine: str | None, path: str, model: str, baseline: str) -> Iterator[BenchmarkState]:
        return self.runtime.benchmark_classifiers(path, *self.pair(model, baseline), None, engine)

    def chart(self, state: BenchmarkState) -> str:
        return charts.comparison(state)

    def weights_notice(self, specs: Sequence[ModelSpec]) -> str:
        return weights_notice(self.model_cache, specs, "predictions", ARCHITECTURE_ONLY)

    @told
    def introduce(self, model: str, baseline: str) -> Fields:
        """The cards of bundled models, and examples that fit the models."""
        specs = self.models(model, baseline)
        examples = self.gallery.shown(garments=any(spec.bundled for spec in specs))
        return {
            "about": about(specs),
            "examples": examples,
            "picture": gr.update(placeholder=drop_words(wanted(specs))),
        }

    @told
    def break_down(self, model: str, baseline: str) -> Fields:
        """Where the multiply-adds of both models go, and how many fewer they are."""
        specs = self.models(model, baseline)
        return {"breakdown": cost_charts.breakdown(*specs), "story": stories.headline(*specs)}

    @told
    def tell(self, state: BenchmarkState | None, model: str, baseline: str) -> Fields:
        """Say what a comparison found in the line at the top, if it was one of the chosen models."""
        specs = self.models(model, baseline)
        of_these = state is not None and (state.model.spec, state.baseline.spec) == specs
        return {"story": stories.headline(*specs, state if of_these else None)}

    def wait_for_first_speed(self) -> None:
        """Wait for the comparison that begins with the server."""
        self.first_comparison.state()

    def first_speed(self, shown: BenchmarkState | None, model: str, baseline: str) -> Fields:
        """What the comparison that began with the server found; nothing where other models are chosen by now, or
        another comparison is shown."""
        state = self.first_comparison.state(patience_s=0.0)
        if state is None or shown is not None or self.models(model, baseline) != self.solved.specs:
            return {"story": gr.skip()}
        return {
            "story": stories.headline(*self.solved.specs, state),
            "benchmark": self.chart(state),
            "benchmark_state": state,
        }

    def opening(self) -> Fields:
        """What the tab shows at first: the solved example, or no result where its models are not those on offer."""
        if self.solved is None:
            return self.cleared()
        fields = self.shown(str(self.solved.path), self.solved.run, self.solved.specs)
        return {**fields, "request": ""}  # there was no request

    def cleared(self, message: str = "") -> Fields:
        return {
            "notice": message,
            "predictions": EMPTY_PREDICTIONS,
            "squares": "",
            "clusters": None,
            "request": "",
            "save_card": gr.update(interactive=False),
            "save_picture": gr.update(interactive=False),
            "save_json": gr.update(interactive=False),
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
        spec = specs[0 if drawn is run.model else 1]
        file = file_stem([spec], TOKENS_FILE)
        payload = cluster_payload(pixels, geometry, drawn.regions, spec.label, note, not drawn.predictions, file)
        draw_ms = (time.perf_counter() - start) * 1e3
        decoding = run.picture.decode_ms, run.picture.preprocess_ms
        times = (
            StageTimes(*decoding, run.model.model_ms, draw_ms),
            StageTimes(*decoding, run.baseline.model_ms, panel_ms),
        )
        regions = most_coherent(drawn.regions)
        answers = tuple(replace(answer, regions=()) for answer in (run.model, run.baseline))
        document = json.dumps(classification_json(run, times), indent=1)
        return {
            "notice": self.weights_notice(specs) or notice(run.picture.source.note),
            "predictions": predictions,
            "squares": self._squares(pixels, geometry, drawn.regions, specs),
            "clusters": payload,
            "request": charts.request_times(specs, times, (run.model.engine, run.baseline.engine)),
            "save_card": gr.update(interactive=True),
            "save_picture": gr.update(interactive=regions is not None),
            "save_json": gr.update(interactive=True),
            "kept": Kept(path, geometry, regions, drawn.model, answers, document),
        }

    @staticmethod
    def _squares(
        pixels: np.ndarray, geometry: InputGeometry, regions: Sequence[TokenRegions], specs: Sequence[ModelSpec]
    ) -> str:
        full = next((spec.label for spec in reversed(specs) if spec.method.full_tokens), "")
        return stories.squares(pixels, geometry, regions[0].image_grid_hw, full) if regions else ""

    @told
    def card_file(self, request: gr.Request, kept: Kept, state: BenchmarkState | None) -> str:
        """The card to share, as PNG; with the speed where a comparison was of these models."""
        specs = tuple(self.registry.find(answer.model) for answer in kept.answers)
        pixels = for_display(read_image(kept.path).pixels)
        tokens = None if kept.regions is None else annotated_pixels(pixels, kept.geometry, kept.regions)
        untrained = not next(answer.predictions for answer in kept.answers if answer.model == kept.drawn)
        of_these = state is not None and (state.model.spec, state.baseline.spec) == specs
        example = self.gallery.number_of(kept.path, garments=specs[0].bundled is not None)
        address = link_to(address_of(request.request), "classify", specs[0].name, example)
        sides = tuple(map(Side, specs, kept.answers))
        drawn = card(Shown(pixels, tokens, untrained), sides, state if of_these else None, address)
        return kept_file(f"{file_stem(specs[:1], 'classify card')}.png", drawn)

    @told
    def picture_file(self, kept: Kept) -> str:
        """The picture with the regions on it, as JPEG."""
        pixels = for_display(read_image(kept.path).pixels)
        name = file_stem([self.registry.find(kept.drawn)], TOKENS_FILE)
        return kept_file(f"{name}.jpg", annotated_picture(pixels, kept.geometry, kept.regions))

    def json_file(self, kept: Kept) -> str:
        """The whole result as JSON."""
        specs = [self.registry.find(answer.model) for answer in kept.answers]
        return kept_file(f"{file_stem(specs, 'classify')}.json", kept.document.encode())
