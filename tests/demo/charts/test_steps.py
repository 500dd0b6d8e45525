"""How the steps of a run are drawn: one row for each, in colours that can be told apart."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import combinations

import cv2
import numpy as np
import pytest

from demo.charts.bars import step_rows
from demo.charts.dense import DETECTION_STEPS, SEGMENTATION_STEPS
from demo.page.layout import STYLE_SHEETS
from stvit.video.types import STAGES

STYLE = STYLE_SHEETS[0].read_text(encoding="utf-8")
LEAST_DIFFERENCE = 24  # in CIELAB; 2.3 is just noticeable


@pytest.mark.parametrize("steps", [tuple(DETECTION_STEPS), tuple(SEGMENTATION_STEPS), STAGES])
@pytest.mark.parametrize("scheme", [":root", ".dark"])
def test_the_colours_of_steps_differ_clearly_in_both_schemes(scheme: str, steps: Sequence[str]) -> None:
    values = dict(re.findall(r"--([\w-]+): (#\w{6})", STYLE.split(f"\n{scheme} {{")[1].split("}")[0]))
    colours = [
        _lab(values[_variable(cls)]) for cls in re.findall(r'stage (\w+)"', step_rows(dict.fromkeys(steps, 1.0)))
    ]
    assert len(colours) == len(steps)
    for (first, one), (second, other) in combinations(zip(steps, colours, strict=True), 2):
        assert np.linalg.norm(one - other) >= LEAST_DIFFERENCE, (first, second)


def test_every_step_has_one_row_with_its_name_and_time_once() -> None:
    shown = step_rows({"decode": 2.0, "backbone + head": 30_000.0})
    assert re.findall(r"<span>(.*?)</span>.*?--part:([\d.]+).*?<b>(.*?)</b>", shown) == [
        ("decode", "0.0001", "2.0 ms"),
        ("backbone + head", "1.0000", "30.0 s"),
    ]
    assert shown.count("30.0 s") == shown.count("backbone + head") == 1


def _variable(cls: str) -> str:
    """The variable that the last rule for a class takes its colour from."""
    rules = re.findall(r"\.stage(?:\.(\w+)|:is\(([^)]*)\)) \{ background: var\(--([\w-]+)\)", STYLE)
    return [name for one, several, name in rules if cls in (one, *several.replace(".", "").split(", "))][-1]


def _lab(colour: str) -> np.ndarray:
    rgb = np.array([[[int(colour[place : place + 2], 16) for place in (1, 3, 5)]]], np.float32) / 255
    return cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0, 0]
