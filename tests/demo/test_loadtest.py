from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import deepcopy

import pytest

from demo import benchmark
from demo.loadtest.__main__ import load, main
from demo.loadtest.figures import SETTLED_S, Figures, same
from demo.loadtest.page import NoAnswer, patiently
from demo.page.examples import load_examples
from demo.registry import Registry
from tests.demo.conftest import served

PAIR = ("garments_stvit_deit", "garments_deit")
ONE_SIDE = {
    "predictions": [{"index": 3, "probability": 0.6}, {"index": 5, "probability": 0.2}],
    "clusters": [{"assignment": [1, 1, 2, 2]}],
    "reductions": [],
}
DOCUMENT = {"model": ONE_SIDE, "baseline": ONE_SIDE}


@pytest.fixture(scope="module")
def url(garments: Registry) -> Iterator[str]:
    with served(garments) as (_, url):
        yield url


@pytest.mark.slow
def test_a_page_under_load_gives_right_answers_and_the_figures_say_so(
    url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = [example.path for example in load_examples()[:2]]
    loading = load(url, 12, 6.0, pictures, PAIR)
    test = asyncio.run(patiently(loading, 50))
    told, figures = lines_of(capsys.readouterr().out), test.figures
    assert figures.outcomes["right"] >= 12 and figures.visitors_s
    assert figures.outcomes["wrong"] == figures.outcomes["error"] == figures.outcomes["refused"] == 0
    assert told["wrong"] == "0, 0 not compared" and told["visitors wait"].startswith("p50")
    assert "MB after" in told["resident memory"] and told["throughput, of the models alone"] == "not measured"
    assert figures.batch_size > 1 and set(figures.engines) == {"eager"}


@pytest.mark.slow
def test_a_mixed_load_calls_everything(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LATENCY", "THROUGHPUT"):
        monkeypatch.setattr(benchmark, name, benchmark.Limits(0.1, 0.2))
    pictures = [example.path for example in load_examples()[:2]]
    loading = load(url, 4, 3.0, pictures, PAIR, mixed=True)
    test = asyncio.run(patiently(loading, 50))
    assert test.figures.outcomes["unchecked"] >= 4 and not test.figures.problems


def lines_of(text: str) -> dict[str, str]:
    named = (line.partition("  ")[::2] for line in text.splitlines())
    return {name: words.strip() for name, words in named}


def test_growth_is_told_from_minute_5_on_and_throughput_as_a_share_of_the_models_alone() -> None:
    figures = Figures(memory=[(0.0, 1e9), (SETTLED_S, 2e9), (2 * SETTLED_S, 2.2e9)], alone_s=0.2)
    figures.outcomes.update(right=30, wrong=2)
    figures.visitors_s = [0.1] * 8
    told = figures.report(10.0)
    assert "1000 MB before, 2200 MB after, +10.0% since minute 5" in told
    assert lines_of(told)["throughput, of the models alone"] == "0.80"
    assert "not measured" in Figures().report(1.0)


def test_a_server_that_never_answers_is_not_waited_for() -> None:
    with pytest.raises(NoAnswer, match="within 0 s"):
        asyncio.run(patiently(asyncio.sleep(60), 0.05))


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
