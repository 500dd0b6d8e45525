"""The models that a tab begins with: the published ones or, where the Hub is out of reach, this project's own."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock, Thread
from typing import Any

import gradio as gr

from demo.page.about import fallback_notice
from demo.page.gradio_private import ModelList, current_page
from demo.registry import ModelSpec, Registry
from demo.runtime import AT_ONCE
from demo.tabs.pickers import ModelPicker, list_entries, lists_of
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.resolve import within_reach

HUB_TIMEOUT_S = 2.0
PATIENCE_S = 3.0  # looking up the Hub's address has no time limit of its own
FRESH_S = 20.0


class OfficialWeights:
    """Asks for the weights of some models, all of which are needed.

    Attributes:
        names: of the models.

    Args:
        specs: published models with weights.
        ask: whether a record's file is within reach, answered within a number of seconds.
    """

    def __init__(self, specs: Sequence[ModelSpec], ask: Callable[[ModelRecord, float], bool] = within_reach) -> None:
        self.names = tuple(spec.name for spec in specs)
        self._records = [spec.record for spec in specs]
        self._ask = ask
        self._lock = Lock()
        self._asking: Thread | None = None
        self._asked_at = float("-inf")
        self._answer = False

    def at_hand(self) -> bool:
        """Whether they are in the cache or the Hub has them; an answer is ``FRESH_S`` old at most. False where the Hub
        is silent for ``PATIENCE_S``."""
        asking = self.ask()
        asking.join(PATIENCE_S)
        return self._answer and not asking.is_alive()

    def out_of_reach(self, names: Sequence[str]) -> bool:
        """Whether these are its models, and their weights are not at hand."""
        return tuple(names) == self.names and not self.at_hand()

    def ask(self) -> Thread:
        """Ask in the background, unless an answer is fresh or on its way; returns who asks or asked."""
        with self._lock:
            idle = self._asking is None or not self._asking.is_alive()
            if idle and time.monotonic() - self._asked_at > FRESH_S:
                self._asking = Thread(target=self._find_out, name="official-weights", daemon=True)
                self._asking.start()
            return self._asking

    def _find_out(self) -> None:
        self._answer = all(self._ask(record, HUB_TIMEOUT_S) for record in self._records)
        self._asked_at = time.monotonic()


class FirstModels:
    """The first models of a tab with lists of classifiers, of detectors, or both.

    Args:
        registry: the models on offer.
        classifiers: those in its pickers when the page opens, at most a pair.
        with_detector: whether it has a list of detectors.
    """

    def __init__(self, registry: Registry, classifiers: Sequence[ModelSpec] = (), with_detector: bool = False) -> None:
        self.registry = registry
        self.classifiers = OfficialWeights(classifiers)
        self.detectors = OfficialWeights([registry.first("detect")] if with_detector else [])

    def begin(self, *chosen: str) -> tuple[Any, ...]:
        """When the page opens: where the weights of its first models are out of reach, bundled models take their
        places, with a notice; else everything stays.

        Args:
            chosen: names of the classifiers, then of the detector.

        Returns:
            The notice, three lists for each classifier, and the list of detectors.
        """
        number, registry = len(self.classifiers.names), self.registry
        self.detectors.ask()  # both questions at once
        own, detector = registry.first_bundled("classify"), registry.first_bundled("detect")
        counterpart = own and registry.counterpart(own)
        instead = [own, counterpart][:number] if counterpart and self.classifiers.out_of_reach(chosen[:number]) else []
        lists = [part for spec in instead for part in lists_of(registry, spec)] or [gr.skip()] * 3 * number
        if self.detectors.names:
            replaced = detector is not None and self.detectors.out_of_reach(chosen[number:])
            instead += [detector] if replaced else []
            entries = list_entries(registry, "detect")
            lists.append(gr.Dropdown(entries, value=detector.name) if replaced else gr.skip())
        return fallback_notice(instead), *lists


def connect_first_models(
    registry: Registry,
    notice: gr.HTML,
    classifiers: Sequence[ModelSpec] = (),
    pickers: Sequence[ModelPicker] = (),
    detector: ModelList | None = None,
) -> None:
    """Let a tab begin with models whose weights are within reach; call inside ``gr.Blocks``.

    Args:
        notice: where it is said that others stand in.
        classifiers: the first models of ``pickers``.
        detector: the list of detectors.
    """
    first = FirstModels(registry, classifiers, detector is not None)
    detectors = [] if detector is None else [detector]
    chosen = [*(picker.setting for picker in pickers), *detectors]
    lists = [part for picker in pickers for part in picker.lists]
    current_page().load(first.begin, chosen, [notice, *lists, *detectors], **AT_ONCE)
