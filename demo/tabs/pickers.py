"""What a visitor chooses: a picture, classifiers by method, size and setting, and models from a single list."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.events import Dependency

from demo.errors import told
from demo.page.gradio_private import ModelList, PictureUpload
from demo.predictors import SHORT_SIDES
from demo.registry import SIZE_NAMES, ModelSpec, Registry, Task, UnknownModel
from demo.runtime import AT_ONCE
from demo.tabs.parts import take_files
from stvit.predict.detector import published_scale

HERE = Path(__file__).resolve().parent

Lists = tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]


def picture_input(elem_id: str, first: str | None = None, what: str = "a photo") -> gr.Image:
    """Make an input for uploads, pastes and the webcam, which hands over the path of the file as it was sent.

    Args:
        first: path of the picture that is in it at first.
        what: to drop there.
    """
    picture = PictureUpload(
        first,
        label="Picture",
        type="filepath",
        image_mode=None,
        sources=["upload", "clipboard", "webcam"],
        buttons=["fullscreen"],
        height=280,
        elem_id=elem_id,
        placeholder=drop_words(what),
        webcam_options=gr.WebcamOptions(mirror=False),
    )
    take_files(picture, "image/*")
    return picture


def drop_words(what: str) -> str:
    """Say what to drop on an empty input for pictures."""
    return f"Drop {what} here\n- or -\nClick to choose one"


def model_list(registry: Registry, task: Task, label: str, elem_id: str) -> ModelList:
    """Make one list of all models for a task."""
    first = registry.first(task).name
    return ModelList(list_entries(registry, task), value=first, label=label, elem_id=elem_id, filterable=False)


def list_entries(registry: Registry, task: Task) -> list[tuple[str, str]]:
    """Return labels and names of the models for a task; labels of bundled detectors say what they know, those of models
    whose weights are out of reach that they are."""
    return [
        (f"{spec.label} ({len(spec.classes)} garments)", spec.name)
        if task == "detect" and spec.classes
        else (_marked(spec.label, registry, [spec]), spec.name)
        for spec in registry.of_task(task)
    ]


def _marked(label: str, registry: Registry, specs: Sequence[ModelSpec]) -> str:
    return f"{label} · needs the Hub" if any(map(registry.is_out_of_reach, specs)) else label


def detector_pickers(registry: Registry, chosen_side: int, prefix: str) -> tuple[ModelList, gr.Dropdown]:
    """Make lists of detectors and of their input sizes; ``prefix`` begins the names of both in the page."""
    detector = model_list(registry, "detect", "Detector (Cascade Mask R-CNN)", f"{prefix}detector")
    has_choice = registry.first("detect").bundled is None
    short_side = gr.Dropdown(
        [(_size_words(side), side) for side in SHORT_SIDES],
        value=chosen_side,
        label="Input size: short and long side at most",
        elem_id=f"{prefix}short-side",
        filterable=False,
        visible=has_choice,
    )
    return detector, short_side


def _size_words(short_side: int) -> str:
    long, short = published_scale(short_side)
    return f"{short} × {long}, as published" if short_side == SHORT_SIDES[0] else f"{short} × {long}"


@dataclass(frozen=True)
class ModelPicker:
    """Method, size and setting of one side; the value of ``setting`` is the name of the chosen model."""

    method: ModelList
    size: ModelList
    setting: ModelList

    @property
    def lists(self) -> tuple[ModelList, ModelList, ModelList]:
        """All three."""
        return self.method, self.size, self.setting


def model_picker(registry: Registry, label: str, chosen: ModelSpec, elem_id: str) -> ModelPicker:
    """Make three lists that lead to one classifier, under a heading that is part of their accessible names; the second
    and third follow from the ones before."""
    parts = ("method", "size", "setting")
    with gr.Group(elem_id=elem_id, elem_classes="picker"):
        gr.HTML(
            f"<h3>{escape(label)}</h3>",
            js_on_load=(HERE / "picker.js").read_text(encoding="utf-8"),
            apply_default_css=False,
        )
        lists = [
            ModelList(**values, elem_id=f"{elem_id}-{part}", filterable=False)
            for part, values in zip(parts, _list_values(registry, chosen), strict=True)
        ]
    return ModelPicker(*lists)


def lists_of(registry: Registry, spec: ModelSpec) -> Lists:
    """Set the three lists to a model."""
    return tuple(gr.Dropdown(**values) for values in _list_values(registry, spec))


def connect_picker(registry: Registry, picker: ModelPicker) -> tuple[Dependency, Dependency]:
    """Let later lists follow earlier ones; whatever is chosen, ``setting`` changes. Returns the events."""
    later, settings = [picker.size, picker.setting], {"trigger_mode": "always_last", **AT_ONCE}
    by_method, by_size = partial(method_chosen, registry), partial(size_chosen, registry)
    return (
        picker.method.input(by_method, [picker.method, picker.setting], later, **settings),
        picker.size.input(by_size, list(picker.lists), later, **settings),
    )


def connect_pair(registry: Registry, model: ModelPicker, baseline: ModelPicker) -> None:
    """Let later lists of each side follow its earlier ones, a side follow the other to garments, and the baseline
    become the full-token twin of a model whose method or size was chosen."""
    for mine, other, follower in ((model, baseline, set_twin), (baseline, model, follow)):
        events = connect_picker(registry, mine)
        settings = [mine.setting, other.setting]
        for chosen, handler in (*((event.then, follower) for event in events), (mine.setting.input, follow)):
            chosen(partial(handler, registry), settings, list(other.lists), trigger_mode="always_last", **AT_ONCE)


@told
def method_chosen(registry: Registry, method: str, model: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Set the sizes and settings of a method; the size stays as it was where the method comes in it."""
    chosen, before = registry.method(method), registry.find(model, "classify")
    sizes = registry.sizes(chosen)
    return lists_of(registry, registry.settings(chosen, before.size if before.size in sizes else sizes[0])[0])[1:]


@told
def size_chosen(registry: Registry, method: str, size: str, model: str) -> tuple[gr.Dropdown, gr.Dropdown]:
    """Set the size as it was chosen, and its settings; the setting stays as it was. Who is quick chooses a size before
    the lists have followed the method, so ``model`` may still be of another one."""
    chosen, before = registry.method(method), registry.find(model, "classify")
    offered = registry.settings(chosen, size)
    if not offered:
        raise UnknownModel(f"There is no {chosen.name} of the size {str(size)[:20]!r}.")
    alike = [spec for spec in offered if spec.setting == before.setting]
    return lists_of(registry, (alike or offered)[0])[1:]


@told
def follow(registry: Registry, chosen: str, other: str) -> Lists | tuple[dict, dict, dict]:
    """Set the lists of the other side after one side was chosen; they change where only the chosen model has these
    classes, to its counterpart. Whoever then chooses another model there keeps it."""
    mine, theirs = registry.find(chosen, "classify"), registry.find(other, "classify")
    counterpart = registry.counterpart(mine) if mine.card and mine.classes != theirs.classes else None
    return (gr.skip(),) * 3 if counterpart is None else lists_of(registry, counterpart)


@told
def set_twin(registry: Registry, chosen: str, other: str) -> Lists | tuple[dict, dict, dict]:
    """Set the lists of the baseline to the full-token network that the chosen model is made from; after a full-token
    model they only follow it to garments."""
    mine = registry.find(chosen, "classify")
    twin = registry.counterpart(mine)
    if mine.method.full_tokens or twin is None:
        return follow(registry, chosen, other)
    return (gr.skip(),) * 3 if twin.name == other else lists_of(registry, twin)


def _list_values(registry: Registry, chosen: ModelSpec) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Arguments of the lists of methods, sizes and settings."""
    methods, sizes = registry.methods(), registry.sizes(chosen.method)
    settings = registry.settings(chosen.method, chosen.size)
    return (
        {"choices": [method.name for method in methods], "value": chosen.method.name, "label": "Method"},
        {
            "choices": [
                (_marked(SIZE_NAMES[size], registry, registry.settings(chosen.method, size)), size) for size in sizes
            ],
            "value": chosen.size,
            "label": "Size",
            "interactive": len(sizes) > 1,
        },
        {
            "choices": [(spec.setting, spec.name) for spec in settings],
            "value": chosen.name,
            "label": chosen.method.setting,
            "interactive": len(settings) > 1,
        },
    )
