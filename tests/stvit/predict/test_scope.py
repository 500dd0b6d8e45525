"""Whether a picture shows what a classifier knows: one more row, in the same pass under every engine."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import stvit
from stvit.predict.classifier import Classifier
from stvit.predict.engines import engine
from stvit.predict.scope import BadScopeRow, with_scope_row
from stvit.pretrained.scope import ScopeRow
from tests.stvit.predict.engines.direct import Direct

WIDTH = 48
CLASSES = ("a", "b", "c")
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)


def row(bias: float = 0.0, width: int = WIDTH) -> ScopeRow:
    weight = tuple(np.random.default_rng(1).normal(size=width).tolist())
    rates = {"refused": 5.0, "known_samples": 10, "accepted": 10.0, "other_samples": 10, "measured_on": "nothing"}
    return ScopeRow(weight=weight, bias=bias, **rates)


@pytest.fixture(scope="module", params=["deit_tiny_patch16_224", "evit_deit_tiny_patch16_224"])
def network(request: pytest.FixtureRequest) -> torch.nn.Module:
    torch.manual_seed(0)
    return stvit.create_model(request.param, img_size=32, embed_dim=WIDTH, num_heads=3, num_classes=3).eval()


def test_the_last_logit_is_the_score_and_the_others_stay(network: torch.nn.Module) -> None:
    images = torch.randn(2, 3, 32, 32)
    extended = with_scope_row(network, row(bias=0.5))
    with torch.inference_mode():
        logits, before = extended(images), network(images)
        features = network.forward_head(network.forward_features(images), pre_logits=True)
    assert torch.allclose(logits[:, :-1], before, atol=1e-6) and before.shape == (2, 3)
    assert torch.allclose(logits[:, -1], features @ torch.tensor(row().weight) + 0.5, atol=1e-5)
    shared = {id(parameter) for parameter in network.parameters()}
    assert sum(id(parameter) not in shared for parameter in extended.parameters()) == 2  # of the last layer alone


@pytest.mark.parametrize("name", ["eager", "openvino"])
def test_a_score_below_zero_is_out_of_scope_under_every_engine(
    network: torch.nn.Module, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(engine.BACKENDS, "openvino", Direct)
    alone = Classifier(network, classes=CLASSES)(PIXELS)
    assert alone.scope_score is None and alone.in_scope
    for bias in (-100.0, 100.0):
        found = Classifier(network, classes=CLASSES, engine=name, wait=True, scope=row(bias))(PIXELS)
        assert found.engine == name and found.in_scope is (bias > 0)
        assert found.scope_score == pytest.approx(bias, abs=40)
        assert [entry.index for entry in found.predictions] == [entry.index for entry in alone.predictions]
        assert found.predictions[0].probability == pytest.approx(alone.predictions[0].probability, abs=1e-5)


def test_a_row_of_another_width_is_refused(network: torch.nn.Module) -> None:
    with pytest.raises(BadScopeRow, match="7 weights, but the last layer of the classifier takes 48 features"):
        with_scope_row(network, row(width=7))
