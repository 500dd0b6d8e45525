"""Between the browser and the engine: what the Classify tab sends is checked, run, and turned into what it shows."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import gradio as gr

from demo.answers import StageTimes
from demo.benchmark import BadBatchSize, RaceState, SameModel, check_batch_size
from demo.charts import bars
from demo.charts import comparison as charts
from demo.charts import costs as cost_charts
from demo.engine import ClassifyRun
from demo.export import annotated_picture, classification_json, display_copy
from demo.page.about import about, fallback_notice
from demo.page.examples import Gallery
from demo.page.published_weights import OfficialWeights
from demo.registry import ModelSpec, UnknownModel
from demo.runtime import Runtime
from demo.tabs.loading import labels, load_models, without_weights
from demo.tabs.pairs import bundled_pair, lists_of_both
from demo.tabs.parts import no_file, offered_file
from demo.views.token_view import cluster_payload
from stvit.predict.media import MediaError
from stvit.predict.regions import last_region_layer

RANDOM_WEIGHTS_NOTE = "Random weights: the regions show how the mechanism works, not what training taught it."
ARCHITECTURE_ONLY = (
    "It is built to the paper and given random weights: its structure, speed and multiply-adds are real, the regions "
    "show only how the mechanism works."
)
CHOOSE_FIRST = "Choose a picture first: both models are measured on its pixels."
EMPTY_PREDICTIONS = '<p class="placeholder">Choose a picture, and both models say what they see.</p>'


class ClassifyHandlers:
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime, gallery: Gallery, official: OfficialWeights) -> None:
        self.engine = runtime.engine
        self.registry = runtime.registry
        self.gallery = gallery
        self.official = official
        self.runtime = runtime

    def begin(self, model: str, baseline: str) -> tuple[Any, ...]:
        """When the page opens: where the weights of its first models cannot be had, this project's own models take
        their places, with a notice; else everything stays."""
        pair = bundled_pair(self.registry)
        if pair is None or (model, baseline) != self.official.names or self.official.at_hand():
            return "", *(gr.skip(),) * 6
        return fallback_notice(pair), *lists_of_both(self.registry, pair)

    def introduce(self, model: str, baseline: str) -> tuple[str, str]:
        """What there is to say of the models, and examples that fit them."""
        chosen = self._checked_pair(model, baseline)
        return about(chosen), self.gallery.shown(garments=any(spec.bundled for spec in chosen))

    def load(self, path: str | None, model: str, baseline: str, retry: bool = False) -> Iterator[str]:
        """Bring both models into memory, with a notice on the progress; so no download falls into a timed request."""
        if path is None:
            yield ""
            return
        pair = self._checked_pair(model, baseline)
        yield from load_models(self.engine.store, pair, retry)
        yield self._weights_notice(*pair)

    def load_again(self, path: str | None, model: str, baseline: str) -> Iterator[str]:
        """Like ``load``, and tries anew to get weights that were not to be had."""
        yield from self.load(path, model, baseline, retry=True)

    def classify(self, path: str | None, model: str, baseline: str) -> tuple[Any, ...]:
        """Everything that the tab shows about one picture."""
        if path is None:
            return _cleared()
        pair = self._checked_pair(model, baseline)
        try:
            run = self.runtime.classify_file(path, *pair)
        except MediaError as error:
            return _cleared(bars.notice(str(error), "error"))
        notice = self._weights_notice(*pair) or bars.notice(run.picture.source.note)
        return _shown(run, pair, notice)

    def compare(
        self, path: str | None, model: str, baseline: str, batch_size: int
    ) -> Iterator[tuple[str, RaceState | None]]:
        """A comparison under way, drawn anew at every step."""
        if path is None:
            yield bars.notice(CHOOSE_FIRST, "warning"), None
            return
        pair = self._checked_pair(model, baseline)
        try:
            for state in self.runtime.race_file(path, *pair, check_batch_size(batch_size)):
                yield charts.comparison(state), state
        except (MediaError, BadBatchSize, SameModel) as error:
            yield bars.notice(str(error), "error"), None

    def break_down(self, model: str, baseline: str) -> str:
        """Where the multiply-adds of both models go."""
        return cost_charts.breakdown(*self._checked_pair(model, baseline))

    def _weights_notice(self, *specs: ModelSpec) -> str:
        """Why some models predict nothing, in one sentence; beneath it the next step and what works all the same."""
        none, missing = without_weights(self.engine.store, specs)
        notices = ""
        if none:
            notices += bars.notice(f"No predictions from {labels(none)}: {none[0].problem}", "info", ARCHITECTURE_ONLY)
        if missing:
            notices += bars.notice(
                f"No predictions from {labels(missing)}: {missing[0].problem}",
                "warning",
                f"{missing[0].next_step} Press Classify to try again. Regions, timing and multiply-adds are still "
                "shown, on the same architecture with random weights.",
            )
        return notices

    def _checked_pair(self, model: object, baseline: object) -> tuple[ModelSpec, ModelSpec]:
        try:
            return self.registry.find(model, "classify"), self.registry.find(baseline, "classify")
        except UnknownModel as error:
            raise gr.Error(str(error), print_exception=False) from error


def _cleared(notice: str = "") -> tuple[Any, ...]:
    return notice, EMPTY_PREDICTIONS, None, "", no_file(), no_file()


def _shown(run: ClassifyRun, pair: tuple[ModelSpec, ModelSpec], notice: str) -> tuple[Any, ...]:
    start = time.perf_counter()
    predictions = charts.predictions(pair, (run.model, run.baseline))
    panel_ms = (time.perf_counter() - start) * 1e3
    pixels, geometry = display_copy(run)
    _, drawn = run.drawn
    note = "" if drawn.predictions else RANDOM_WEIGHTS_NOTE
    label = pair[0 if drawn is run.model else 1].label
    payload = cluster_payload(pixels, geometry, drawn.regions, label, note)
    picture = annotated_picture(pixels, geometry, last_region_layer(drawn.regions)) if drawn.regions else None
    draw_ms = (time.perf_counter() - start) * 1e3
    decoding = run.picture.decode_ms, run.picture.preprocess_ms
    times = (
        StageTimes(*decoding, run.model.model_ms, draw_ms),
        StageTimes(*decoding, run.baseline.model_ms, panel_ms),
    )
    return (
        notice,
        predictions,
        payload,
        charts.request_times(pair, times),
        offered_file("tokens.jpg", picture) if picture else no_file(),
        offered_file("result.json", json.dumps(classification_json(run, times), indent=1).encode()),
    )
