"""The Detect tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from demo.page.about import about as about_models
from demo.page.examples import Gallery
from demo.page.gradio_private import ModelList
from demo.page.links import LinkTarget, in_one_list
from demo.predictors import SHORT_SIDES
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.comparing import comparison_parts
from demo.tabs.detect.handlers import DetectHandlers, wanted
from demo.tabs.image_tab import ImageParts, connect_image_tab
from demo.tabs.parts import (
    by_name,
    connect_download,
    download_button,
    heading,
    models_panel,
    notices,
    on_change,
    read_aloud,
)
from demo.tabs.pickers import detector_pickers, picture_input
from demo.views.dense_view import detect_view

SIZE_ON_CPU = 480
EMPTY_BENCHMARK = (
    '<p class="placeholder">What the semantic tokens save is saved in the backbone: it and its counterpart run in '
    "turns on the same picture, in the same precision. All that follows is the same in both detectors. The published "
    "full-token Swin detectors have no public weights, so they are measured here, but never shown detecting.</p>"
)


@dataclass(frozen=True)
class Parts(ImageParts):
    """The components that events connect."""

    detector: ModelList
    short_side: gr.Dropdown
    detections: gr.HTML
    twin: gr.HTML
    answers: gr.HTML
    steps: gr.HTML
    save_picture: gr.Button
    save_coco: gr.Button
    kept: gr.State


def build(runtime: Runtime, engine: Component) -> LinkTarget:
    """Lay the tab out and connect it; call inside a ``gr.Tab``. ``engine`` holds the name of what runs all. Returns
    what an address can set in it."""
    handlers = DetectHandlers(runtime, Gallery.load("scene"))
    parts = _lay_out(runtime, handlers.gallery)
    shown = ("detections", "twin", "answers", "steps", "save_picture", "save_coco", "kept")
    connect_image_tab(parts, handlers, engine, [parts.detector, parts.short_side], shown, parts.detections)
    connect_download(parts.save_picture, handlers.picture_file, [parts.kept])
    connect_download(parts.save_coco, handlers.coco_file, [parts.kept])
    introduced = [parts.about, parts.examples, parts.short_side, parts.picture]
    on_change([parts.detector], by_name(parts, handlers.introduce), parts.detector, introduced, **AT_ONCE)
    return LinkTarget("detect", [parts.detector], in_one_list, parts.picture, handlers.gallery)


def _lay_out(runtime: Runtime, gallery: Gallery) -> Parts:
    first = runtime.registry.first("detect")
    size = SHORT_SIDES[0] if runtime.predictors.device.type == "cuda" else SIZE_ON_CPU
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input("detect-picture", what=wanted(first))
            examples = gallery.component("detect-examples", picture, garments=first.bundled is not None)
            run = gr.Button("Detect in the picture", variant="primary", elem_id="detect")
            with models_panel():
                detector, short_side = detector_pickers(runtime.registry, size, "")
        with gr.Column(elem_classes="results"):
            notice = read_aloud("detect-notice", retries="detect")
            answers = read_aloud("detect-answers", elem_classes="answers")
            with gr.Column(elem_classes="dense-pair"):
                detections, twin = detect_view(), detect_view(twin=True)
            with gr.Row(elem_classes="downloads"):
                save_picture = download_button("Annotated picture, at least 50 % (JPEG)")
                save_coco = download_button("All objects (COCO JSON)")
            about = notices("detect-about", about_models([first]))
            steps = notices("steps")
    heading("What it saves", "The two backbones, measured here and now on this picture")
    comparison = comparison_parts("backbones", EMPTY_BENCHMARK)
    return Parts(
        picture=picture,
        examples=examples,
        about=about,
        notice=notice,
        run=run,
        **comparison,
        detector=detector,
        short_side=short_side,
        detections=detections,
        twin=twin,
        answers=answers,
        steps=steps,
        save_picture=save_picture,
        save_coco=save_coco,
        kept=gr.State(None),
    )
