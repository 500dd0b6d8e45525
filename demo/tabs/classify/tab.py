"""The Classify tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import gradio as gr
from gradio.components import Component

from demo.api import pictures as api
from demo.benchmark import BATCH_SIZES, MAX_BATCH_SIZE_ON_CPU
from demo.charts import costs as cost_charts
from demo.charts import story as stories
from demo.page.about import about as about_models
from demo.page.examples import Gallery
from demo.page.gradio_private import current_page
from demo.page.links import LinkTarget
from demo.registry import ModelSpec, Registry
from demo.runtime import AT_ONCE, Runtime
from demo.space.lent_models import on_zero_gpu
from demo.tabs.classify.handlers import ClassifyHandlers, wanted
from demo.tabs.image_tab import ImageParts, connect_image_tab
from demo.tabs.parts import (
    by_name,
    connect_download,
    download_button,
    models_panel,
    notices,
    on_change,
    read_aloud,
)
from demo.tabs.pickers import ModelPicker, connect_pair, lists_of, model_picker, picture_input
from demo.views.token_view import cluster_view

EMPTY_BENCHMARK = '<p class="placeholder">Both models in turns, on the same pixels: which one is faster here?</p>'


@dataclass(frozen=True)
class Parts(ImageParts):
    """The components that events connect."""

    story: gr.HTML
    model: ModelPicker
    baseline: ModelPicker
    any_photo: gr.Button
    predictions: gr.HTML
    squares: gr.HTML
    clusters: gr.HTML
    breakdown: gr.HTML
    request: gr.HTML
    save_card: gr.Button
    save_picture: gr.Button
    save_json: gr.Button
    kept: gr.State
    batch_size: gr.Dropdown


def build(runtime: Runtime, engine: Component) -> LinkTarget:
    """Lay the tab out and connect it; call inside a ``gr.Tab``. ``engine`` holds the name of what runs all. Returns
    what an address can set in it."""
    handlers = ClassifyHandlers(runtime, Gallery.load("classify"))
    solved = handlers.solved
    first = solved.specs if solved else runtime.registry.pair(runtime.registry.first("classify"))
    parts = _lay_out(runtime, first, handlers)
    api.build(runtime, [size for _, size in parts.batch_size.choices])  # first, for their names
    chosen = [parts.model.setting, parts.baseline.setting]
    shown = ("predictions", "squares", "clusters", "request", "save_card", "save_picture", "save_json", "kept")
    connect_image_tab(
        parts, handlers, engine, chosen, shown, parts.predictions, [parts.batch_size], by_itself=not on_zero_gpu()
    )
    connect_download(parts.save_card, handlers.card_file, [parts.kept, parts.benchmark_state])
    connect_download(parts.save_picture, handlers.picture_file, [parts.kept])
    connect_download(parts.save_json, handlers.json_file, [parts.kept])
    connect_pair(runtime.registry, parts.model, parts.baseline)
    on_change(chosen, by_name(parts, handlers.break_down), chosen, [parts.breakdown, parts.story], **AT_ONCE)
    on_change(
        chosen, by_name(parts, handlers.introduce), chosen, [parts.about, parts.examples, parts.picture], **AT_ONCE
    )
    parts.benchmark_state.change(
        by_name(parts, handlers.tell), [parts.benchmark_state, *chosen], parts.story, **AT_ONCE
    )
    lists = [*parts.model.lists, *parts.baseline.lists]
    set_pair = partial(_pair_lists, runtime.registry)
    parts.any_photo.click(partial(set_pair, runtime.registry.first("classify")), None, lists, **AT_ONCE)
    if handlers.first_comparison:
        opened = current_page().load(handlers.wait_for_first_speed, None, None, **AT_ONCE)
        by_then, measured = [parts.benchmark_state, *chosen], [parts.story, parts.benchmark, parts.benchmark_state]
        opened.then(by_name(parts, handlers.first_speed), by_then, measured, **AT_ONCE)
    return LinkTarget("classify", lists, set_pair, parts.picture, handlers.gallery)


def _pair_lists(registry: Registry, model: ModelSpec) -> tuple[gr.Dropdown, ...]:
    """Set the lists of both sides to a model and what it is compared with."""
    pair = model, registry.counterpart(model) or model
    return tuple(part for spec in pair for part in lists_of(registry, spec))


def _lay_out(runtime: Runtime, first: tuple[ModelSpec, ModelSpec], handlers: ClassifyHandlers) -> Parts:
    on_gpu, registry, opening = runtime.predictors.device.type == "cuda", runtime.registry, handlers.opening()
    own = first[0].bundled is not None
    story = read_aloud("story", stories.headline(*first), None)
    with gr.Row(elem_classes="workspace with-answers"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input("picture", handlers.solved and str(handlers.solved.path), wanted(first))
            examples = handlers.gallery.component("examples", picture, garments=own)
            with models_panel():
                model = model_picker(registry, "Model", first[0], "model")
                baseline = model_picker(registry, "Compared with", first[1], "baseline")
                any_photo = gr.Button(
                    "Models for any photo", size="sm", elem_id="any-photo", visible=own and registry.hub
                )
                run = gr.Button("Classify again", variant="primary", elem_id="run")
        with gr.Column(elem_classes="results tokens-column"):
            notice = read_aloud("notice", opening["notice"], retries="run")
            with gr.Row(elem_classes="before-after"):
                squares = gr.HTML(opening["squares"], elem_id="squares", apply_default_css=False)
                clusters = cluster_view(opening["clusters"])
            with gr.Row(elem_classes="downloads"):
                save_card = download_button("Save as card", opening["kept"])
                save_picture = download_button("Tokens (JPEG)", opening["kept"])
                save_json = download_button("Result (JSON)", opening["kept"])
            request = notices("request")
        with gr.Column(elem_classes="results answers-column"):
            predictions = read_aloud("predictions", opening["predictions"], None)
        with gr.Column(elem_classes="results costs-column"):
            breakdown = gr.HTML(cost_charts.breakdown(*first), elem_id="breakdown", apply_default_css=False)
            with gr.Row(elem_classes="race-controls"):
                compare = gr.Button("Run the comparison", elem_id="compare")
                cancel = gr.Button("Cancel", interactive=False, elem_id="cancel")
                batch_size = gr.Dropdown(
                    [size for size in BATCH_SIZES if on_gpu or size <= MAX_BATCH_SIZE_ON_CPU],
                    value=64 if on_gpu else 8,
                    label="Batch size",
                    elem_id="batch-size",
                    filterable=False,
                )
            benchmark = gr.HTML(EMPTY_BENCHMARK, elem_id="race", apply_default_css=False)
    about = notices("about", about_models(first))
    return Parts(
        picture=picture,
        examples=examples,
        about=about,
        notice=notice,
        run=run,
        compare=compare,
        cancel=cancel,
        benchmark=benchmark,
        benchmark_state=gr.State(None),
        story=story,
        model=model,
        baseline=baseline,
        any_photo=any_photo,
        predictions=predictions,
        squares=squares,
        clusters=clusters,
        breakdown=breakdown,
        request=request,
        save_card=save_card,
        save_picture=save_picture,
        save_json=save_json,
        kept=gr.State(opening["kept"]),
        batch_size=batch_size,
    )
