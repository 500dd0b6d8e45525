"""The Classify tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.context import Context

from demo.api import classify as api
from demo.benchmark import BATCH_SIZES, MAX_BATCH_SIZE_ON_CPU
from demo.charts import comparison as charts
from demo.charts import costs as cost_charts
from demo.charts import published as paper_charts
from demo.page.examples import Gallery
from demo.page.published_weights import OfficialWeights
from demo.registry import ModelSpec, Registry
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.classify.handlers import EMPTY_PREDICTIONS, ClassifyHandlers
from demo.tabs.comparison import Comparison, connect_comparison
from demo.tabs.inputs import ModelPicker, model_picker, picture_input
from demo.tabs.pairs import connect_pair
from demo.tabs.parts import connect_run, heading, notices, on_change
from demo.views.token_view import cluster_view

EMPTY_RACE = (
    '<p class="placeholder">Both models run in turns on the same pixels, in the same precision. Latency of one image '
    "and throughput of a batch are measured apart.</p>"
)


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    picture: gr.Image
    examples: gr.HTML
    fallback: gr.HTML
    about: gr.HTML
    model: ModelPicker
    baseline: ModelPicker
    run: gr.Button
    notice: gr.HTML
    predictions: gr.HTML
    clusters: gr.HTML
    breakdown: gr.HTML
    request: gr.HTML
    download_picture: gr.DownloadButton
    download_json: gr.DownloadButton
    batch_size: gr.Dropdown
    comparison: Comparison

    @property
    def pick(self) -> list[gr.Image | gr.Dropdown]:
        """The picture and the names of the two models."""
        return [self.picture, self.model.setting, self.baseline.setting]


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    gallery = Gallery.load("classify")
    first = runtime.registry.pair(runtime.registry.first("classify"))
    parts = _lay_out(runtime.engine.device.type == "cuda", runtime.registry, first, gallery)
    handlers = ClassifyHandlers(runtime, gallery, OfficialWeights(first))
    api.build(runtime, parts.picture, parts.batch_size)  # first, for their names
    _connect_classification(parts, handlers)
    _connect_choice(parts, handlers)
    connect_comparison(
        parts.comparison,
        load=handlers.load,
        loaded_from=parts.pick,
        notice=parts.notice,
        run=handlers.compare,
        run_on=[*parts.pick, parts.batch_size],
        draw=charts.comparison,
        other_wishes=[*(part.change for part in parts.pick), parts.run.click],
    )


def _lay_out(on_gpu: bool, registry: Registry, first: tuple[ModelSpec, ModelSpec], gallery: Gallery) -> Parts:
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
                download_picture = gr.DownloadButton("Annotated picture (JPEG)", size="sm", interactive=False)
                download_json = gr.DownloadButton("Result (JSON)", size="sm", interactive=False)
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
    race = gr.HTML(EMPTY_RACE, elem_id="race", apply_default_css=False)
    heading("Accuracy against cost", "What the papers print for every method, and what was measured with this code")
    gr.HTML(paper_charts.section(registry), elem_id="published", apply_default_css=False)
    return Parts(
        picture=picture,
        examples=examples,
        fallback=fallback,
        about=about,
        model=model,
        baseline=baseline,
        run=run,
        notice=notice,
        predictions=predictions,
        clusters=clusters,
        breakdown=breakdown,
        request=request,
        download_picture=download_picture,
        download_json=download_json,
        batch_size=batch_size,
        comparison=Comparison(compare, cancel, race, gr.State(None)),
    )


def _connect_classification(parts: Parts, handlers: ClassifyHandlers) -> None:
    outputs = [
        parts.notice,
        parts.predictions,
        parts.clusters,
        parts.request,
        parts.download_picture,
        parts.download_json,
    ]
    connect_run(
        parts.pick,
        parts.run,
        load=handlers.load,
        load_again=handlers.load_again,
        notice=parts.notice,
        run=handlers.classify,
        outputs=outputs,
        progress_on=parts.predictions,
    )


def _connect_choice(parts: Parts, handlers: ClassifyHandlers) -> None:
    """What needs no picture: lists that follow each other, costs, words on the models, examples that fit them."""
    both = parts.pick[1:]
    connect_pair(handlers.registry, parts.model, parts.baseline)
    for handler, outputs in (
        (handlers.break_down, parts.breakdown),
        (handlers.introduce, [parts.about, parts.examples]),
    ):
        on_change(both, handler, both, outputs, **AT_ONCE)
    lists = [*parts.model.lists, *parts.baseline.lists]
    Context.root_block.load(handlers.begin, both, [parts.fallback, *lists], **AT_ONCE)
