"""The Classify tab: its components and what happens when they are used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from demo.race import BATCH_SIZES, MAX_BATCH_SIZE_ON_CPU
from demo.roster import BASELINES, MODELS
from demo.ui import api
from demo.ui.classify_handlers import EMPTY_PREDICTIONS, ClassifyHandlers
from demo.ui.cluster_view import cluster_view
from demo.ui.inputs import Example, example_gallery, load_examples, model_picker, picture_input
from demo.ui.runtime import DEVICE_QUEUE, LOADING_QUEUE, Runtime

EMPTY_RACE = (
    '<p class="placeholder">Both models run in turns on the same pixels, in the same precision. Latency of one image '
    "and throughput of a batch are measured apart.</p>"
)


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    picture: gr.Image
    examples: gr.HTML
    model: gr.Dropdown
    baseline: gr.Dropdown
    run: gr.Button
    notice: gr.HTML
    predictions: gr.HTML
    clusters: gr.HTML
    request: gr.HTML
    download_picture: gr.DownloadButton
    download_json: gr.DownloadButton
    batch_size: gr.Dropdown
    compare: gr.Button
    cancel: gr.Button
    race: gr.HTML
    race_state: gr.State


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    examples = load_examples()
    parts = _lay_out(runtime.engine.device.type == "cuda", examples)
    handlers = ClassifyHandlers(runtime, examples)
    api.build(runtime, parts.picture, parts.model, parts.baseline, parts.batch_size)  # first, for their names
    _connect_classification(parts, handlers)
    _connect_comparison(parts, handlers)


def _lay_out(on_gpu: bool, examples: Sequence[Example]) -> Parts:
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input()
            gallery = example_gallery(examples)
            model = model_picker("Model", MODELS, "model")
            baseline = model_picker("Full-token baseline", BASELINES, "baseline")
            run = gr.Button("Classify", variant="primary", elem_id="run")
        with gr.Column(elem_classes="results"):
            notice = gr.HTML(elem_id="notice", apply_default_css=False)
            predictions = gr.HTML(EMPTY_PREDICTIONS, elem_id="predictions", apply_default_css=False)
            _heading("What each token stands for", "Regions by attention, drawn on the source pixels")
            clusters = cluster_view()
            with gr.Row(elem_classes="downloads"):
                download_picture = gr.DownloadButton("Annotated picture (JPEG)", size="sm", interactive=False)
                download_json = gr.DownloadButton("Result (JSON)", size="sm", interactive=False)
    _heading("What it saves", "Measured here and now; the models' time and the whole request apart")
    request = gr.HTML(elem_id="request", apply_default_css=False)
    with gr.Row(elem_classes="race-controls"):
        batch_size = gr.Dropdown(
            [size for size in BATCH_SIZES if on_gpu or size <= MAX_BATCH_SIZE_ON_CPU],
            value=64 if on_gpu else 8,
            label="Batch size for throughput",
            elem_id="batch-size",
            filterable=False,
        )
        compare = gr.Button("Run the comparison", variant="primary", elem_id="compare")
        cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
    race = gr.HTML(EMPTY_RACE, elem_id="race", apply_default_css=False)
    return Parts(
        picture=picture,
        examples=gallery,
        model=model,
        baseline=baseline,
        run=run,
        notice=notice,
        predictions=predictions,
        clusters=clusters,
        request=request,
        download_picture=download_picture,
        download_json=download_json,
        batch_size=batch_size,
        compare=compare,
        cancel=cancel,
        race=race,
        race_state=gr.State(None),
    )


def _heading(title: str, subtitle: str) -> None:
    gr.HTML(f'<div class="section-head"><h2>{title}</h2><p>{subtitle}</p></div>', apply_default_css=False)


def _connect_classification(parts: Parts, handlers: ClassifyHandlers) -> None:
    pick = [parts.picture, parts.model, parts.baseline]
    outputs = [
        parts.notice,
        parts.predictions,
        parts.clusters,
        parts.request,
        parts.download_picture,
        parts.download_json,
    ]
    loading = {"inputs": pick, "outputs": parts.notice, "api_visibility": "private", "show_progress": "hidden"}
    chosen = gr.on(
        [parts.picture.change, parts.model.input, parts.baseline.input],
        handlers.load,
        trigger_mode="always_last",
        **loading,
        **LOADING_QUEUE,
    )
    pressed = parts.run.click(handlers.load_again, **loading, **LOADING_QUEUE)
    for event in (chosen, pressed):
        event.success(
            handlers.classify,
            pick,
            outputs,
            api_visibility="private",
            show_progress_on=parts.predictions,
            **DEVICE_QUEUE,
        )
    parts.examples.pick(handlers.choose_example, None, parts.picture, api_visibility="private", queue=False)


def _connect_comparison(parts: Parts, handlers: ClassifyHandlers) -> None:
    pick = [parts.picture, parts.model, parts.baseline]
    buttons = [parts.compare, parts.cancel]
    quiet = {"api_visibility": "private", "show_progress": "hidden"}
    started = parts.compare.click(handlers.race_started, None, buttons, queue=False, **quiet)
    loaded = started.then(handlers.load, pick, parts.notice, **quiet, **LOADING_QUEUE)
    racing = loaded.success(
        handlers.compare, [*pick, parts.batch_size], [parts.race, parts.race_state], **quiet, **DEVICE_QUEUE
    )
    other_wishes = [parts.picture.change, parts.model.input, parts.baseline.input, parts.run.click]
    stopped = gr.on([parts.cancel.click, *other_wishes], None, cancels=[loaded, racing], api_visibility="private")
    for over in (racing.then, racing.failure, loaded.failure, stopped.then):  # a failure does not count as an end
        over(handlers.race_ended, parts.race_state, [*buttons, parts.race], queue=False, **quiet)
