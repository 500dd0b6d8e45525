"""Comparisons under way, of any tab: drawn at every step, stopped and ended."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from demo.benchmark import BenchmarkState
from demo.charts.bars import notice
from demo.errors import user_errors
from demo.runtime import AT_ONCE
from demo.tabs.parts import Fields, by_name, on_change
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


def connect_begin(parts: object) -> Dependency:
    """Connect the button that asks for a comparison; returns the event that its first step follows."""
    return parts.compare.click(by_name(parts, started), None, [parts.compare, parts.cancel], **AT_ONCE)


def connect_forgetting(parts: object, when: Sequence[Component]) -> None:
    """Let a comparison go when one of several values changes that it was made with."""
    nothing = {"benchmark": parts.benchmark.value, "benchmark_state": None}
    forgotten = [parts.benchmark, parts.benchmark_state]
    on_change(when, by_name(parts, lambda: nothing), None, forgotten, **AT_ONCE)


def connect_ends(
    parts: object,
    handlers: Comparisons,
    steps: Sequence[Dependency],
    overtaken_by: Sequence[Callable[..., Dependency]],
    by_themselves: Sequence[Dependency] = (),
) -> None:
    """Connect how a comparison is stopped and what follows however it ends.

    Args:
        parts: holds those of :func:`comparison_parts` under their names.
        steps: of a comparison that was asked for, in order; the last one measures.
        overtaken_by: events that stop it, as the button does, e.g. ``picture.change``.
        by_themselves: comparisons that nobody asked for, stopped by the same.
    """
    stopping = [parts.cancel.click, *overtaken_by]
    stopped = gr.on(stopping, None, cancels=[*steps, *by_themselves], api_visibility="private")
    ended, changed = by_name(parts, handlers.ended), [parts.compare, parts.cancel, parts.benchmark]
    for over in (steps[-1].then, *(step.failure for step in steps), stopped.then):  # a failure does not count as an end
        over(ended, parts.benchmark_state, changed, **AT_ONCE)


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
