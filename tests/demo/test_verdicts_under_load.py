"""Comparisons beside a process that keeps a core busy: what they say does not depend on when they are made."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from demo.benchmark import benchmark_classifiers
from demo.model_specs import build_registry
from demo.predictors import Predictors

COMPARISONS = 6
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
def test_six_comparisons_in_a_row_agree_beside_a_busy_process(predictors: Predictors, busy_process: None) -> None:
    pair = [build_registry().find(name) for name in ("garments_stvit_deit", "garments_deit")]
    images = dict.fromkeys(pair, torch.zeros(1, 3, 112, 112))
    last = [list(benchmark_classifiers(predictors, images, *pair, None))[-1] for _ in range(COMPARISONS)]
    assert len({state.single.verdict for state in last}) == 1, [state.single.speed_up for state in last]
