from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

import demo.benchmark
from demo.benchmark import (
    MIN_ROUNDS,
    BadBatchSize,
    BenchmarkEntry,
    BenchmarkState,
    Limits,
    Turns,
    benchmark_classifiers,
    check_batch_size,
)
from demo.charts import bars
from demo.charts import classify as charts
from demo.export import benchmark_json
from demo.model_cache import LoadedModel
from demo.predictors import Predictors
from stvit.measure.timing import LatencySummary, Quartiles, Round
from tests.demo.conftest import OFFERED

MODEL, BASELINE = (OFFERED.find(name) for name in ("stvit_r_swin_small_224", "swin_small_patch4_window7_224"))
IMAGES = dict.fromkeys((MODEL, BASELINE), torch.zeros(1, 3, 224, 224))


class Patches(nn.Module):
    """A classifier of one convolution and one linear layer; counts its calls by batch size."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, stride=16)
        self.head = nn.Linear(width, 10)
        self.batches: list[int] = []

    def forward(self, images: Tensor) -> Tensor:
        self.batches.append(len(images))
        return self.head(self.patches(images).mean(dim=(2, 3)))


@pytest.fixture
def predictors() -> Predictors:
    """Two tiny networks under the names of real ones; the baseline does twice the work."""
    loaded = {
        spec: LoadedModel(spec, Patches(width), "made up", "", "", 0.0) for spec, width in ((MODEL, 8), (BASELINE, 16))
    }
    predictors = Predictors(torch.device("cpu"), torch.float32)
    predictors.model_cache = SimpleNamespace(get=loaded.__getitem__)
    return predictors


@pytest.fixture(autouse=True)
def every_state_of_a_short_benchmark_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.benchmark, "REPORT_EVERY_S", 0.0)
    for limits in ("SHORT", "LATENCY", "THROUGHPUT"):
        monkeypatch.setattr(demo.benchmark, limits, Limits(0.05, 0.1))


def test_what_needs_no_measuring_comes_first(predictors: Predictors) -> None:
    first = next(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, 4))
    assert (first.model.macs, first.model.parameters) == (8 * 3 * 256 * 196 + 80, 8 * 769 + 90)
    assert first.allowed_speedup == pytest.approx(2, rel=0.01)
    assert first.single is None and first.batched is None


def test_states_fill_up_in_order_and_the_last_is_complete(predictors: Predictors) -> None:
    states = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, 4))
    progress = [state.progress for state in states]
    assert progress == sorted(progress) and progress[-1] == 1.0
    assert [state.done for state in states] == [False] * (len(states) - 1) + [True]
    assert all(state.single for state in states if state.batched)
    last = states[-1]
    assert last.single.model.runs == last.single.baseline.runs >= MIN_ROUNDS
    assert last.images_per_second(last.batched.model) == pytest.approx(4e3 / last.batched.model.median_ms)
    assert set(predictors.model_cache.get(MODEL).network.batches) == {1, 4}


def test_each_model_is_measured_on_an_input_of_its_own_size(predictors: Predictors) -> None:
    inputs = IMAGES | {MODEL: torch.zeros(1, 3, 112, 112)}
    last = list(benchmark_classifiers(predictors, inputs, MODEL, BASELINE, 4))[-1]
    assert (last.model.macs, last.baseline.macs) == (8 * 3 * 256 * 49 + 80, 2 * 8 * 3 * 256 * 196 + 160)


def test_a_slow_device_stops_at_its_time_with_enough_rounds(
    predictors: Predictors, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limits in ("LATENCY", "THROUGHPUT"):
        monkeypatch.setattr(demo.benchmark, limits, Limits(1e-6, 1e-6))
    last = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, 4))[-1]
    assert last.done
    assert last.single.model.runs == last.batched.model.runs == MIN_ROUNDS


def test_a_short_comparison_measures_single_images_alone(predictors: Predictors) -> None:
    last = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, None))[-1]
    assert last.done and last.single and last.batched is None
    assert set(predictors.model_cache.get(BASELINE).network.batches) == {1}
    assert "Throughput, batch" not in charts.comparison(last) and "Batches of" not in charts.comparison(last)


def test_batches_are_no_larger_than_others_may_wait_for(
    predictors: Predictors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.benchmark, "MAX_PASS_S", 0.0)
    last = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, 16))[-1]
    assert last.batch_size == 1 and set(predictors.model_cache.get(MODEL).network.batches) == {1}


def test_others_come_to_their_turn_between_two_rounds(predictors: Predictors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.benchmark, "SHORT", Limits(3.0, 3.0))
    running = benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, None)
    ended = threading.Event()
    measuring = threading.Thread(target=lambda: (list(running), ended.set()))
    measuring.start()
    network = predictors.model_cache.get(MODEL).network
    while not network.batches:
        time.sleep(0.001)
    for _ in range(5):
        predictors.compute.run(len, ())
    assert not ended.is_set()
    measuring.join()


class Served:
    """An engine that a graph serves from the second look on, or never."""

    def __init__(self, network: Patches, ready: bool) -> None:
        self.network, self.ready, self.by_graph, self.by_eager = network, ready, 0, 0

    def __call__(self, images: Tensor, wanted: str) -> Tensor:
        self.by_graph += 1
        return self.network(images)

    def eager(self, images: Tensor, wanted: str) -> Tensor:
        self.by_eager += 1
        return self.network(images)

    def settle(self, timeout_s: float) -> bool:
        return True

    def recall(self, shape: tuple[int, ...], wanted: str) -> str:
        return "eager"

    def serving(self, shape: tuple[int, ...]) -> str:
        return "openvino" if self.ready else "eager"


@pytest.mark.parametrize("both", [True, False])
def test_both_sides_run_under_one_engine_that_is_named(
    predictors: Predictors, monkeypatch: pytest.MonkeyPatch, both: bool
) -> None:
    engines = {
        spec: Served(predictors.model_cache.get(spec).network, ready)
        for spec, ready in ((MODEL, True), (BASELINE, both))
    }
    monkeypatch.setattr(predictors, "classifier", lambda loaded, engine: SimpleNamespace(engine=engines[loaded.spec]))
    last = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, None))[-1]
    assert last.single.engine == benchmark_json(last)["engine_batch_1"] == ("openvino" if both else "eager")
    assert ("One image at a time, OpenVINO" if both else "eager PyTorch") in charts.comparison(last)
    for engine in engines.values():
        assert (engine.by_eager == 0) is both and (engine.by_graph > 1) is both  # the first one asks for the graph


@pytest.mark.parametrize("steps", [1, 2, 5])
def test_a_benchmark_that_is_closed_stops_measuring_and_frees_the_device(predictors: Predictors, steps: int) -> None:
    running = benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, 4)
    for _ in range(steps):
        next(running)
    running.close()
    calls = len(predictors.model_cache.get(MODEL).network.batches)
    predictors.compute.run(len, ())  # is free
    assert len(predictors.model_cache.get(MODEL).network.batches) == calls
    assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize("value", [0, -1, 3, 10**9, 8.0, "8", None, True, [8]])
def test_a_batch_size_that_is_not_offered_is_refused(value: object) -> None:
    with pytest.raises(BadBatchSize, match="1, 4, 8"):
        check_batch_size(value)


def finished(model_ms: float, baseline_ms: float, spread: float = 0.0) -> BenchmarkState:
    """A comparison whose middle half of rounds is so wide, as part of its median."""
    entries = [BenchmarkEntry(spec, 10**6, macs, macs) for spec, macs in ((MODEL, 10**9), (BASELINE, 2 * 10**9))]
    median = baseline_ms / model_ms
    ratios = Quartiles(median * (1 - spread / 2), median, median * (1 + spread / 2))
    single, batched = (
        Turns(*(LatencySummary(size * ms, size * ms, size * ms, 9) for ms in (model_ms, baseline_ms)), ratios)
        for size in (1, 4)
    )
    return BenchmarkState("Done", 1.0, *entries, 8, "a CPU, float32", single=single, batched=batched)


def test_the_speed_up_is_the_median_of_the_ratios_within_rounds(
    predictors: Predictors, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What slows the machine down in some rounds falls on both models, and cancels."""
    times_ms = [(10.0, 15.0), (30.0, 45.0), (10.0, 15.0), (12.0, 30.0), (40.0, 60.0)]

    def rounds(*_: object, **__: object) -> Iterator[Round]:
        for index, (own, theirs) in enumerate(times_ms):
            yield Round(index, {MODEL.name: own, BASELINE.name: theirs})

    monkeypatch.setattr(demo.benchmark, "interleave", rounds)
    for limits in ("LATENCY", "THROUGHPUT"):
        monkeypatch.setattr(demo.benchmark, limits, Limits(1e-6, 1e-6))
    last = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, 4))[-1]
    assert last.single.speed_up == (1.5, 1.5, 1.5) and last.batched.speed_up.median == 1.5
    assert last.single.baseline.median_ms / last.single.model.median_ms == 2.5
    assert "<dd>1.50, 1.50 to 1.50</dd>" in charts.comparison(last)


@pytest.mark.parametrize(
    ("model_ms", "baseline_ms", "spread", "number", "words"),
    [
        (10.0, 15.0, 0.4, "1.50×", "faster: 67% of the time of Swin-S"),
        (20.0, 10.0, 0.2, "0.50×", "slower: 2.00 times the time of Swin-S"),
        (10.0, 10.1, 0.04, "no clear difference", "takes as long as Swin-S"),
        (10.0, 10.1, 0.4, "no clear difference", "this machine is busy"),
        (10.0, 90.0, 0.6, "no clear difference", "this machine is busy"),
    ],
)
def test_the_chart_says_in_plain_words_which_is_faster_and_no_number_in_doubt(
    model_ms: float, baseline_ms: float, spread: float, number: str, words: str
) -> None:
    chart = charts.comparison(finished(model_ms, baseline_ms, spread))
    for expected in (f"<strong>{number}</strong>", words, "<dt>Fewer multiply-adds</dt><dd>2.00×</dd>"):
        assert expected in chart


def test_more_multiply_adds_are_not_called_fewer() -> None:
    state = finished(10, 10)
    swapped = charts.comparison(replace(state, model=state.baseline, baseline=state.model))
    assert "<dt>More multiply-adds</dt><dd>2.00×</dd>" in swapped


def test_a_doubtful_comparison_goes_on_until_it_is_clear_or_its_time_is_up(
    predictors: Predictors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.benchmark, "SHORT", Limits(1e-6, 600.0))
    doubtful, clear = [(10.0, 10.0 + index % 2) for index in range(MIN_ROUNDS)], (10.0, 20.0)
    given = iter([*doubtful, *[clear] * 20])
    monkeypatch.setattr(
        demo.benchmark,
        "interleave",
        lambda *_, **__: (Round(0, dict(zip((MODEL.name, BASELINE.name), times, strict=True))) for times in given),
    )
    states = list(benchmark_classifiers(predictors, IMAGES, MODEL, BASELINE, None))
    last = states[-1]
    assert last.single.verdict == "faster" and MIN_ROUNDS < last.single.model.runs < MIN_ROUNDS + 20
    unclear = [state for state in states if state.single and state.single.verdict == "unclear"]
    assert unclear and all("measuring on" in charts.comparison(state) for state in unclear)
    assert all("not clear yet" in state.stage for state in unclear)


def test_published_figures_are_labelled_as_the_papers(predictors: Predictors) -> None:
    chart = charts.comparison(finished(10, 15))
    published = chart[chart.index("Published (paper, V100") :]
    assert "82.7" in published and "717" in published and "551" in published
    assert "not measured here" in published


def test_figures_that_no_paper_prints_are_not_made_up() -> None:
    state = finished(10, 15)
    evit, tome = (
        OFFERED.find(f"{name}_deit_small_patch16_224:{option}")
        for name, option in (("evit", "keep_rate=0.7"), ("tome", "r=8"))
    )
    one = charts.comparison(replace(state, model=replace(state.model, spec=evit)))
    assert "Published in the papers" in one and "<td>not printed</td><td>551</td>" in one
    both = replace(state, model=replace(state.model, spec=evit), baseline=replace(state.baseline, spec=tome))
    assert "<td>78.5</td><td>not printed</td>" in charts.comparison(both)
    none = replace(both, model=replace(state.model, spec=OFFERED.find(tome.name.replace("r=8", "r=16"))))
    assert "Published" not in charts.comparison(none)


def test_charts_escape_what_they_are_given() -> None:
    state = replace(finished(10, 15), stage="<script>1</script>", device="<img onerror=1>")
    assert "<script" not in charts.comparison(state) and "<img" not in charts.comparison(state)
    assert "<b>x</b>" not in bars.notice("<b>x</b>", detail="<b>x</b>")


def test_a_benchmark_as_json_has_plain_values(predictors: Predictors) -> None:
    document = benchmark_json(finished(10, 15))
    assert document["speedup_batch_1"] == 1.5 and document["speedup_batch_1_quartiles"] == [1.5, 1.5, 1.5]
    assert document["model"]["images_per_second"] == 200
    assert document["verdict_batch_1"] == document["verdict_batched"] == "faster"
    assert document["model"]["latency"] == {"median_ms": 10, "q1_ms": 10, "q3_ms": 10, "runs": 9}
