"""One line on two models: tokens, arithmetic, speed."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pytest

from demo.benchmark import BenchmarkEntry, BenchmarkState, Turns
from demo.charts.story import headline, squares
from demo.registry import ModelSpec
from stvit.measure.timing import LatencySummary, Quartiles
from stvit.predict.preprocess import InputGeometry
from tests.demo.conftest import OFFERED

DEIT = "deit_small_patch16_224"


def words(model: str, baseline: str, state: BenchmarkState | None = None) -> str:
    return re.sub("<[^>]*>", "", headline(OFFERED.find(model), OFFERED.find(baseline), state))


@pytest.mark.parametrize(
    ("model", "baseline", "expected"),
    [
        ("stvit_deit_small_patch16_224:num_semantic_tokens=16", DEIT, "16 tokens instead of 196: 2.4× less arithmetic"),
        (
            "stvit_r_swin_small_224",
            "swin_small_patch4_window7_224",
            "36 tokens instead of 196 in its deep layers: 1.6× less arithmetic",
        ),
        ("evit_deit_small_patch16_224:keep_rate=0.7", DEIT, "71 tokens instead of 196: 1.5× less arithmetic"),
        ("deit_base_patch16_224", DEIT, "3.8× more arithmetic"),
        (DEIT, DEIT, "the same arithmetic"),
    ],
)
def test_the_numbers_are_those_of_the_chosen_models(model: str, baseline: str, expected: str) -> None:
    assert words(model, baseline) == expected


def state_of(speed_up: Quartiles, done: bool = True) -> BenchmarkState:
    spec: ModelSpec = OFFERED.find(DEIT)
    entry, latency = BenchmarkEntry(spec, 1, 1, 1), LatencySummary(1.0, 1.0, 1.0, 10)
    turns = Turns(latency, latency, speed_up)
    state = BenchmarkState("Done", 1.0, entry, entry, None, "a CPU", single=turns)
    return state if done else replace(state, stage="measuring")


@pytest.mark.parametrize(
    ("speed_up", "expected"),
    [
        (Quartiles(1.7, 1.8, 1.9), "1.8× faster on this machine eager PyTorch"),
        (Quartiles(0.48, 0.5, 0.52), "2.0× slower on this machine eager PyTorch"),
        (Quartiles(0.98, 1.0, 1.02), "as fast on this machine eager PyTorch"),
        (Quartiles(0.7, 1.6, 3.0), ""),
    ],
)
def test_speed_is_told_where_it_was_measured_and_clear(speed_up: Quartiles, expected: str) -> None:
    told = words(DEIT, DEIT, state_of(speed_up))
    assert told == ", ".join(filter(None, ["the same arithmetic", expected]))


def test_nothing_unclear_is_told_while_it_is_measured_on() -> None:
    assert words(DEIT, DEIT, state_of(Quartiles(0.98, 1.0, 1.02), done=False)) == "the same arithmetic"


def test_the_squares_are_those_that_the_model_sees() -> None:
    pixels = np.zeros((100, 200, 3), np.uint8)
    geometry = InputGeometry((100, 200), (100, 200), (0, 50), (100, 100))
    drawn = squares(pixels, geometry, (14, 14), "<DeiT>")
    assert "--rows:14;--columns:14" in drawn and "<b>196 squares</b> for &lt;DeiT&gt;" in drawn
    assert "data:image/jpeg;base64," in drawn
