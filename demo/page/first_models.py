"""The models that a tab begins with: the published ones or, where the Hub cannot be reached, this project's own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from demo.page.about import fallback_notice
from demo.page.published_weights import OfficialWeights
from demo.registry import DETECTORS, ModelChoice, garment_detector, garment_pair
from demo.tabs.detect.handlers import detector_list
from demo.tabs.inputs import lists_of


class FirstModels:
    """Of a tab with pickers for classifiers and a list of detectors.

    Args:
        classifiers: those in its pickers when the page opens.
    """

    def __init__(self, classifiers: Sequence[ModelChoice]) -> None:
        self.classifiers = OfficialWeights(classifiers)
        self.detector = OfficialWeights([DETECTORS[0]])

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
        pair, own = garment_pair(), garment_detector()
        instead = pair[: len(classifiers)] if pair and self.classifiers.out_of_reach(classifiers) else ()
        lists = [part for choice in instead for part in lists_of(choice)] or [gr.skip()] * 3 * len(classifiers)
        if own is None or not self.detector.out_of_reach([detector]):
            return fallback_notice(instead), *lists, gr.skip()
        return fallback_notice([*instead, own]), *lists, gr.Dropdown(detector_list(), value=own.name)
