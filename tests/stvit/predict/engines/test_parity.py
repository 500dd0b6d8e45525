"""Every family answers under OpenVINO as in eager, in fp32 and in bf16, regions included; one conversion for each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stvit.export.export import TOLERANCE
from stvit.export.formats import Traced, convert_openvino, openvino_core, tensors
from stvit.export.graph import InferenceGraph, exportable
from stvit.predict.engines import Answer, Engine, backends
from stvit.predict.engines.cache import GraphCache
from stvit.predict.regions import regions_of_batch
from tests.stvit.export.small_models import FULL_TOKEN, SMALL, build, images_for

LONG = ("dynamicswin", "stvit_swin", "stvit_r_swin", "swin", "detector", "upernet", "video_swin", "stvit_video_swin")
EVERY = [
    pytest.param(name, marks=[pytest.mark.slow] if name in LONG else [])
    for name in SMALL
    if name != "dense_backbone"  # which is part of the detector's
]
AGREEMENT = 0.99  # share of image tokens whose token is eager's; the others are ties to rounding


def rounded_network(name: str) -> torch.nn.Module:
    """The small model with weights that bf16 holds exactly, so that one graph is that of both precisions."""
    return exportable(build(name)).bfloat16().float()


@pytest.mark.parametrize("name", EVERY)
def test_openvino_answers_as_eager_does(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network, cache, converted = rounded_network(name), GraphCache(tmp_path), []

    def convert(traced: Traced) -> Any:
        converted.append(convert_openvino(traced))
        return converted[0]

    monkeypatch.setattr(backends, "convert_openvino", convert)
    own = Engine(network, "openvino", regions="attention", cache=cache, wait=True)
    eager = Engine(network, "eager")
    for batch in (2, 1):
        images = images_for(name, batch)
        with torch.inference_mode():  # as predictors call it
            answer, expected = own(images, "attention"), eager(images, "attention")
        assert (answer.engine, expected.engine, own.notes) == ("openvino", "eager", [])
        torch.testing.assert_close(answer.outputs, expected.outputs, atol=TOLERANCE, rtol=TOLERANCE)
        assert bool(answer.regions) == (name not in FULL_TOKEN)
        assert_same_regions(answer, expected)
    assert_as_exact_in_bf16(name, network, *converted)


def assert_same_regions(answer: Answer, expected: Answer) -> None:
    assert regions_of_batch(answer.regions, 1)  # numbers lie within the layer's
    for found, wanted in zip(answer.regions, expected.regions, strict=True):
        assert found.layer == wanted.layer and (found.attention is None) == (wanted.attention is None)
        assert (found.assignment == wanted.assignment).float().mean() > AGREEMENT
        if found.attention is not None:
            torch.testing.assert_close(found.attention, wanted.attention, atol=TOLERANCE, rtol=TOLERANCE)


def assert_as_exact_in_bf16(name: str, network: torch.nn.Module, model: Any) -> None:
    """The same graph in bf16 is as near to fp32 as eager in bf16 is."""
    images = images_for(name, 2)
    graph, half = InferenceGraph(network), InferenceGraph(copy.deepcopy(network).bfloat16())
    with torch.inference_mode():
        wanted, eager = graph(images), half(images)
    compiled = openvino_core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16"})
    got = tensors(compiled(images.numpy()).values())[: len(wanted)]
    for found, rounded, exact in zip(got, eager, wanted, strict=True):
        assert apart(found, exact) <= 3 * apart(rounded, exact) + 20 * TOLERANCE * max(1.0, exact.abs().max().item())


def apart(one: Tensor, other: Tensor) -> float:
    return (one - other).abs().max().item()
