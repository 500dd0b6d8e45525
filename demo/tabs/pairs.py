"""Two pickers side by side: where one goes over to garments, so does the other."""

from __future__ import annotations

from functools import partial

import gradio as gr

from demo.registry import ModelSpec, Registry, UnknownModel
from demo.runtime import AT_ONCE
from demo.tabs.inputs import ModelPicker, connect_picker, lists_of

Lists = tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]


def connect_pair(registry: Registry, model: ModelPicker, baseline: ModelPicker) -> None:
    """Let later lists of each side follow its earlier ones, and a side follow the other to garments."""
    for mine, other in ((model, baseline), (baseline, model)):
        events = connect_picker(registry, mine)
        for chosen in (*(event.then for event in events), mine.setting.input):
            settings = [mine.setting, other.setting]
            chosen(partial(follow, registry), settings, list(other.lists), trigger_mode="always_last", **AT_ONCE)


def follow(registry: Registry, chosen: str, other: str) -> Lists | tuple[dict, dict, dict]:
    """The lists of the other side after one side was chosen; they change where only the chosen model is one of this
    project's, to what it is best compared with. Whoever then chooses another model there keeps it.

    Raises:
        gr.Error: no such model.
    """
    try:
        mine, theirs = registry.find(chosen, "classify"), registry.find(other, "classify")
    except UnknownModel as error:
        raise gr.Error(str(error), print_exception=False) from error
    other = registry.counterpart(mine) if mine.bundled and mine.classes != theirs.classes else None
    return (gr.skip(),) * 3 if other is None else lists_of(registry, other)


def lists_of_both(registry: Registry, pair: tuple[ModelSpec, ModelSpec]) -> tuple[gr.Dropdown, ...]:
    """All six lists, for two models."""
    return (*lists_of(registry, pair[0]), *lists_of(registry, pair[1]))


def bundled_pair(registry: Registry) -> tuple[ModelSpec, ModelSpec] | None:
    """The bundled classifier to begin with and its counterpart; ``None`` where there are none."""
    own = registry.first_bundled("classify")
    other = own and registry.counterpart(own)
    return (own, other) if other else None
