"""Comparisons under way, of any tab: drawn at every step, stopped and ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.benchmark import BenchmarkState
from demo.charts.bars import notice
from demo.errors import user_errors
from demo.tabs.parts import Fields
from stvit.errors import UserError


class Comparisons(ABC):
    """Event handlers of a tab with the parts of :func:`comparison_parts`."""

    @abstractmethod
    def chart(self, state: BenchmarkState) -> str:
        """Draw a measurement, as HTML."""

    def drawn(self, measure: Callable[..., Iterator[BenchmarkState]], *chosen: Any) -> Iterator[Fields]:
        """Draw the comparison ``measure(*chosen)`` again at every step; what went wrong is said in its place."""
        try:
            with user_errors():
                for state in measure(*chosen):
                    yield {"benchmark": self.chart(state), "benchmark_state": state}
        except UserError as error:
            yield {"benchmark": notice(str(error), "error"), "benchmark_state": None}

    def ended(self, state: BenchmarkState | None) -> Fields:
        """Buttons back; what was measured before a stop stays, and is called incomplete."""
        fields = {"compare": gr.Button(interactive=True), "cancel": gr.Button(interactive=False)}
        if state is not None and not state.done:
            fields["benchmark"] = self.chart(replace(state, stage="Stopped: incomplete"))
        return fields


def started() -> Fields:
    """Buttons while a comparison is under way."""
    return {"compare": gr.Button(interactive=False), "cancel": gr.Button(interactive=True)}


def comparison_parts(what: str, empty: str) -> dict[str, Component]:
    """Lay out a comparison: two buttons, then the chart; returns these parts by their names.

    Args:
        what: is compared, the chart's id too, e.g. ``"backbones"``.
        empty: shown in place of a chart at first, HTML.
    """
    with gr.Row(elem_classes="race-controls"):
        compare = gr.Button(f"Compare the {what}", variant="primary", elem_id=f"compare-{what}")
        cancel = gr.Button("Cancel", interactive=False, elem_id=f"cancel-{what}")
    benchmark = gr.HTML(empty, elem_id=what, apply_default_css=False)
    return {"compare": compare, "cancel": cancel, "benchmark": benchmark, "benchmark_state": gr.State(None)}
