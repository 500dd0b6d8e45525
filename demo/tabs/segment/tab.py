"""The Segment tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from gradio.components import Component

from demo.charts.bars import notice
from demo.page.about import about
from demo.page.examples import Gallery
from demo.page.gradio_private import ModelList
from demo.page.links import LinkTarget, in_one_list
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.comparing import comparison_parts
from demo.tabs.image_tab import GARMENTS_WANTED, ImageParts, connect_image_tab
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
from demo.tabs.pickers import model_list, picture_input
from demo.tabs.segment.handlers import SegmentHandlers
from demo.views.dense_view import segment_view

WHAT_IT_KNOWS = "These segmenters know ten kinds of garments and background, and nothing else."
NO_OFFICIAL_WEIGHTS = (
    "The authors of STViT-R released no weights for segmentation, so this project trained small ones on garments that "
    "are composed with photographs. Elsewhere they guess: try a scene of the test split."
)
EMPTY_BENCHMARK = (
    '<p class="placeholder">The segmenter and its counterpart, one with semantic tokens and one with all image tokens, '
    "run in turns on the same picture, in the same precision.</p>"
)


@dataclass(frozen=True)
class Parts(ImageParts):
    """The components that events connect."""

    segmenter: ModelList
    segmentation: gr.HTML
    twin: gr.HTML
    answers: gr.HTML
    steps: gr.HTML
    save_picture: gr.Button
    save_labels: gr.Button
    kept: gr.State


def build(runtime: Runtime, engine: Component) -> LinkTarget:
    """Lay the tab out and connect it; call inside a ``gr.Tab``, and only where there are segmenters. ``engine``
    holds the name of what runs all. Returns what an address can set in it."""
    handlers = SegmentHandlers(runtime, Gallery.load("scene"))
    parts = _lay_out(runtime, handlers.gallery)
    shown = ("segmentation", "twin", "answers", "steps", "save_picture", "save_labels", "kept")
    connect_image_tab(parts, handlers, engine, [parts.segmenter], shown, parts.segmentation)
    connect_download(parts.save_picture, handlers.picture_file, [parts.kept])
    connect_download(parts.save_labels, handlers.labels_file, [parts.kept])
    on_change([parts.segmenter], by_name(parts, handlers.introduce), parts.segmenter, parts.about, **AT_ONCE)
    return LinkTarget("segment", [parts.segmenter], in_one_list, parts.picture, handlers.gallery)


def _lay_out(runtime: Runtime, gallery: Gallery) -> Parts:
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input("segment-picture", what=GARMENTS_WANTED)
            examples = gallery.component("segment-examples", picture, garments=True)
            run = gr.Button("Segment the picture", variant="primary", elem_id="segment")
            with models_panel():
                segmenter = model_list(runtime.registry, "segment", "Segmenter (UperNet)", "segmenter")
        with gr.Column(elem_classes="results"):
            told = read_aloud("segment-notice", retries="segment")
            answers = read_aloud("segment-answers", elem_classes="answers")
            with gr.Column(elem_classes="dense-pair"):
                segmentation, twin = segment_view(), segment_view(twin=True)
            with gr.Row(elem_classes="downloads"):
                save_picture = download_button("Annotated picture (JPEG)")
                save_labels = download_button("Map of classes (indexed PNG)")
            notices("segment-knows", notice(WHAT_IT_KNOWS, detail=NO_OFFICIAL_WEIGHTS))
            words = notices("segment-about", about([runtime.registry.first("segment")]))
            steps = notices("segment-steps")
    heading("What it saves", "Both segmenters as wholes, measured here and now on this picture")
    comparison = comparison_parts("segmenters", EMPTY_BENCHMARK)
    return Parts(
        picture=picture,
        examples=examples,
        about=words,
        notice=told,
        run=run,
        **comparison,
        segmenter=segmenter,
        segmentation=segmentation,
        twin=twin,
        answers=answers,
        steps=steps,
        save_picture=save_picture,
        save_labels=save_labels,
        kept=gr.State(None),
    )
