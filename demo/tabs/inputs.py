"""What a visitor chooses: a picture of their own, and models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import ImageData
from gradio.events import Dependency
from gradio.utils import get_upload_folder

from demo.registry import SIZE_NAMES, ModelSpec, Registry, UnknownModel
from demo.runtime import AT_ONCE
from demo.tabs.model_list import RosterList


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
        raise gr.Error("Upload the picture or clip: send it as an uploaded file.", print_exception=False)
    return payload.path


def sent_picture(image: str | None) -> str:
    """The picture that a script sent.

    Raises:
        gr.Error: it sent none.
    """
    if image is None:
        raise gr.Error("Send a picture: the parameter `image` is empty.", print_exception=False)
    return image


@dataclass(frozen=True)
class ModelPicker:
    """Method, size and setting of one side; the value of ``setting`` is the name of the chosen model."""

    method: RosterList
    size: RosterList
    setting: RosterList

    @property
    def lists(self) -> tuple[RosterList, RosterList, RosterList]:
        """All three."""
        return self.method, self.size, self.setting


def model_picker(registry: Registry, label: str, chosen: ModelSpec, elem_id: str) -> ModelPicker:
    """Three lists that lead to one model; the choices of the second and third follow from the ones before."""
    with gr.Group(elem_id=elem_id, elem_classes="picker"):
        gr.HTML(f"<h3>{escape(label)}</h3>", apply_default_css=False)
        method = RosterList(**_method_list(registry, chosen), elem_id=f"{elem_id}-method", filterable=False)
        size = RosterList(**_size_list(registry, chosen), elem_id=f"{elem_id}-size", filterable=False)
        setting = RosterList(**_setting_list(registry, chosen), elem_id=f"{elem_id}-setting", filterable=False)
    return ModelPicker(method, size, setting)


def connect_picker(registry: Registry, picker: ModelPicker) -> tuple[Dependency, Dependency]:
    """Let later lists follow earlier ones; whatever is chosen, ``setting`` changes. Returns the events."""
    both, settings = [picker.size, picker.setting], {"trigger_mode": "always_last", **AT_ONCE}
    return (
        picker.method.input(partial(method_chosen, registry), [picker.method, picker.setting], both, **settings),
        picker.size.input(partial(size_chosen, registry), list(picker.lists), both, **settings),
    )


def lists_of(registry: Registry, spec: ModelSpec) -> tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]:
    """The three lists when they lead to a model."""
    method, size, setting = (of(registry, spec) for of in (_method_list, _size_list, _setting_list))
    return gr.Dropdown(**method), gr.Dropdown(**size), gr.Dropdown(**setting)


def method_chosen(registry: Registry, method: str, model: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Sizes and settings of a method; the size stays as it was where the method comes in it.

    Raises:
        gr.Error: no such method or model.
    """
    try:
        chosen_method, before = registry.method(method), registry.find(model, "classify")
    except UnknownModel as error:
        raise gr.Error(str(error), print_exception=False) from error
    sizes = registry.sizes(chosen_method)
    chosen = registry.settings(chosen_method, before.size if before.size in sizes else sizes[0])[0]
    return gr.Dropdown(**_size_list(registry, chosen)), gr.Dropdown(**_setting_list(registry, chosen))


def size_chosen(registry: Registry, method: str, size: str, model: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """The size as it was chosen, and its settings; the setting stays as it was. Who is quick chooses a size before the
    lists have followed the method, so ``model`` may still be of another one.

    Raises:
        gr.Error: no such method, size or model.
    """
    try:
        chosen_method, before = registry.method(method), registry.find(model, "classify")
    except UnknownModel as error:
        raise gr.Error(str(error), print_exception=False) from error
    offered = registry.settings(chosen_method, size)
    if not offered:
        raise gr.Error(f"There is no {method} of the size {str(size)[:20]!r}.", print_exception=False)
    alike = [spec for spec in offered if spec.setting == before.setting]
    chosen = (alike or offered)[0]
    return gr.Dropdown(**_size_list(registry, chosen)), gr.Dropdown(**_setting_list(registry, chosen))


def _method_list(registry: Registry, chosen: ModelSpec) -> dict[str, Any]:
    names = [method.name for method in registry.methods()]
    return {"choices": names, "value": chosen.method.name, "label": "Method"}


def _size_list(registry: Registry, chosen: ModelSpec) -> dict[str, Any]:
    sizes = registry.sizes(chosen.method)
    return {
        "choices": [(SIZE_NAMES[size], size) for size in sizes],
        "value": chosen.size,
        "label": "Size",
        "interactive": len(sizes) > 1,
    }


def _setting_list(registry: Registry, chosen: ModelSpec) -> dict[str, Any]:
    settings = registry.settings(chosen.method, chosen.size)
    return {
        "choices": [(spec.setting, spec.name) for spec in settings],
        "value": chosen.name,
        "label": chosen.method.setting,
        "interactive": len(settings) > 1,
    }
