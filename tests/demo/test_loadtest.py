from __future__ import annotations

import asyncio
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import pytest

from demo import benchmark
from demo.loadtest import __main__ as main_module
from demo.loadtest import clients
from demo.loadtest.__main__ import load, main
from demo.loadtest.clients import LoadTest
from demo.loadtest.figures import SETTLED_S, Alone, Figures, same
from demo.loadtest.page import NoAnswer, patiently
from demo.page.examples import load_examples
from demo.registry import Registry
from demo.service.queues import WAITING
from stvit.predict.engines import engine as engine_module
from tests.demo.conftest import served
from tests.stvit.video.clips import make_clip

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


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons are short, no graphs are made, and few requests may wait when there are too many."""
    monkeypatch.setattr(engine_module, "CANDIDATES", {})
    for name in ("LATENCY", "THROUGHPUT"):
        monkeypatch.setattr(benchmark, name, benchmark.Limits(0.1, 0.2))
    overfill = LoadTest.overfill

    async def overfill_soon(self: LoadTest) -> None:
        for queue, most in (("api", (0, 2)), ("page", (2, 0))):
            monkeypatch.setitem(WAITING, queue, most)
        await overfill(self)

    monkeypatch.setattr(LoadTest, "overfill", overfill_soon)
    monkeypatch.setattr(clients, "BEYOND", 10)


@pytest.mark.slow
def test_a_page_under_load_gives_right_answers_and_the_figures_say_so(
    url: str, capsys: pytest.CaptureFixture[str], hurried: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(main_module, "TRIES_ALONE", 3)
    pictures = [example.path for example in load_examples()[:2]]
    loading = load(url, 12, 4.0, pictures, PAIR, whole=True)
    test = asyncio.run(patiently(loading, 50))
    told, figures = lines_of(capsys.readouterr().out), test.figures
    assert figures.outcomes["right"] >= 12 and figures.visitors_s
    assert figures.outcomes["wrong"] == figures.outcomes["error"] == 0
    assert figures.outcomes["refused"] == figures.outcomes["visitor refused"] == 0
    assert told["wrong"] == "0, 0 not compared" and told["visitors wait"].startswith("p50")
    assert (
        "MB after" in told["resident memory"]
        and "a second, alone in batches of" in told["throughput, of the models alone"]
    )
    assert "all else" in told["single requests, over the time of the models"] and len(figures.alone) == 2
    assert figures.told_s and all(told_s >= 1 and real_s > 0 for told_s, real_s in figures.told_s)
    assert figures.batch_size > 1 and set(figures.engines) == {"eager"} == {one.engine for one in figures.alone}


@pytest.mark.slow
def test_a_mixed_load_calls_everything(url: str, hurried: None, tmp_path: Path) -> None:
    pictures = [example.path for example in load_examples()[:2]]
    loading = load(url, 4, 3.0, pictures, PAIR, mixed=True, clip=make_clip(tmp_path / "short.mp4", 4))
    test = asyncio.run(patiently(loading, 50))
    assert test.figures.outcomes["unchecked"] >= 4 and not test.figures.problems
    assert len(test.figures.long_s) >= 2  # a comparison and a clip


def lines_of(text: str) -> dict[str, str]:
    named = (line.partition("  ")[::2] for line in text.splitlines())
    return {name: words.strip() for name, words in named}


def test_growth_is_told_from_minute_5_on_and_throughput_as_a_share_of_the_models_alone() -> None:
    figures = Figures(memory=[(0.0, 1e9), (SETTLED_S, 2e9), (2 * SETTLED_S, 2.2e9)], at_rest=1.5e9)
    figures.alone = [Alone(1, "eager", 0.4), Alone(8, "openvino", 0.1), Alone(8, "openvino", 0.3)]
    figures.outcomes.update(right=30, wrong=2)
    figures.visitors_s = [0.1] * 8
    told = lines_of(figures.report(10.0))
    assert told["resident memory"] == "1000 MB before, 2000 MB at minute 5, 2200 MB after (+10.0%), 1500 MB at rest"
    share = "0.40: 4.00 pictures a second, alone in batches of 8 10.00 by openvino, 3.33 by openvino"
    assert told["throughput, of the models alone"] == share
    assert "not measured" in Figures().report(1.0)


def test_told_waits_are_compared_with_real_ones_and_the_time_of_single_requests_is_divided() -> None:
    figures = Figures(told_s=[(10, 20.0), (10, 21.0), (4, 2.0), (1, 0.2)])
    figures.single_s.update(HTTP=[0.01, 0.01], queue=[0.02, 0.03])
    told = lines_of(figures.report(1.0))
    words = "0.48 to 2.00 of the real ones, p50 0.75; 3 of 4 within a factor of two"
    assert told["told waits"] == words
    words = "p50 0.035 s, p95 0.040 s; HTTP 10 ms, queue 25 ms"
    assert told["single requests, over the time of the models"] == words


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


def test_a_page_that_is_not_there_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as told:
        main(["--url", "http://127.0.0.1:9"])
    assert told.value.code == 1 and "http://127.0.0.1:9 gives no answer: " in capsys.readouterr().err


def test_other_machines_are_not_loaded(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--url", "https://example.org"])
    assert "only a page on this machine" in capsys.readouterr().err
