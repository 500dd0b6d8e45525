"""Comparisons beside a process that keeps a core busy: what they say does not depend on when they are made."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from demo.benchmark import STRETCHES, benchmark_classifiers
from demo.model_specs import build_registry
from demo.predictors import Predictors
from stvit.measure.timing import Quartiles, medians_of_stretches, speed_up, verdict

COMPARISONS = 3
BUSY = "while True: pass"


@pytest.fixture(scope="module")
def predictors() -> Predictors:
    return Predictors(torch.device("cpu"))


@pytest.fixture
def busy_process() -> Iterator[None]:
    process = subprocess.Popen([sys.executable, "-c", BUSY])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_comparisons_beside_a_busy_process_do_not_contradict_each_other(
    predictors: Predictors, busy_process: None
) -> None:
    """Where more programs than cores run, some may say that nothing is clear, but never the opposite."""
    pair = [build_registry().find(name) for name in ("garments_stvit_deit", "garments_deit")]
    images = dict.fromkeys(pair, torch.zeros(1, 3, 112, 112))
    last = [list(benchmark_classifiers(predictors, images, *pair, None))[-1] for _ in range(COMPARISONS)]
    assert not {"faster", "slower"} <= {state.single.verdict for state in last}, [
        state.single.speed_up for state in last
    ]


@pytest.mark.parametrize("seed", range(6))
def test_passes_that_a_neighbour_interrupts_leave_the_verdict(seed: int) -> None:
    """As measured beside a busy process: most passes undisturbed, others a slice or two of the scheduler longer."""
    noise = random.Random(seed)

    def times(quiet_ms: float) -> list[float]:
        slices = noise.choices((0, 1, 2), (60, 30, 10), k=160)
        return medians_of_stretches([quiet_ms * noise.uniform(0.95, 1.2) + 4 * late for late in slices], STRETCHES)

    assert verdict(speed_up(times(6), times(10))) == "faster"
    assert verdict(speed_up(times(10), times(6))) == "slower"


def test_a_speed_up_that_reads_one_is_none() -> None:
    assert verdict(Quartiles(1.001, 1.004, 1.008)) == "unclear"
    assert verdict(Quartiles(1.004, 1.07, 1.31)) == "unclear"  # read as 1.00 to 1.31
    assert verdict(Quartiles(1.01, 1.02, 1.03)) == "faster"
