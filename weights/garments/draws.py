"""Random numbers that depend on what they are for and on nothing else."""

from __future__ import annotations

import numpy as np


class Draws:
    """The random numbers of one sample, a pure function of the key: no order of calls elsewhere, no worker, no restart
    and no global seed changes them.

    Args:
        key: non-negative integers that name the sample, e.g. seed, data set, split, index.
    """

    def __init__(self, *key: int) -> None:
        self._next = np.random.Generator(np.random.PCG64(np.random.SeedSequence(key))).random

    def uniform(self, low: float = 0.0, high: float = 1.0) -> float:
        """A number from ``low`` to ``high``."""
        return low + (high - low) * self._next()

    def below(self, count: int) -> int:
        """A whole number from 0 to ``count - 1``."""
        return int(self._next() * count)

    def chance(self, probability: float) -> bool:
        """True with the given probability."""
        return self._next() < probability
