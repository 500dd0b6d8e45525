"""Small parts that every tab has."""

from __future__ import annotations

from html import escape

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder


def heading(title: str, subtitle: str) -> None:
    """A heading across the page, with a line beneath it."""
    gr.HTML(
        f'<div class="section-head"><h2>{escape(title)}</h2><p>{escape(subtitle)}</p></div>', apply_default_css=False
    )


def no_file() -> gr.DownloadButton:
    """A button with nothing to download."""
    return gr.DownloadButton(value=None, interactive=False)


def offered_file(name: str, content: bytes) -> gr.DownloadButton:
    """A button for a file in Gradio's cache, which is cleared on schedule."""
    return gr.DownloadButton(value=save_bytes_to_cache(content, name, get_upload_folder()), interactive=True)
