"""Whether the page can begin with published models: asked once, when the server starts."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Thread

from demo.registry import Registry
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.resolve import within_reach

HUB_TIMEOUT_S = 2.0
PATIENCE_S = 3.0  # looking up the Hub's address has no time limit of its own


def beginning(registry: Registry, ask: Callable[[ModelRecord, float], bool] = within_reach) -> Registry:
    """Return the registry, told whether the weights of the first published classifiers are within reach.

    Args:
        ask: whether a record's file is in the cache or on the Hub, answered within a number of seconds.
    """
    first = registry.first("classify")
    specs = [first, registry.counterpart(first)]
    records = [spec.record for spec in specs if spec is not None and spec.record is not None]
    return Registry(registry, hub=_all_within_reach(records, ask))


def _all_within_reach(records: Sequence[ModelRecord], ask: Callable[[ModelRecord, float], bool]) -> bool:
    answers: list[bool] = []
    asking = Thread(target=lambda: answers.append(all(ask(record, HUB_TIMEOUT_S) for record in records)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    return answers == [True]
