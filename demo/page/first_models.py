"""The models that a tab begins with: the published ones or, where the Hub cannot be reached, this project's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from demo.page.about import fallback_notice
from demo.page.published_weights import OfficialWeights
from demo.registry import ModelSpec, Registry
from demo.tabs.detect.handlers import detector_list
from demo.tabs.inputs import lists_of
from demo.tabs.pairs import bundled_pair


class FirstModels:
    """Of a tab with pickers for classifiers and a list of detectors.

    Args:
        classifiers: those in its pickers when the page opens.
    """

    def __init__(self, registry: Registry, classifiers: Sequence[ModelSpec]) -> None:
        self.registry = registry
        self.classifiers = OfficialWeights(classifiers)
        self.detector = OfficialWeights([registry.first("detect")])

    def begin(self, *chosen: str) -> tuple[Any, ...]:
        """When the page opens: where the weights of its first models cannot be had, this project's own models take
        their places, with a notice; else everything stays.

        Args:
            chosen: names of the classifiers and of the detector.

        Returns:
            The notice, three lists for each classifier, and the list of detectors.
        """
        *classifiers, detector = chosen
        self.detector.ask()  # both questions at once
        own, pair = self.registry.first_bundled("detect"), bundled_pair(self.registry)
        instead = pair[: len(classifiers)] if pair and self.classifiers.out_of_reach(classifiers) else ()
        lists = [part for spec in instead for part in lists_of(self.registry, spec)]
        lists = lists or [gr.skip()] * 3 * len(classifiers)
        if own is None or not self.detector.out_of_reach([detector]):
            return fallback_notice(instead), *lists, gr.skip()
        return fallback_notice([*instead, own]), *lists, gr.Dropdown(detector_list(self.registry), value=own.name)
