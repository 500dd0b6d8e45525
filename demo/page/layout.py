"""The frame of the page: header, one tab for each task, look and feel."""

from __future__ import annotations

from html import escape
from pathlib import Path

import gradio as gr

from demo.engine_names import ENGINE_LABELS
from demo.page.document import TITLE
from demo.page.links import connect_links
from demo.predictors import Predictors
from demo.runtime import Runtime
from demo.service.page import Page
from demo.tabs.benchmarks import tab as benchmarks
from demo.tabs.camera import tab as camera
from demo.tabs.classify import tab as classify
from demo.tabs.detect import tab as detect
from demo.tabs.parts import read_aloud
from demo.tabs.segment import tab as segment
from demo.tabs.video import tab as video

HERE = Path(__file__).resolve().parent
STYLE_SHEETS = (HERE / "style.css", HERE.parent / "views" / "token_view.css")
NAME = "STViT Studio"
INTRODUCTION = (
    "A vision transformer cuts a picture into squares. STViT groups those that say the same into a few tokens."
)
TABS = (
    ("Classify", "classify", classify.build),
    ("Detect", "detect", detect.build),
    ("Segment", "segment", segment.build),
    ("Video", "video", video.build),
    ("Camera", "camera", camera.build),
    ("Benchmarks", "benchmarks", benchmarks.build),
)
OFFLINE = "Offline: small garment models"
PAPER_URL = "https://arxiv.org/abs/2303.08685"


def build(runtime: Runtime) -> Page:
    """Build the whole page, ready to launch."""
    with Page(title=TITLE, analytics_enabled=False, delete_cache=(3600, 3600)) as page:
        offline = not runtime.registry.hub and runtime.registry.first_bundled("classify") is not None
        choice = _is_choice(runtime.predictors)
        with gr.Row(elem_classes=["head-row", *(["with-engine"] if choice else [])]):
            gr.HTML(
                _header(runtime.device_words, offline),
                js_on_load=(HERE / "header.js").read_text(encoding="utf-8"),
                apply_default_css=False,
            )
            engine = _engine(runtime.predictors) if choice else gr.State(runtime.predictors.engine)
        ignored, targets = read_aloud("ignored"), {}
        with gr.Tabs(elem_id="tabs") as tabs:
            for label, name, build_tab in TABS:
                if name == "segment" and not runtime.registry.of_task("segment"):
                    continue  # no weights are published for segmentation, so there may be no model
                with gr.Tab(label, id=name, elem_id=f"{name}-panel"):
                    targets[name] = build_tab(runtime, engine)
        linked = {name: target for name, target in targets.items() if target is not None}
        connect_links(runtime.registry, tabs, ignored, tuple(targets), linked)
    return page.queue(max_size=None, default_concurrency_limit=1, api_open=False).with_tools()


def head() -> str:
    """Write the document's head: the style sheets as they are (Gradio's own ``css=`` rewrites and drops rules)."""
    return f"<style>{''.join(sheet.read_text(encoding='utf-8') for sheet in STYLE_SHEETS)}</style>"


def theme() -> gr.themes.Base:
    """Set quiet surfaces, one accent colour, the fonts of the reader's own system."""
    return gr.themes.Default(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        font=("Inter", "ui-sans-serif", "system-ui", "Segoe UI", "Roboto", "sans-serif"),
        font_mono=("ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"),
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="#0c1118",
        background_fill_primary_dark="#121923",
        block_background_fill_dark="#121923",
        block_border_color_dark="#233041",
        border_color_primary_dark="#233041",
        block_label_text_color="*neutral_600",
        body_text_color_subdued="*neutral_500",  # Gradio's own is too faint to read on white
        block_radius="12px",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
        button_secondary_background_fill="white",
        button_secondary_background_fill_hover="*neutral_100",
        button_secondary_background_fill_dark="#1a2431",
        button_secondary_background_fill_hover_dark="#233041",
        button_border_width="1px",
        button_secondary_border_color="*neutral_300",
        button_secondary_border_color_dark="#2f3e52",
    )


def _is_choice(predictors: Predictors) -> bool:
    """Whether there is more than eager PyTorch to run on."""
    return bool(set(predictors.engines) - {"auto", "eager"})


def _engine(predictors: Predictors) -> gr.Dropdown:
    """Let a visitor choose what all models run on."""
    labels = {"auto": "the fastest engine", **ENGINE_LABELS}
    return gr.Dropdown(
        [(labels.get(name, name), name) for name in predictors.engines],
        value=predictors.engine,
        label="Runs on",
        container=False,
        filterable=False,
        elem_id="runs-on",
    )


def _header(device_words: str, offline: bool) -> str:
    note = (
        f'<p class="offline" role="status">{OFFLINE}<button type="button" aria-label="Close this note">×</button></p>'
    )
    return (
        f'<header class="page-head"><div><h1>{NAME}</h1><p>{escape(INTRODUCTION)} '
        f'<a href="{PAPER_URL}" target="_blank" rel="noopener">Paper (CVPR 2023)</a></p></div>'
        f'<div class="head-notes">{note if offline else ""}<p class="badge" title="Device and precision of everything '
        f'on this page">{escape(device_words)}</p></div></header>'
    )
