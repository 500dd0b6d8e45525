"""What a visitor chooses from: a picture of their own, an example, two models."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import gradio as gr
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from PIL import Image, ImageOps

from demo.roster import ModelChoice

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
THUMBNAIL_SIDE = 160
HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Example:
    """A picture that the project may hand on, and under which licence."""

    path: Path
    title: str
    licence: str
    author: str
    source: str


def load_examples(folder: Path = EXAMPLES) -> tuple[Example, ...]:
    """The example pictures in the order of ``licences.json``."""
    entries = json.loads((folder / "licences.json").read_text(encoding="utf-8"))
    return tuple(
        Example(folder / name, entry["title"], entry["licence"], entry["author"], entry["source"])
        for name, entry in entries.items()
    )


def picture_input() -> gr.Image:
    """Upload, paste or webcam; hands over the path of the file as it was sent."""
    picture = gr.Image(
        label="Picture",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        buttons=["fullscreen"],
        height=280,
        elem_id="picture",
        placeholder="Drop a photo here\n- or -\nClick to choose one",
        webcam_options=gr.WebcamOptions(mirror=False),
    )
    picture.preprocess = uploaded_path  # gr.Image opens the file first, and fails in its own words
    return picture


def uploaded_path(payload: ImageData | None) -> str | None:
    """The path of an uploaded file, unopened. Gradio checks paths only in messages that are marked as files, and a
    message can leave the mark out; so it is checked here.

    Raises:
        gr.Error: anything but a file in Gradio's upload folder.
    """
    if payload is None:
        return None
    if not payload.path or not Path(payload.path).resolve().is_relative_to(Path(get_upload_folder()).resolve()):
        raise gr.Error("Send the picture as an uploaded file.", print_exception=False)
    return payload.path


def model_picker(label: str, choices: Sequence[ModelChoice], elem_id: str) -> gr.Dropdown:
    """A labelled list of models; the first is chosen."""
    return gr.Dropdown(
        [(choice.label, choice.name) for choice in choices],
        value=choices[0].name,
        label=label,
        elem_id=elem_id,
        filterable=False,
    )


def example_gallery(examples: Sequence[Example]) -> gr.HTML:
    """Thumbnails with their licences; ``pick`` is triggered with the index of the chosen one."""
    items = "".join(
        f'<li><button type="button" data-index="{index}" title="{escape(_credit(example))}">'
        f'<img src="{_thumbnail(example.path)}" alt="" width="80" height="80">'
        f"<b>{escape(example.title)}</b><small>{escape(example.licence)}</small></button></li>"
        for index, example in enumerate(examples)
    )
    return gr.HTML(
        f'<h3>Examples</h3><ul class="examples">{items}</ul>',
        js_on_load=(HERE / "examples.js").read_text(encoding="utf-8"),
        apply_default_css=False,
        elem_id="examples",
    )


def _credit(example: Example) -> str:
    return f"{example.title}: {example.author}, {example.licence}, {example.source}"


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
