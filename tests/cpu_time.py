"""What work costs, in a measure that other processes on the machine change little."""

from __future__ import annotations

import time
from collections.abc import Callable


def cpu_seconds(*works: Callable[[], object], rounds: int = 5) -> list[float]:
    """Least processor time of this process that each piece of work took, the pieces in turns."""
    least = [float("inf")] * len(works)
    for _ in range(rounds):
        for index, work in enumerate(works):
            start = time.process_time()
            work()
            least[index] = min(least[index], time.process_time() - start)
    return least
