"""The Detect tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.context import Context

from demo.charts import detect as detect_charts
from demo.engine import SHORT_SIDES
from demo.page.examples import Gallery
from demo.page.published_weights import OfficialWeights
from demo.registry import Registry
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.comparison import Comparison, connect_comparison
from demo.tabs.detect.handlers import DetectHandlers, detector_list
from demo.tabs.inputs import picture_input
from demo.tabs.model_list import RosterList
from demo.tabs.parts import connect_run, heading, notices, on_change
from demo.views.detect_view import detect_view
from stvit.predict.detector import published_scale

SIZE_ON_CPU = 480
EMPTY_RACE = (
    '<p class="placeholder">What the semantic tokens save is saved in the backbone: it and its counterpart run in '
    "turns on the same picture, in the same precision. All that follows is the same in both detectors. The published "
    "full-token Swin detectors have no public weights, so they are measured here, but never shown detecting.</p>"
)


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    picture: gr.Image
    examples: gr.HTML
    fallback: gr.HTML
    about: gr.HTML
    detector: RosterList
    short_side: gr.Dropdown
    run: gr.Button
    notice: gr.HTML
    detections: gr.HTML
    steps: gr.HTML
    download_picture: gr.DownloadButton
    download_coco: gr.DownloadButton
    comparison: Comparison

    @property
    def pick(self) -> list[gr.Image | gr.Dropdown]:
        """The picture, the detector and the size of its input."""
        return [self.picture, self.detector, self.short_side]


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``."""
    gallery = Gallery.load("scene")
    parts = _lay_out(runtime.engine.device.type == "cuda", runtime.registry, gallery)
    handlers = DetectHandlers(runtime, gallery, OfficialWeights([runtime.registry.first("detect")]))
    _connect_detection(parts, handlers)
    _connect_choice(parts, handlers)
    connect_comparison(
        parts.comparison,
        load=handlers.load_both,
        loaded_from=parts.pick,
        notice=parts.notice,
        run=handlers.compare,
        run_on=parts.pick,
        draw=detect_charts.backbones,
        other_wishes=[*(part.change for part in parts.pick), parts.run.click],
    )


def _lay_out(on_gpu: bool, registry: Registry, gallery: Gallery) -> Parts:
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input("detect-picture")
            examples = gallery.component("detect-examples", picture)
            detector = RosterList(
                detector_list(registry),
                value=registry.first("detect").name,
                label="Detector (Cascade Mask R-CNN)",
                elem_id="detector",
                filterable=False,
            )
            short_side = gr.Dropdown(
                [(_size_words(side), side) for side in SHORT_SIDES],
                value=SHORT_SIDES[0] if on_gpu else SIZE_ON_CPU,
                label="Input size: short and long side at most",
                elem_id="short-side",
                filterable=False,
            )
            run = gr.Button("Detect", variant="primary", elem_id="detect")
        with gr.Column(elem_classes="results"):
            fallback = notices("detect-fallback")
            notice = notices("detect-notice")
            detections = detect_view()
            with gr.Row(elem_classes="downloads"):
                download_picture = gr.DownloadButton(
                    "Annotated picture, at least 50 % (JPEG)", size="sm", interactive=False
                )
                download_coco = gr.DownloadButton("All objects (COCO JSON)", size="sm", interactive=False)
            about = notices("detect-about")
            steps = notices("steps")
    heading("What it saves", "The two backbones, measured here and now on this picture")
    with gr.Row(elem_classes="race-controls"):
        compare = gr.Button("Compare the backbones", variant="primary", elem_id="compare-backbones")
        cancel = gr.Button("Cancel", interactive=False, elem_id="cancel-backbones")
    race = gr.HTML(EMPTY_RACE, elem_id="backbones", apply_default_css=False)
    return Parts(
        picture=picture,
        examples=examples,
        fallback=fallback,
        about=about,
        detector=detector,
        short_side=short_side,
        run=run,
        notice=notice,
        detections=detections,
        steps=steps,
        download_picture=download_picture,
        download_coco=download_coco,
        comparison=Comparison(compare, cancel, race, gr.State(None)),
    )


def _size_words(short_side: int) -> str:
    long, short = published_scale(short_side)
    return f"{short} × {long}, as published" if short_side == SHORT_SIDES[0] else f"{short} × {long}"


def _connect_detection(parts: Parts, handlers: DetectHandlers) -> None:
    outputs = [parts.notice, parts.detections, parts.steps, parts.download_picture, parts.download_coco]
    connect_run(
        parts.pick,
        parts.run,
        load=handlers.load,
        load_again=handlers.load_again,
        notice=parts.notice,
        run=handlers.detect,
        outputs=outputs,
        progress_on=parts.detections,
    )


def _connect_choice(parts: Parts, handlers: DetectHandlers) -> None:
    """What needs no picture: words on the detector, examples that fit it, and whether its input's size is a choice."""
    shown = [parts.about, parts.examples, parts.short_side]
    on_change([parts.detector], handlers.introduce, parts.detector, shown, **AT_ONCE)
    Context.root_block.load(handlers.begin, parts.detector, [parts.fallback, parts.detector], **AT_ONCE)
