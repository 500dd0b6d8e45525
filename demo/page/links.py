"""Addresses that open a tab with a model and an example: ``?tab=detect&model=NAME&example=2``."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import gradio as gr
from gradio.components import Component

from demo.charts.bars import notice
from demo.page.examples import Gallery
from demo.page.gradio_private import current_page
from demo.registry import ModelSpec, Registry, Task, UnknownModel
from demo.runtime import AT_ONCE

FIRST_TAB = "classify"
Updates = dict[Component, Any]


@dataclass(frozen=True)
class LinkTarget:
    """What an address can set in a tab.

    Attributes:
        task: of its models.
        lists: the lists of models.
        set_model: new values of the lists for a model.
        picture: the input that takes an example.
        gallery: the examples.
    """

    task: Task
    lists: Sequence[Component]
    set_model: Callable[[ModelSpec], Sequence[Any]]
    picture: Component
    gallery: Gallery

    def updates(self, registry: Registry, model: str | None, example: str | None) -> tuple[Updates, list[str]]:
        """Return new values of components, and what of the wishes is not to be had."""
        updates, refused, spec = {}, [], registry.first(self.task)
        if model is not None:
            try:
                spec = registry.find(model, self.task)
                updates.update(zip(self.lists, self.set_model(spec), strict=True))
            except UnknownModel:
                refused.append(f"no model {_short(model)}")
        if example is not None:
            examples = self.gallery.fitting(garments=spec.bundled is not None)
            number = int(example) if example.isdecimal() and len(example) < 4 else 0
            if 1 <= number <= len(examples):
                updates[self.picture] = str(examples[number - 1].path)
            else:
                refused.append(f"no example {_short(example)} (there are 1 to {len(examples)})")
        return updates, refused


def link_to(page: str, tab: str, model: str, example: int | None) -> str:
    """Write the address that opens a tab with a model, and an example where there is one.

    Args:
        page: address of the page, without a slash at its end.
    """
    query = {"tab": tab, "model": model, **({"example": example} if example else {})}
    return f"{page}/?{urlencode(query, safe=':=,')}"


def in_one_list(spec: ModelSpec) -> tuple[gr.Dropdown]:
    """Choose a model in the only list of a tab."""
    return (gr.Dropdown(value=spec.name),)


def open_link(
    registry: Registry, tabs: Sequence[str], targets: Mapping[str, LinkTarget], query: Mapping[str, str]
) -> tuple[str | None, Updates, list[str]]:
    """Read what an address asks for.

    Args:
        tabs: names of all tabs.
        targets: what can be set, by the name of the tab.
        query: the parameters of the address; others than ``tab``, ``model`` and ``example`` are left alone.

    Returns:
        The tab to open, new values, and what is ignored, in words.
    """
    refused = []
    tab, model, example = (query.get(name) or None for name in ("tab", "model", "example"))
    if tab is not None and tab not in tabs:
        refused.append(f"no tab {_short(tab)}")
        tab = None
    target = targets.get(tab or FIRST_TAB)
    if target is None:
        refused += ["neither model nor example can be set in this tab"] if model or example else []
        return tab, {}, refused
    updates, more = target.updates(registry, model, example)
    return tab, updates, refused + more


def connect_links(
    registry: Registry, tabs: gr.Tabs, words: gr.HTML, names: Sequence[str], targets: Mapping[str, LinkTarget]
) -> None:
    """Let the page open as its address asks; call inside ``gr.Blocks``.

    Args:
        words: says what is ignored.
    """

    def opened(request: gr.Request) -> Updates:
        tab, updates, refused = open_link(registry, names, targets, dict(request.query_params))
        told = notice(f"Ignored in the address: {', '.join(refused)}.", "warning") if refused else gr.skip()
        return {tabs: gr.Tabs(selected=tab) if tab else gr.skip(), words: told, **updates}

    outputs = [part for target in targets.values() for part in (*target.lists, target.picture)]
    current_page().load(opened, None, [tabs, words, *outputs], **AT_ONCE)


def _short(value: str) -> str:
    return f"“{value[:60]}”"
