"""Small parts that every tab has."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from demo.runtime import DEVICE_QUEUE, LOADING_QUEUE


def heading(title: str, subtitle: str) -> None:
    """A heading across the page, with a line beneath it."""
    gr.HTML(
        f'<div class="section-head"><h2>{escape(title)}</h2><p>{escape(subtitle)}</p></div>', apply_default_css=False
    )


def notices(elem_id: str | None = None, words: str | None = None) -> gr.HTML:
    """A place for a few words, as HTML; it takes no room while it is empty."""
    return gr.HTML(words, elem_id=elem_id, elem_classes="notices", apply_default_css=False)


def no_file() -> gr.DownloadButton:
    """A button with nothing to download."""
    return gr.DownloadButton(value=None, interactive=False)


def offered_file(name: str, content: bytes) -> gr.DownloadButton:
    """A button for a file in Gradio's cache, which is cleared on schedule."""
    return gr.DownloadButton(value=save_bytes_to_cache(content, name, get_upload_folder()), interactive=True)


def on_change(parts: Sequence[Component], handler: Callable[..., Any], *places: Any, **settings: Any) -> Dependency:
    """Call a handler when one of several values changes; what was chosen last is what it ends with.

    Gradio puts a call off while the one before is under way, and then repeats the *event*, with all that hangs on it.
    Two handlers on one event that put each other off would go on for ever; so the event itself, which never waits, is
    nothing but the cause of one that is the handler's alone.

    Args:
        places, settings: of the handler, as Gradio's events take them.
    """
    changed = gr.on(
        [part.change for part in parts], None, js="() => {}", trigger_mode="multiple", api_visibility="private"
    )
    return changed.then(handler, *places, trigger_mode="always_last", **settings)


def connect_run(
    wishes: Sequence[Component],
    button: gr.Button,
    *,
    load: Callable[..., Any],
    load_again: Callable[..., Any],
    notice: gr.HTML,
    run: Callable[..., Any],
    outputs: Sequence[Component],
    progress_on: Component,
) -> None:
    """Bring models into memory, then run them: when a wish changes, or the button is pressed.

    Args:
        wishes: inputs of all handlers.
        button: the button.
        load: handler that brings the models into memory, with notices on the way.
        load_again: the same after the button, which tries anew to get what could not be had.
        notice: where the notices go.
        run: handler of the run.
        outputs: its outputs.
        progress_on: the output that shows that it is under way.
    """
    # Gradio drops a success event that falls into a run under way, and with it the wish that came last
    running = {"api_visibility": "private", "show_progress_on": progress_on, "trigger_mode": "always_last"}
    loading = {"inputs": list(wishes), "outputs": notice, "api_visibility": "private", "show_progress": "hidden"}
    chosen = on_change(wishes, load, **loading, **LOADING_QUEUE)
    pressed = button.click(load_again, **loading, **LOADING_QUEUE)
    for event in (chosen, pressed):
        event.success(run, list(wishes), list(outputs), **running, **DEVICE_QUEUE)
