from __future__ import annotations

import asyncio
from copy import deepcopy

import pytest

from demo.loadtest import load, main, same
from demo.page.examples import load_examples
from tests.demo.service.conftest import Service, service

__all__ = ["service"]

MODEL, BASELINE = "stvit_r_swin_small_224", "deit_tiny_patch16_224"
ONE_SIDE = {
    "predictions": [{"index": 3, "probability": 0.6}, {"index": 5, "probability": 0.2}],
    "clusters": [{"assignment": [1, 1, 2, 2]}],
    "reductions": [],
}
DOCUMENT = {"model": ONE_SIDE, "baseline": ONE_SIDE}


@pytest.mark.slow
def test_a_page_under_load_gives_right_answers_and_the_figures_say_so(
    service: Service, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [example.path for example in load_examples()[:2]]
    test = asyncio.run(load(service.url, 12, 8.0, pictures, (MODEL, BASELINE)))
    told, figures = capsys.readouterr().out, test.figures
    assert figures.outcomes["right"] >= 12 and figures.visitors_s
    assert figures.outcomes["wrong"] == figures.outcomes["error"] == figures.outcomes["refused"] == 0
    assert "wrong            0" in told and "visitors wait    p50" in told and "resident memory" in told


@pytest.mark.parametrize(("probability", "right"), [(0.6, True), (0.61, True), (0.5, False)])
def test_answers_are_compared_within_rounding(probability: float, right: bool) -> None:
    other = deepcopy(DOCUMENT)
    other["baseline"]["predictions"][0]["probability"] = probability
    assert same(DOCUMENT, other) is right


def test_another_class_is_wrong_unless_it_was_nearly_told() -> None:
    other = deepcopy(DOCUMENT)
    other["model"]["predictions"][1] = {"index": 7, "probability": 0.21}
    assert same(DOCUMENT, other)
    other["model"]["predictions"][0] = {"index": 8, "probability": 0.6}
    assert not same(DOCUMENT, other)


def test_other_regions_are_wrong() -> None:
    other = deepcopy(DOCUMENT)
    other["model"]["clusters"][0]["assignment"][0] = 2
    assert not same(DOCUMENT, other)
    other["model"]["clusters"] = []
    assert not same(DOCUMENT, other)


def test_other_machines_are_not_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--url", "https://example.org"])
    assert "only a page on this machine" in capsys.readouterr().err
