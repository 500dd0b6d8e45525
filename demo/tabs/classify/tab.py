"""The Classify tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from demo.api import pictures as api
from demo.benchmark import BATCH_SIZES, MAX_BATCH_SIZE_ON_CPU
from demo.charts import costs as cost_charts
from demo.charts import published as paper_charts
from demo.page.examples import Gallery
from demo.page.first_models import connect_first_models
from demo.registry import ModelSpec
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.classify.handlers import EMPTY_PREDICTIONS, ClassifyHandlers
from demo.tabs.image_tab import ImageParts, connect_image_tab
from demo.tabs.parts import by_name, connect_download, download_button, heading, notices, on_change
from demo.tabs.pickers import ModelPicker, connect_pair, model_picker, picture_input
from demo.views.token_view import cluster_view

EMPTY_BENCHMARK = (
    '<p class="placeholder">Both models run in turns on the same pixels, in the same precision. Latency of one image '
    "and throughput of a batch are measured apart.</p>"
)


@dataclass(frozen=True)
class Parts(ImageParts):
    """The components that events connect."""

    fallback: gr.HTML
    model: ModelPicker
    baseline: ModelPicker
    predictions: gr.HTML
    clusters: gr.HTML
    breakdown: gr.HTML
    request: gr.HTML
    save_picture: gr.Button
    save_json: gr.Button
    kept: gr.State
    batch_size: gr.Dropdown


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    first = runtime.registry.pair(runtime.registry.first("classify"))
    handlers = ClassifyHandlers(runtime, Gallery.load("classify"))
    parts = _lay_out(runtime, first, handlers.gallery)
    api.build(runtime, parts.picture, parts.batch_size)  # first, for their names
    chosen = [parts.model.setting, parts.baseline.setting]
    shown = ("predictions", "clusters", "request", "save_picture", "save_json", "kept")
    connect_image_tab(parts, handlers, chosen, shown, parts.predictions, [parts.batch_size])
    connect_download(parts.save_picture, handlers.picture_file, [parts.kept])
    connect_download(parts.save_json, handlers.json_file, [parts.kept])
    connect_pair(runtime.registry, parts.model, parts.baseline)
    on_change(chosen, by_name(parts, handlers.break_down), chosen, parts.breakdown, **AT_ONCE)
    on_change(chosen, by_name(parts, handlers.introduce), chosen, [parts.about, parts.examples], **AT_ONCE)
    connect_first_models(runtime.registry, parts.fallback, first, (parts.model, parts.baseline))


def _lay_out(runtime: Runtime, first: tuple[ModelSpec, ModelSpec], gallery: Gallery) -> Parts:
    on_gpu, registry = runtime.predictors.device.type == "cuda", runtime.registry
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input("picture")
            examples = gallery.component("examples", picture)
            model = model_picker(registry, "Model", first[0], "model")
            baseline = model_picker(registry, "Compared with", first[1], "baseline")
            run = gr.Button("Classify", variant="primary", elem_id="run")
        with gr.Column(elem_classes="results"):
            fallback = notices("fallback")
            notice = notices("notice")
            predictions = gr.HTML(EMPTY_PREDICTIONS, elem_id="predictions", apply_default_css=False)
            about = notices("about")
            heading("What each token stands for", "Regions by attention; or tokens kept, dropped, fused, merged")
            clusters = cluster_view()
            with gr.Row(elem_classes="downloads"):
                save_picture = download_button("Annotated picture (JPEG)")
                save_json = download_button("Result (JSON)")
    heading("Where the multiply-adds go", "Layer by layer, for one image; no picture and no weights needed")
    breakdown = gr.HTML(cost_charts.breakdown(*first), elem_id="breakdown", apply_default_css=False)
    heading("What it saves", "Measured here and now; the models' time and the whole request apart")
    request = notices("request")
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
    benchmark = gr.HTML(EMPTY_BENCHMARK, elem_id="race", apply_default_css=False)
    heading("Accuracy against cost", "What the papers print for every method, and what was measured with this code")
    gr.HTML(paper_charts.section(registry), elem_id="published", apply_default_css=False)
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
        fallback=fallback,
        model=model,
        baseline=baseline,
        predictions=predictions,
        clusters=clusters,
        breakdown=breakdown,
        request=request,
        save_picture=save_picture,
        save_json=save_json,
        kept=gr.State(None),
        batch_size=batch_size,
    )
