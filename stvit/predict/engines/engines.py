"""The engines of a predictor with several networks, as one."""

from __future__ import annotations

from collections import Counter

from .engine import Engine


class Engines:
    """What several engines have answered and hold together; each network is run by its own."""

    def __init__(self, *engines: Engine) -> None:
        self._engines = engines

    @property
    def answered(self) -> Counter[str]:
        """How many batches of any network each engine has answered."""
        return sum((engine.answered for engine in self._engines), Counter())

    @property
    def graph_bytes(self) -> int:
        """Memory of their graphs."""
        return sum(engine.graph_bytes for engine in self._engines)
