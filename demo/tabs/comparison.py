"""A comparison that runs until it is done, cancelled, or overtaken by another wish; the same in every tab."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from demo.benchmark import RaceState
from demo.runtime import AT_ONCE, DEVICE_QUEUE, LOADING_QUEUE


@dataclass(frozen=True)
class Comparison:
    """Its components."""

    start: gr.Button
    cancel: gr.Button
    chart: gr.HTML
    state: gr.State


def connect_comparison(
    parts: Comparison,
    *,
    load: Callable[..., Any],
    loaded_from: Sequence[Component],
    notice: gr.HTML,
    run: Callable[..., Any],
    run_on: Sequence[Component],
    draw: Callable[[RaceState], str],
    other_wishes: Sequence[Any],
) -> None:
    """Connect the buttons.

    Args:
        parts: the components.
        load: handler that brings the models into memory, with notices on the way.
        loaded_from: its inputs.
        notice: where its notices go.
        run: handler that yields (chart, state) as the measurement goes on.
        run_on: its inputs.
        draw: the chart of a state.
        other_wishes: events that stop the comparison.
    """
    buttons = [parts.start, parts.cancel]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    started = parts.start.click(_started, None, buttons, **AT_ONCE)
    loaded = started.then(load, list(loaded_from), notice, **quiet, **LOADING_QUEUE)
    running = loaded.success(run, list(run_on), [parts.chart, parts.state], **quiet, **DEVICE_QUEUE)
    stopped = gr.on([parts.cancel.click, *other_wishes], None, cancels=[loaded, running], api_visibility="private")
    for over in (running.then, running.failure, loaded.failure, stopped.then):  # a failure does not count as an end
        over(partial(_ended, draw), parts.state, [*buttons, parts.chart], **AT_ONCE)


def _started() -> tuple[gr.Button, gr.Button]:
    return gr.Button(interactive=False), gr.Button(interactive=True)


def _ended(draw: Callable[[RaceState], str], state: RaceState | None) -> tuple[Any, ...]:
    """Buttons back; what was measured before a stop stays, and is called incomplete."""
    shown = gr.skip()
    if state is not None and not state.done:
        shown = draw(replace(state, stage="Stopped: incomplete"))
    return gr.Button(interactive=True), gr.Button(interactive=False), shown
