"""Small parts that every tab has: headings, notices, events, downloads, and models on their way into memory."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from functools import wraps
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from demo.charts.bars import notice
from demo.errors import told
from demo.model_cache import LoadedModel, ModelCache
from demo.page.gradio_private import path_sent
from demo.registry import ModelSpec
from demo.runtime import AT_ONCE
from stvit.errors import UserError

HERE = Path(__file__).resolve().parent
POLL_S = 0.2
SAVE = """(file) => {
    const link = document.createElement("a");
    link.href = file.url;
    link.download = file.orig_name;
    link.click();
}"""

READ_ALOUD = """element.setAttribute("aria-live", "polite");"""
RETRY = """element.addEventListener("click", ({ target }) => {
    if (target.closest(".retry")) document.getElementById("ELEM_ID").click();
});"""

Fields = dict[str, Any]  # new values of components by the names that a tab's ``Parts`` gives them; others stay


def heading(title: str, subtitle: str) -> None:
    """Write a heading across the page, with a line beneath it."""
    gr.HTML(
        f'<div class="section-head"><h2>{escape(title)}</h2><p>{escape(subtitle)}</p></div>', apply_default_css=False
    )


def notices(elem_id: str | None = None, words: str | None = None) -> gr.HTML:
    """Make a place for a few words, as HTML; it takes no room while it is empty."""
    return gr.HTML(words, elem_id=elem_id, elem_classes="notices", apply_default_css=False)


def read_aloud(
    elem_id: str, words: str = "", elem_classes: str | None = "notices", retries: str | None = None
) -> gr.HTML:
    """Make a place for answers or errors, as HTML, which screen readers read when they come.

    Args:
        retries: ``elem_id`` of the button that "Retry" among the words presses.
    """
    script = READ_ALOUD + (RETRY.replace("ELEM_ID", retries) if retries else "")
    return gr.HTML(words, elem_id=elem_id, elem_classes=elem_classes, js_on_load=script, apply_default_css=False)


def take_files(target: Component, accepted: str) -> None:
    """Let an input take a file by its upload icon, a drop or a paste, also in place of the one that it has; what goes
    wrong is said here.

    Args:
        target: a ``gr.Image`` or ``gr.File`` with an ``elem_id``.
        accepted: of files to choose from, as HTML's ``accept``.
    """
    script = (HERE / "take_files.js").read_text(encoding="utf-8")
    taker = gr.HTML(
        "",
        js_on_load=script.replace("ELEM_ID", target.elem_id).replace("ACCEPTED", accepted),
        apply_default_css=False,
        elem_classes="notices",
    )
    taker.pick(path_sent, None, target, **AT_ONCE)


@contextmanager
def models_panel() -> Iterator[None]:
    """Make the place for lists of models, in a column of the class ``inputs`` of a row of the class ``workspace``. On
    a phone it comes after the column ``results``, and is closed until it is opened."""
    with gr.Column(elem_classes="models"):
        gr.HTML(
            '<button type="button" aria-expanded="false">Models and settings</button>',
            js_on_load=(HERE / "models_panel.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_classes="models-toggle",
        )
        yield


def scroll_to_results(of: Component) -> str:
    """Return JavaScript for an event's ``js``: on a phone, bring the column ``results`` that a component is in into
    view. Its only input tells whether there is something to see."""
    script = (HERE / "scroll_to_results.js").read_text(encoding="utf-8")
    return script.replace("ELEM_ID", of.elem_id).strip()


def by_name(parts: object, handler: Callable[..., Fields | Iterator[Fields]]) -> Callable[..., Any]:
    """Let a handler that returns or yields ``Fields`` give Gradio values by component.

    Args:
        parts: holds the components under the names of the fields.
    """

    def of_components(fields: Mapping[str, Any]) -> dict[Component, Any]:
        return {getattr(parts, name): value for name, value in fields.items()}

    if inspect.isgeneratorfunction(handler):

        @wraps(handler)
        def generate(*arguments: Any) -> Iterator[dict[Component, Any]]:
            for fields in handler(*arguments):
                yield of_components(fields)

        return generate

    @wraps(handler)
    def call(*arguments: Any) -> dict[Component, Any]:
        return of_components(handler(*arguments))

    return call


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


def download_button(label: str, ready: object = None) -> gr.Button:
    """Make a button for a file that is written when it is pressed; see :func:`connect_download`.

    Args:
        ready: what the file is made of, where it is there at first.
    """
    return gr.Button(label, size="sm", interactive=ready is not None)


def connect_download(button: gr.Button, make: Callable[..., str], inputs: Sequence[Component]) -> None:
    """Let a press make a file and the browser save it.

    Args:
        make: handler that returns the path of the file; its last part is the name under which it is saved.
        inputs: of the handler, first the state with the result: empty before the first, and in a forgotten session.
    """

    @wraps(make)
    @told
    def make_or_tell(*given: Any) -> str:
        if given[-len(inputs)] is None:  # Gradio may put the request before them
            raise UserError("There is no result to save here, or no longer.", "Run the model on a picture, then save.")
        return make(*given)

    file = gr.File(visible="hidden")
    made = button.click(make_or_tell, list(inputs), file, **AT_ONCE)
    made.success(None, file, None, js=SAVE, api_visibility="private")


def load_models(cache: ModelCache, specs: Sequence[ModelSpec], retry: bool = False) -> Iterator[str]:
    """Bring models into memory; yields a notice on the progress every now and then, so that no download falls into a
    timed request.

    Raises:
        OutOfMemory: the device has no room for one of them.
    """
    for spec in specs:
        if cache.is_ready(spec):
            continue
        done: list[tuple[int, int | None]] = []
        with ThreadPoolExecutor(1) as pool:
            loading = pool.submit(cache.get, spec, lambda *progress, seen=done: seen.append(progress), retry=retry)
            while not loading.done():
                yield _loading_notice(spec.label, *(done[-1] if done else (0, None)))
                wait([loading], POLL_S)
            loading.result()


def weights_notice(cache: ModelCache, specs: Sequence[ModelSpec], what: str, without: str) -> str:
    """Say why some models predict nothing, in one sentence for each reason; empty where all have their weights.

    Args:
        what: is not shown for want of weights, e.g. ``"predictions"``.
        without: what is real all the same, where weights were never published.
    """
    entries = [entry for entry in map(cache.get, dict.fromkeys(specs)) if entry.problem]
    never, gone = ([entry for entry in entries if entry.spec.has_weights is has] for has in (False, True))
    return "".join(
        notice(f"No {what} from {_labels(group)}: {group[0].problem}", kind, detail, retry=group is gone)
        for group, kind, detail in ((never, "info", without), (gone, "warning", ""))
        if group
    )


def _labels(entries: Sequence[LoadedModel]) -> str:
    return " and ".join(entry.spec.label for entry in entries)


def _loading_notice(label: str, done: int, total: int | None) -> str:
    if not done:
        return notice(f"Loading {label}…", "busy")
    megabytes = f"{done / 1e6:.0f} of {total / 1e6:.0f} MB" if total else f"{done / 1e6:.0f} MB"
    return notice(f"Downloading the weights of {label}: {megabytes}", "busy", progress=done / total if total else None)
