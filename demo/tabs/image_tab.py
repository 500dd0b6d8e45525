"""The part that the three tabs for pictures share: load models, run them on a picture, measure two in turns."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from demo.benchmark import BenchmarkState
from demo.charts.bars import notice
from demo.errors import told, user_errors
from demo.page.examples import Gallery
from demo.page.gradio_private import current_page
from demo.registry import ModelSpec
from demo.runtime import (
    COMPARISON_QUEUE,
    DEVICE_QUEUE,
    LOADING_QUEUE,
    SHORT_QUEUE,
    VIDEO_QUEUE,
    Runtime,
)
from demo.service.queues import is_used
from demo.tabs.comparing import Comparisons, connect_begin, connect_ends, connect_forgetting
from demo.tabs.parts import Fields, by_name, load_models, on_change, scroll_to_results
from stvit.errors import UserError
from stvit.predict.turns import VISITORS, in_lane

PATIENCE, PAUSE_S = 50, 0.1  # how often, and after how long, a comparison that nobody asked for looks for its turn
GAVE_WAY = "Stopped: somebody else is waiting"
GARMENTS_WANTED = "a picture of garments"  # for detectors and segmenters that know nothing else
RANDOM_WEIGHTS_NOTE = "Random weights: the regions show how the mechanism works, not what training taught it."


@dataclass(frozen=True)
class ImageParts:
    """The components that such a tab has beside its own: ``run`` starts a run, ``compare`` a measurement."""

    picture: gr.Image
    examples: gr.HTML
    about: gr.HTML
    notice: gr.HTML
    run: gr.Button
    compare: gr.Button
    cancel: gr.Button
    benchmark: gr.HTML
    benchmark_state: gr.State


class ImageHandlers(Comparisons):
    """The event handlers that such a tab has beside its own. Values of a tab's inputs are the name of the engine, where
    something runs, the path of the picture, then ``chosen``: what was chosen beside it.

    Attributes:
        choose_first: what is said when a comparison is asked for without a picture.
    """

    choose_first: str

    def __init__(self, runtime: Runtime, gallery: Gallery) -> None:
        self.runtime, self.gallery = runtime, gallery
        self.registry, self.model_cache = runtime.registry, runtime.predictors.model_cache
        self._page, self._comparing = current_page(), Lock()

    # What each tab defines

    @abstractmethod
    def models(self, *chosen: Any) -> Sequence[ModelSpec]:
        """Find the models that a run needs.

        Raises:
            UserError: something that is not offered was chosen.
        """

    @abstractmethod
    def pair(self, *chosen: Any) -> tuple[ModelSpec, ModelSpec]:
        """Find the models to compare; raises as ``models`` does, and where there is nothing to compare with."""

    @abstractmethod
    def run_file(self, engine: str | None, path: str, *chosen: Any) -> Any:
        """Run the models on a picture.

        Raises:
            UserError: the picture cannot be read, the device has no room, or there is no such engine.
        """

    @abstractmethod
    def shown(self, path: str, run: Any, specs: Sequence[ModelSpec]) -> Fields:
        """Show a run: values of all parts that it changes."""

    @abstractmethod
    def cleared(self, message: str = "") -> Fields:
        """Show no result."""

    @abstractmethod
    def measure(self, engine: str | None, path: str, *chosen: Any) -> Iterator[BenchmarkState]:
        """Measure a pair on a picture; raises as ``run_file`` does."""

    def measure_shortly(self, engine: str | None, path: str, *chosen: Any) -> Iterator[BenchmarkState]:
        """Measure a pair for some two seconds; for tabs whose comparison runs by itself."""
        raise NotImplementedError

    @abstractmethod
    def weights_notice(self, specs: Sequence[ModelSpec]) -> str:
        """Say why some models predict nothing, as HTML; empty where all have their weights."""

    # What is the same in all

    def with_twin(self, spec: ModelSpec) -> tuple[ModelSpec, ...]:
        """Add the full-token network that a model is made from, where it has weights to answer with."""
        twin = None if spec.method.full_tokens else self.registry.counterpart(spec)
        return (spec,) if twin is None or not twin.has_weights else (spec, twin)

    @told
    def load(self, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Bring the models of a run into memory, with notices on the progress."""
        yield from self._load(path, self.models(*chosen), retry=False)

    @told
    def load_again(self, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Like ``load``, and try again to get weights that were out of reach."""
        yield from self._load(path, self.models(*chosen), retry=True)

    @told
    def load_pair(self, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Bring both models of a comparison into memory, with notices on the progress."""
        yield from self._load(path, self.pair(*chosen), retry=False)

    def _load(self, path: str | None, specs: Sequence[ModelSpec], retry: bool) -> Iterator[Fields]:
        if path is not None:
            for words in load_models(self.model_cache, specs, retry):
                yield {"notice": words}
        yield {"notice": self.weights_notice(specs) if path is not None else ""}

    @told
    def run(self, engine: str | None, path: str | None, *chosen: Any) -> Fields:
        """Run the models on the picture, and show all that came of it; what went wrong is said in the tab."""
        specs = self.models(*chosen)
        if path is None:
            return self.cleared()
        try:
            with user_errors(), in_lane(VISITORS):
                run = self.run_file(engine, path, *chosen)
        except UserError as error:
            return self.cleared(notice(str(error), "error"))
        return self.shown(path, run, specs)

    @told
    def compare(self, engine: str | None, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Measure both models, drawn again at every step."""
        self.pair(*chosen)
        if path is None:
            yield {"benchmark": notice(self.choose_first, "warning"), "benchmark_state": None}
            return
        yield from self.drawn(self.measure, engine, path, *chosen)

    @told
    def compare_by_itself(self, engine: str | None, path: str | None, *chosen: Any) -> Iterator[Fields]:
        """Measure both models shortly, once nobody else wants the device, and until somebody does."""
        nothing = {"benchmark": gr.skip(), "benchmark_state": gr.skip()}
        model, baseline = self.pair(*chosen)
        yield nothing
        if path is None or model == baseline:
            return
        for _ in range(PATIENCE):
            if not self._others() and self._comparing.acquire(blocking=False):
                break
            time.sleep(PAUSE_S)
            yield nothing  # here it can be cancelled
        else:
            return
        try:
            with user_errors(), closing(self.measure_shortly(engine, path, *chosen)) as states:
                for state in states:
                    if self._others():
                        yield {**nothing, "benchmark": self.chart(replace(state, stage=GAVE_WAY))}
                        return
                    yield {"benchmark": self.chart(state), "benchmark_state": state}
        except UserError:  # nobody asked for it
            yield nothing
        finally:
            self._comparing.release()

    def _others(self) -> bool:
        """Whether a call of the page uses the device or waits for it, beside this comparison."""
        used = (entry["concurrency_id"] for entry in (DEVICE_QUEUE, COMPARISON_QUEUE, VIDEO_QUEUE))
        return self._page is not None and is_used(self._page._queue, *used)


def connect_image_tab(
    parts: ImageParts,
    handlers: ImageHandlers,
    engine: Component,
    chosen: Sequence[Component],
    outputs: Sequence[str],
    progress_on: Component,
    compared: Sequence[Component] = (),
    by_itself: bool = False,
) -> None:
    """Connect what the tabs for pictures have in common: models are loaded, then run, when the picture or a choice
    changes or the button is pressed; and compared until that is done, cancelled, or overtaken by another wish, which
    also clears what was measured before.

    Args:
        engine: holds the name of the engine; another is like another choice.
        chosen: inputs of the handlers after the picture.
        outputs: names of the parts that a run changes, beside the notice.
        progress_on: the part that shows that a run is under way.
        compared: further inputs of a comparison.
        by_itself: whether a short comparison follows every answer; another picture or choice ends it, and a comparison
            that is asked for.
    """
    wishes = [parts.picture, *chosen]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    loading = {"inputs": wishes, "outputs": parts.notice, **quiet, **LOADING_QUEUE}
    # Gradio drops a success event that falls into a run under way, and with it the wish that came last
    running = {"api_visibility": "private", "show_progress_on": progress_on, "trigger_mode": "always_last"}
    shown = [parts.notice, *(getattr(parts, name) for name in outputs)]
    loaded = on_change([*wishes, engine], by_name(parts, handlers.load), **loading)
    pressed = parts.run.click(by_name(parts, handlers.load_again), **loading)
    answers: list[Dependency] = []
    for event in (loaded, pressed):
        answered = event.success(by_name(parts, handlers.run), [engine, *wishes], shown, **running, **DEVICE_QUEUE)
        answered.then(None, parts.picture, None, js=scroll_to_results(progress_on), api_visibility="private")
        answers.append(answered)

    begun = connect_begin(parts)
    loaded = begun.then(by_name(parts, handlers.load_pair), **loading)
    benchmark = [parts.benchmark, parts.benchmark_state]
    measured = loaded.success(
        by_name(parts, handlers.compare), [engine, *wishes, *compared], benchmark, **quiet, **COMPARISON_QUEUE
    )
    short: list[Dependency] = []
    if by_itself:
        following = {**quiet, "trigger_mode": "always_last", **SHORT_QUEUE}
        comparing = by_name(parts, handlers.compare_by_itself)
        short = [answered.success(comparing, [engine, *wishes], benchmark, **following) for answered in answers]
        parts.compare.click(None, None, None, cancels=short, api_visibility="private")
    others = [*(part.change for part in (*wishes, engine)), parts.run.click]
    connect_ends(parts, handlers, [loaded, measured], others, short)
    connect_forgetting(parts, chosen if by_itself else wishes)  # of another picture, the next one takes its place
