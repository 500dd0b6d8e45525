"""Bring your own: any architecture of timm that can be sparsified, beside its sparsified copy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.benchmark import BATCH_SIZES, MAX_BATCH_SIZE_ON_CPU, BenchmarkState
from demo.charts import classify as charts
from demo.charts.bars import notice
from demo.errors import told
from demo.own import DEFAULT, DEFAULT_POSITION, DEFAULT_TOKENS, Architecture, look_up, millions, own_pair
from demo.page.gradio_private import ModelList, current_tab
from demo.runtime import AT_ONCE, COMPARISON_QUEUE, Runtime
from demo.tabs.comparing import Comparisons, comparison_parts, connect_begin, connect_ends
from demo.tabs.parts import Fields, by_name, heading, on_change, read_aloud
from stvit.errors import UserError
from stvit.sparsify.architectures import architectures

ABOUT = (
    "Any vision transformer of timm, as it is and with semantic tokens in its later layers: its structure alone, with "
    "random weights, which take as long as trained ones."
)
EMPTY = '<p class="placeholder">Both networks in turns: how much faster do semantic tokens make yours?</p>'


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    architecture: ModelList
    tokens: gr.Number
    position: gr.Number
    batch_size: gr.Dropdown
    about: gr.HTML
    compare: gr.Button
    cancel: gr.Button
    benchmark: gr.HTML
    benchmark_state: gr.State


class OwnHandlers(Comparisons):
    """The event handlers of one page."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    def opened(self, name: str | None) -> Fields:
        """List the architectures, which the document does not hold, and describe the one that is chosen."""
        return {"architecture": gr.Dropdown(choices=list(architectures())), "about": self.described(name)["about"]}

    def described(self, name: str | None) -> Fields:
        """Say what an architecture costs and what can be chosen, or why it is not measured; set the position by the
        rule."""
        try:
            found = look_up(name)
        except UserError as error:
            return {"about": notice(str(error), "warning"), "position": gr.skip()}
        return {"about": f'<p class="fine">{escape(words_on(found))}</p>', "position": found.position}

    @told
    def compare(self, engine: str | None, *chosen: Any) -> Iterator[Fields]:
        """Measure both networks, drawn again at every step; ``chosen`` as of :meth:`measure`."""
        yield from self.drawn(self.measure, engine, *chosen)

    def measure(
        self, engine: str | None, name: str | None, tokens: int | None, position: int | None, batch_size: int
    ) -> Iterator[BenchmarkState]:
        """Measure an architecture with semantic tokens and as it is.

        Raises:
            UserError: it is not measured here, or not with these settings.
        """
        return self.runtime.benchmark_own(*own_pair(name, tokens, position), batch_size, engine)

    def chart(self, state: BenchmarkState) -> str:
        return charts.comparison(state)


def words_on(found: Architecture) -> str:
    """Say what an architecture costs, and which tokens and positions fit."""
    _, height, width = found.input_shape
    each, layers = (" in each window", "layers of stage 3") if found.windows else ("", "layers")
    return (
        f"{millions(found.parameters)} parameters, {found.macs / 1e9:.2f} G multiply-adds for {height} × {width} "
        f"pixels. Semantic tokens: a square number up to {found.most_tokens}{each}. By the rule they come after "
        f"{found.position} of its {found.depth} {layers}."
    )


def build(runtime: Runtime, engine: Component) -> None:
    """Lay the section out and connect it; call inside a ``gr.Tab``."""
    handlers, parts = OwnHandlers(runtime), _lay_out(runtime)
    chosen = [parts.architecture, parts.tokens, parts.position, parts.batch_size]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    current_tab().select(
        by_name(parts, handlers.opened), parts.architecture, [parts.architecture, parts.about], **AT_ONCE
    )
    described = [parts.about, parts.position]
    on_change([parts.architecture], by_name(parts, handlers.described), parts.architecture, described, **AT_ONCE)
    begun = connect_begin(parts)
    compare, benchmark = by_name(parts, handlers.compare), [parts.benchmark, parts.benchmark_state]
    measured = begun.then(compare, [engine, *chosen], benchmark, **quiet, **COMPARISON_QUEUE)
    connect_ends(parts, handlers, [measured], [part.change for part in (engine, *chosen)])


def _lay_out(runtime: Runtime) -> Parts:
    on_gpu = runtime.predictors.device.type == "cuda"
    sizes = [size for size in BATCH_SIZES if on_gpu or size <= MAX_BATCH_SIZE_ON_CPU]
    heading("Bring your own", ABOUT)
    with gr.Row(elem_classes="race-controls"):
        architecture = ModelList([DEFAULT], value=DEFAULT, label="Architecture", elem_id="own-architecture")
        tokens = gr.Number(DEFAULT_TOKENS, label="Semantic tokens", precision=0, elem_id="own-tokens")
        position = gr.Number(DEFAULT_POSITION, label="After how many layers", precision=0, elem_id="own-position")
        batch_size = gr.Dropdown(sizes, value=1, label="Images at a time", elem_id="own-batch", filterable=False)
    about = read_aloud("own-about", "", None)
    return Parts(architecture, tokens, position, batch_size, about, **comparison_parts("networks", EMPTY))
