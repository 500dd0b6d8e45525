"""The solved example that the page opens on: up to date, and shown for its own models alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from demo.charts.story import headline
from demo.model_specs import build_registry
from demo.page.examples import Gallery
from demo.page.solved import STORED, FirstComparison, example, store
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.tabs.classify.handlers import ClassifyHandlers


@pytest.fixture(scope="module")
def registry() -> Registry:
    return build_registry()


def test_the_stored_answers_are_those_of_the_weights_that_are_shipped(registry: Registry) -> None:
    solved = example(registry)
    assert solved is not None, "new weights: run python -m demo.page.solved"
    fresh = Predictors(torch.device("cpu"), torch.float32).classify_file(solved.path, *solved.specs)
    for stored, now in ((solved.run.model, fresh.model), (solved.run.baseline, fresh.baseline)):
        assert [entry.label for entry in stored.predictions] == [entry.label for entry in now.predictions]
        given = [entry.probability for entry in stored.predictions]
        assert given == pytest.approx([entry.probability for entry in now.predictions], abs=1e-3)
        assert len(stored.regions) == len(now.regions)
        for layer, layer_now in zip(stored.regions, now.regions, strict=True):
            assert (layer.layer, layer.semantic_grid_hw) == (layer_now.layer, layer_now.semantic_grid_hw)
            assert (layer.assignment == layer_now.assignment).mean() > 0.97  # ties may fall otherwise elsewhere
            np.testing.assert_allclose(layer.attention, layer_now.attention, atol=2e-3)
    assert solved.run.model.predictions[0].label == solved.run.baseline.predictions[0].label == "t-shirt"


def test_the_command_writes_what_the_page_reads(registry: Registry, tmp_path: Path) -> None:
    store(tmp_path / "solved.json")
    assert example(registry, tmp_path / "solved.json").specs == example(registry).specs


def test_answers_of_other_weights_are_not_shown(registry: Registry, tmp_path: Path) -> None:
    stored = json.loads(STORED.read_text())
    stored["answers"][1]["sha256"] = "0" * 64
    (tmp_path / "solved.json").write_text(json.dumps(stored))
    assert example(registry, tmp_path / "solved.json") is None
    assert example(build_registry({})) is None


def test_the_graphs_of_its_models_are_there_before_the_first_request(registry: Registry, direct: None) -> None:
    solved = example(registry)
    for name in ("openvino", "eager"):
        predictors = Predictors(torch.device("cpu"), engine=name)
        assert FirstComparison(Runtime(predictors, registry), solved).state().engine == name
        for spec in solved.specs:
            engine = predictors.classifier(predictors.model_cache.get(spec)).engine
            assert engine.serving((1, 3, spec.input_size, spec.input_size)) == name


def test_its_models_are_compared_once_when_the_server_starts(registry: Registry) -> None:
    handlers = ClassifyHandlers(Runtime(Predictors(torch.device("cpu")), registry), Gallery.load("classify"))
    solved, state = handlers.solved, handlers.first_comparison.state()
    assert state.done and (state.model.spec, state.baseline.spec) == solved.specs and state.single is not None
    assert "16 tokens instead of 196" in headline(*solved.specs, state)
    names = [spec.name for spec in solved.specs]
    assert handlers.first_speed(None, *names)["benchmark_state"] == state
    for shown, chosen in ((state, names), (None, names[::-1])):  # a newer one is there, or other models are chosen
        assert "benchmark_state" not in handlers.first_speed(shown, *chosen)


def test_on_a_lent_gpu_nothing_is_measured_without_a_request(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = Runtime(Predictors(torch.device("cpu")), registry)
    monkeypatch.setenv("SPACES_ZERO_GPU", "1")
    assert FirstComparison(runtime, example(registry)).state() is None
