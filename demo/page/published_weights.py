"""Whether the published weights can be had, asked in the background, so that no page waits long for an answer."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Lock, Thread

from demo.registry import ModelSpec
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
        ask: whether a record's file can be had, within a number of seconds.
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
