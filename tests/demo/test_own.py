"""Bring your own: what may be measured, what is refused and why, and the measurement of two networks made for it."""

from __future__ import annotations

import gc
import threading
import time
import weakref

import pytest
import timm
import torch
from torch import nn

import demo.benchmark
import demo.own
import stvit
from demo.benchmark import MIN_ROUNDS, BadBatchSize, Limits
from demo.model_specs import build_registry
from demo.own import DEFAULT, DEFAULT_POSITION, MAX_PARAMETERS, OwnComparisons, look_up, own_pair
from demo.predictors import Predictors, UnknownEngine
from demo.runtime import Runtime
from demo.tabs.benchmarks.own import OwnHandlers
from stvit.errors import UserError
from stvit.predict.engines import Engine
from stvit.pretrained.records import UnknownModel
from stvit.sparsify.architectures import architectures
from tests.stvit.sparsify.hosts import HOSTS

TINY, SWIN = "deit_tiny_patch16_224", "swin_tiny_patch4_window7_224"
TOY = "test_vit"  # of timm's own tests: 6 narrow layers, 160 pixels


@pytest.fixture
def predictors() -> Predictors:
    return Predictors(torch.device("cpu"), torch.float32)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparisons end with their first rounds."""
    monkeypatch.setattr(demo.benchmark, "SHORT", Limits(1e-6, 1e-6))


@pytest.fixture
def handlers(predictors: Predictors) -> OwnHandlers:
    return OwnHandlers(Runtime(predictors, build_registry({})))


def test_the_list_has_every_family_that_is_tested_and_no_other_networks() -> None:
    assert set(HOSTS) <= set(architectures())
    assert not {"resnet50", "sparsified", "stvit_deit_tiny_patch16_224", "naflexvit_base_patch16_gap"} & set(
        architectures()
    )


def test_what_is_known_of_an_architecture_is_that_of_the_network() -> None:
    found, network = look_up(TINY), timm.create_model(TINY)
    assert found.parameters == sum(parameter.numel() for parameter in network.parameters()) < MAX_PARAMETERS
    assert found.macs == stvit.count_macs(network) and found.input_shape == (3, 224, 224)
    assert (found.depth, found.position, found.most_tokens, found.windows) == (12, 4, 196, False)
    swin = look_up(SWIN)
    assert (swin.depth, swin.position, swin.most_tokens, swin.windows) == (6, 2, 49, True)


@pytest.mark.parametrize(
    ("chosen", "words"),
    [
        (("resnet50", 16), "'resnet50' is no VisionTransformer, Eva or SwinTransformer of timm"),
        (("../../etc/passwd", 16), "is no VisionTransformer"),
        (("deit_tiny_patch16", 16), "Did you mean deit_tiny_patch16_224 or "),
        ((None, 16), "'None' is no VisionTransformer"),
        (([TINY], 16), "is no VisionTransformer"),
        (("vit_small_r26_s32_224", 16), "cannot be sparsified: most of a convolutional hybrid's work"),
        (
            ("vit_giant_patch14_reg4_dinov2", 16),
            "has 1.1 billion parameters; this page measures networks of up to 100 m",
        ),
        (("vit_small_patch14_dinov2", 16), "47 G multiply-adds for an image of 518 × 518 pixels; this page measures"),
        ((TINY, 10), "10 is no square number"),
        ((TINY, -4), "-4 is no square number"),
        ((TINY, 10**8), "Choose a square number from 1 to 196"),
        ((SWIN, 64), "Choose a square number from 1 to 49"),
        ((TINY, None), "is a whole number, not 'None'"),
        ((TINY, 16.5), "is a whole number, not '16.5'"),
        ((TINY, True), "is a whole number, not 'True'"),
        ((TINY, 16, 11), "Choose stgm_position from 0 to 10"),
        ((TINY, 16, -2), "Choose stgm_position from 0 to 10"),
        ((TINY, 16, "4"), "is a whole number, not '4'"),
    ],
)
def test_what_is_not_measured_is_refused_with_the_reason(chosen: tuple, words: str) -> None:
    with pytest.raises(UserError) as error:
        own_pair(*chosen)
    assert words in str(error.value)


def test_nothing_beyond_the_list_is_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo.own, "skeleton", lambda name: pytest.fail(f"built {name}"))
    for name in ("resnet50", "hf-hub:somebody/model", "local-dir:/tmp", "sparsified", "naflexvit_base_patch16_gap"):
        with pytest.raises(UnknownModel):
            look_up(name)


def test_both_networks_are_measured_and_go_with_the_comparison(
    predictors: Predictors, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[weakref.ref[nn.Module]] = []
    engine_of = predictors.engine_of
    monkeypatch.setattr(
        predictors, "engine_of", lambda network, *how: made.append(weakref.ref(network)) or engine_of(network, *how)
    )
    sparse, original = own_pair(TOY, 4)
    before = torch.random.get_rng_state()
    *_, last = OwnComparisons(predictors).measure(sparse, original, 1, "eager")
    assert last.done and last.batched is None and last.single.engine == "eager"
    assert last.single.model.runs == last.single.baseline.runs >= MIN_ROUNDS and last.single.verdict
    assert last.baseline.macs == look_up(TOY).macs > 2 * last.model.macs
    assert (sparse.label, original.label) == ("4 tokens after 2 layers", TOY)
    assert torch.equal(before, torch.random.get_rng_state()) and not predictors.model_cache._models
    gc.collect()
    assert len(made) == 2 and not any(network() for network in made)


def test_a_graph_that_is_being_made_is_waited_for_before_another_begins(
    predictors: Predictors, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or networks would gather in memory, two for every comparison that somebody leaves."""
    done, begun = threading.Event(), []

    def make(engine: Engine, *what: object) -> None:
        begun.append(engine)
        done.wait(60)

    monkeypatch.setattr(Engine, "_make", make)
    monkeypatch.setattr(demo.own, "REPORT_EVERY_S", 0.01)
    predictors.engines = ("eager", "openvino")
    comparisons = OwnComparisons(predictors)
    left = comparisons.measure(*own_pair(TOY, 4), 1, "openvino")
    while next(left).stage != "Making graphs" or len(begun) < 2:
        time.sleep(0.001)
    left.close()
    waiting = comparisons.measure(*own_pair(TOY, 4), 1, "openvino")
    assert [next(waiting).stage for _ in range(3)][1:] == ["Waiting for a graph of the comparison before"] * 2
    assert len(begun) == 2
    done.set()
    *_, last = waiting
    assert last.done and len(begun) == 4


def test_batch_sizes_and_engines_that_are_not_offered_are_refused(predictors: Predictors) -> None:
    with pytest.raises(BadBatchSize):
        next(OwnComparisons(predictors).measure(*own_pair(TOY, 4), 3))
    with pytest.raises(UnknownEngine, match="no engine 'tensorrt'"):
        next(OwnComparisons(predictors).measure(*own_pair(TOY, 4), 1, "tensorrt"))


def test_the_tab_lists_describes_and_refuses(handlers: OwnHandlers) -> None:
    opened = handlers.opened(TINY)
    assert (SWIN, SWIN) in opened["architecture"].choices and len(opened["architecture"].choices) > 200
    for words in ("6 million parameters, 1.26 G", "up to 196.", "By the rule they come after 4 of its 12 layers"):
        assert words in opened["about"]
    assert "up to 49 in each window" in handlers.described(SWIN)["about"]
    assert handlers.described(SWIN)["position"] == 2 and look_up(DEFAULT).position == DEFAULT_POSITION
    assert "2 of its 6 layers of stage 3" in handlers.described(SWIN)["about"]
    assert "convolutional hybrid" in handlers.described("vit_small_r26_s32_224")["about"]
    (refused,) = handlers.compare("eager", TINY, 10, None, 1)
    assert "10 is no square number" in refused["benchmark"] and refused["benchmark_state"] is None


def test_a_comparison_is_drawn_as_those_of_the_other_tabs(handlers: OwnHandlers, short: None) -> None:
    *_, last = handlers.compare("eager", TOY, 4, 0, 1)
    assert 'data-done="true"' in last["benchmark"] and "One image at a time, eager PyTorch" in last["benchmark"]
    assert "4 tokens after 0 layers" in last["benchmark"] and "Fewer multiply-adds" in last["benchmark"]
