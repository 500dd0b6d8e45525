"""What a visitor chooses from: a picture of their own, an example, two models."""

from __future__ import annotations

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from PIL import Image, ImageOps

from demo.roster import METHODS, SIZE_NAMES, ModelChoice, UnknownModel, find, method_of, settings_of, sizes_of

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
THUMBNAIL_SIDE = 160
#: for events of the pickers: Gradio would check a value against the choices of a list that may just have changed
AGAINST_THE_ROSTER = {"preprocess": False}
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


def picture_input(elem_id: str) -> gr.Image:
    """Upload, paste or webcam; hands over the path of the file as it was sent."""
    picture = gr.Image(
        label="Picture",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        buttons=["fullscreen"],
        height=280,
        elem_id=elem_id,
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


@dataclass(frozen=True)
class ModelPicker:
    """Method, size and setting of one side; the value of ``setting`` is the name of the chosen model."""

    method: gr.Dropdown
    size: gr.Dropdown
    setting: gr.Dropdown


def model_picker(label: str, chosen: ModelChoice, elem_id: str) -> ModelPicker:
    """Three lists that lead to one model; the choices of the second and third follow from the ones before."""
    with gr.Group(elem_id=elem_id, elem_classes="picker"):
        gr.HTML(f"<h3>{escape(label)}</h3>", apply_default_css=False)
        method = gr.Dropdown(
            [method.name for method in METHODS],
            value=chosen.method,
            label="Method",
            elem_id=f"{elem_id}-method",
            filterable=False,
        )
        with gr.Row():
            size = gr.Dropdown(**_size_list(chosen), elem_id=f"{elem_id}-size", min_width=90, filterable=False)
            setting = gr.Dropdown(**_setting_list(chosen), elem_id=f"{elem_id}-setting", min_width=90, filterable=False)
    return ModelPicker(method, size, setting)


def connect_picker(picker: ModelPicker) -> None:
    """Let later lists follow earlier ones; whatever is chosen, ``setting`` changes."""
    quiet = {**AGAINST_THE_ROSTER, "api_visibility": "private", "show_progress": "hidden", "queue": False}
    both = [picker.size, picker.setting]
    picker.method.input(method_chosen, [picker.method, picker.setting], both, **quiet)
    picker.size.input(size_chosen, [picker.size, picker.setting], picker.setting, **quiet)


def method_chosen(method: str, model: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Sizes and settings of a method; the size stays as it was where the method comes in it.

    Raises:
        gr.Error: no such method or model.
    """
    try:
        sizes, before = sizes_of(method_of(method).name), find(model)
    except UnknownModel as error:
        raise gr.Error(str(error), print_exception=False) from error
    chosen = settings_of(method, before.size if before.size in sizes else sizes[0])[0]
    return gr.Dropdown(**_size_list(chosen)), gr.Dropdown(**_setting_list(chosen))


def size_chosen(size: str, model: str) -> gr.Dropdown:
    """Settings of a size; the setting stays as it was.

    Raises:
        gr.Error: no such size or model.
    """
    try:
        before = find(model)
    except UnknownModel as error:
        raise gr.Error(str(error), print_exception=False) from error
    offered = settings_of(before.method, size)
    if not offered:
        raise gr.Error(f"There is no {before.method} of the size {str(size)[:20]!r}.", print_exception=False)
    alike = [choice for choice in offered if choice.setting == before.setting]
    return gr.Dropdown(**_setting_list((alike or offered)[0]))


def _size_list(chosen: ModelChoice) -> dict[str, Any]:
    sizes = sizes_of(chosen.method)
    return {
        "choices": [(SIZE_NAMES[size], size) for size in sizes],
        "value": chosen.size,
        "label": "Size",
        "interactive": len(sizes) > 1,
    }


def _setting_list(chosen: ModelChoice) -> dict[str, Any]:
    settings = settings_of(chosen.method, chosen.size)
    return {
        "choices": [(choice.setting, choice.name) for choice in settings],
        "value": chosen.name,
        "label": method_of(chosen.method).setting,
        "interactive": len(settings) > 1,
    }


def example_gallery(examples: Sequence[Example], elem_id: str) -> gr.HTML:
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
        elem_id=elem_id,
        elem_classes="gallery",
    )


def chosen_example(examples: Sequence[Example], event: gr.EventData) -> Example:
    """The example of the index that the browser sent.

    Raises:
        gr.Error: there is no such example.
    """
    index = event._data.get("index") if isinstance(event._data, dict) else None
    if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(examples):
        raise gr.Error("There is no such example.", print_exception=False)
    return examples[index]


def _credit(example: Example) -> str:
    return f"{example.title}: {example.author}, {example.licence}, {example.source}"


def _thumbnail(path: Path) -> str:
    with Image.open(path) as image:
        small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return f"data:image/jpeg;base64,{b64encode(buffer.getvalue()).decode('ascii')}"
