"""The Segment tab: its components and what happens when they are used."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr

from demo.charts import segment as segment_charts
from demo.charts.bars import notice
from demo.page.about import about
from demo.page.examples import Gallery
from demo.registry import Registry
from demo.runtime import AT_ONCE, Runtime
from demo.tabs.comparison import Comparison, connect_comparison
from demo.tabs.inputs import picture_input
from demo.tabs.model_list import RosterList
from demo.tabs.parts import connect_run, heading, notices, on_change
from demo.tabs.segment.handlers import SegmentHandlers, segmenter_list
from demo.views.segment_view import segment_view

WHAT_IT_KNOWS = "These segmenters know ten kinds of garments and background, and nothing else."
NO_OFFICIAL_WEIGHTS = (
    "The authors of STViT-R released no weights for segmentation, so this project trained small ones on garments that "
    "are composed with photographs. Elsewhere they guess: try a scene of the test split."
)
EMPTY_RACE = (
    '<p class="placeholder">The segmenter and its counterpart, one with semantic tokens and one with all image tokens, '
    "run in turns on the same picture, in the same precision.</p>"
)


@dataclass(frozen=True)
class Parts:
    """The components that events connect."""

    picture: gr.Image
    segmenter: RosterList
    run: gr.Button
    notice: gr.HTML
    segmentation: gr.HTML
    download_picture: gr.DownloadButton
    download_labels: gr.DownloadButton
    about: gr.HTML
    steps: gr.HTML
    comparison: Comparison

    @property
    def pick(self) -> list[gr.Image | gr.Dropdown]:
        """The picture and the segmenter."""
        return [self.picture, self.segmenter]


def build(runtime: Runtime) -> None:
    """Lay the tab out and connect it; call inside a ``gr.Tab``, and only where there are segmenters."""
    gallery = Gallery.load("scene")
    parts, handlers = _lay_out(runtime.registry, gallery), SegmentHandlers(runtime, gallery)
    connect_run(
        parts.pick,
        parts.run,
        load=handlers.load,
        load_again=handlers.load_again,
        notice=parts.notice,
        run=handlers.segment,
        outputs=[
            parts.notice,
            parts.segmentation,
            parts.steps,
            parts.download_picture,
            parts.download_labels,
        ],
        progress_on=parts.segmentation,
    )
    on_change([parts.segmenter], handlers.introduce, parts.segmenter, parts.about, **AT_ONCE)
    connect_comparison(
        parts.comparison,
        load=handlers.load_both,
        loaded_from=parts.pick,
        notice=parts.notice,
        run=handlers.compare,
        run_on=parts.pick,
        draw=segment_charts.segmenters,
        other_wishes=[*(part.change for part in parts.pick), parts.run.click],
    )


def _lay_out(registry: Registry, gallery: Gallery) -> Parts:
    first = registry.first("segment")
    with gr.Row(elem_classes="workspace"):
        with gr.Column(elem_classes="inputs"):
            picture = picture_input("segment-picture")
            gallery.component("segment-examples", picture, garments=True)
            segmenter = RosterList(
                segmenter_list(registry),
                value=first.name,
                label="Segmenter (UperNet)",
                elem_id="segmenter",
                filterable=False,
            )
            run = gr.Button("Segment", variant="primary", elem_id="segment")
        with gr.Column(elem_classes="results"):
            notices("segment-knows", notice(WHAT_IT_KNOWS, detail=NO_OFFICIAL_WEIGHTS))
            told = notices("segment-notice")
            segmentation = segment_view()
            with gr.Row(elem_classes="downloads"):
                download_picture = gr.DownloadButton("Annotated picture (JPEG)", size="sm", interactive=False)
                download_labels = gr.DownloadButton("Map of classes (indexed PNG)", size="sm", interactive=False)
            words = notices("segment-about", about([first]))
            steps = notices("segment-steps")
    heading("What it saves", "Both segmenters as wholes, measured here and now on this picture")
    with gr.Row(elem_classes="race-controls"):
        compare = gr.Button("Compare the segmenters", variant="primary", elem_id="compare-segmenters")
        cancel = gr.Button("Cancel", interactive=False, elem_id="cancel-segmenters")
    race = gr.HTML(EMPTY_RACE, elem_id="segmenters", apply_default_css=False)
    return Parts(
        picture=picture,
        segmenter=segmenter,
        run=run,
        notice=told,
        segmentation=segmentation,
        download_picture=download_picture,
        download_labels=download_labels,
        about=words,
        steps=steps,
        comparison=Comparison(compare, cancel, race, gr.State(None)),
    )
