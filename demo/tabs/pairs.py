"""Two pickers side by side: where one goes over to garments, so does the other."""

from __future__ import annotations

import gradio as gr

from demo.garments import knows_the_same
from demo.registry import ModelChoice, UnknownModel, find, peer_of
from demo.runtime import AT_ONCE
from demo.tabs.inputs import ModelPicker, connect_picker, lists_of

Lists = tuple[gr.Dropdown, gr.Dropdown, gr.Dropdown]


def connect_pair(model: ModelPicker, baseline: ModelPicker) -> None:
    """Let later lists of each side follow its earlier ones, and a side follow the other to garments."""
    for mine, other in ((model, baseline), (baseline, model)):
        events = connect_picker(mine)
        for chosen in (*(event.then for event in events), mine.setting.input):
            chosen(follow, [mine.setting, other.setting], list(other.lists), trigger_mode="always_last", **AT_ONCE)


def follow(chosen: str, other: str) -> Lists | tuple[dict, dict, dict]:
    """The lists of the other side after one side was chosen; they change where only the chosen model is one of this
    project's, to what it is best compared with. Whoever then chooses another model there keeps it.

    Raises:
        gr.Error: no such model.
    """
    try:
        mine, theirs = find(chosen), find(other)
    except UnknownModel as error:
        raise gr.Error(str(error), print_exception=False) from error
    peer = peer_of(mine) if mine.bundled and not knows_the_same(mine, theirs) else None
    return (gr.skip(),) * 3 if peer is None else lists_of(peer)


def lists_of_both(pair: tuple[ModelChoice, ModelChoice]) -> tuple[gr.Dropdown, ...]:
    """All six lists, for two models."""
    return (*lists_of(pair[0]), *lists_of(pair[1]))
