"""How the events of the page hang together."""

from __future__ import annotations

from collections import defaultdict

import torch

from demo.page import layout
from demo.predictors import Predictors
from demo.runtime import Runtime
from tests.demo.conftest import OFFERED


def test_no_two_handlers_of_one_event_wait_for_each_other() -> None:
    """Gradio repeats an event with all that hangs on it when one of its handlers had to wait."""
    page = layout.build(Runtime(Predictors(torch.device("cpu")), OFFERED))
    waiting: defaultdict[tuple[int, str], list[int]] = defaultdict(list)
    for event in page.config["dependencies"]:
        for component, name in event["targets"]:
            if component is not None and event["trigger_mode"] == "always_last":
                waiting[component, name].append(event["id"])
    assert waiting, "lists of models wait for the ones before them"
    assert not {event: handlers for event, handlers in waiting.items() if len(handlers) > 1}
