"""For every record, the page and the shell load the same file, and see and say the same of a picture."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save
from torch import nn

import stvit
from demo.model_cache import ModelCache
from demo.predictors import preprocessing_of
from stvit.predict.classifier import Classifier
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.records import ModelRecord, catalogue, record
from stvit.pretrained.resolve import resolve
from tests.demo.conftest import OFFERED
from tests.hub_server import HubServer
from tests.sure_detector import PHOTO

SWIN: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8)}
DETECTOR = {**SWIN, "fpn_channels": 16, "box_hidden": 32}
DEIT: dict[str, Any] = {"embed_dim": 48, "num_heads": 3, "depth": 2}
OURS = [name for name in catalogue() if name.startswith("stvit_r")]


def narrow(name: str) -> dict[str, Any]:
    """Options that make a model of this record narrow."""
    return DEIT if name.startswith("deit") else DETECTOR if record(name).test_scale else SWIN


def content_of(found: ModelRecord, seed: int) -> bytes:
    """A file of random weights of the narrow model, in the container in which the real one comes."""
    torch.manual_seed(seed)
    model = timm.create_model(found.architecture, **narrow(found.name))
    if found.filename.endswith(".safetensors"):
        return save(model.state_dict())
    buffer = io.BytesIO()
    torch.save({"state_dict" if found.test_scale else "model": model.state_dict(), "epoch": 300}, buffer)
    return buffer.getvalue()


@pytest.fixture
def published(hub: HubServer, request: pytest.FixtureRequest) -> Iterator[ModelRecord]:
    """The record, with its file on the Hub, and other weights where timm's default tag has them."""
    found = record(request.param)
    hub.add_file(found.repo, found.filename, content_of(found, seed=0))
    default = timm.get_pretrained_cfg(found.architecture)
    if default.hf_hub_id != found.hf_hub_id:
        hub.add_file(default.hf_hub_id, "model.safetensors", content_of(found, seed=1))
    return found


def on_the_page(found: ModelRecord) -> tuple[nn.Module, str]:
    """The network that the page runs, and where its weights came from."""
    spec = replace(OFFERED.find(found.architecture), options=narrow(found.name))
    loaded = ModelCache(torch.device("cpu"), torch.float32).get(spec)
    assert not loaded.problem
    return loaded.network, loaded.weights


@pytest.mark.parametrize("published", catalogue(), indirect=True)
def test_page_and_shell_run_the_same_weights(published: ModelRecord) -> None:
    network, origin = on_the_page(published)
    shell = stvit.create_model(published.architecture, pretrained=True, **narrow(published.name))
    assert origin == f"{published.repo} (Hub)"
    assert shell.pretrained_cfg["file"] == str(resolve(published, offline=True).path)
    pixels = np.asarray(Image.open(PHOTO).convert("RGB"))
    with torch.inference_mode():
        if published.test_scale:
            one, other = (model.predict(pixels, scale=(128, 96), score_threshold=0.0) for model in (network, shell))
            assert len(one.scores) > 0
            assert torch.equal(one.boxes, other.boxes) and torch.equal(one.scores, other.scores)
        else:
            ways = preprocessing_of(OFFERED.find(published.architecture)), Classifier(shell).preprocessing
            page_input, shell_input = (way.normalise(way.resize(pixels))[None] for way in ways)
            assert torch.equal(network(page_input), shell(shell_input))


@pytest.mark.parametrize("published", OURS, indirect=True)
def test_timm_itself_runs_the_verified_weights_of_our_models(published: ModelRecord, hub: HubServer) -> None:
    options = narrow(published.name)
    by_timm = timm.create_model(published.name, pretrained=True, **options).state_dict()
    shell = stvit.create_model(published.name, pretrained=True, **options).state_dict()
    assert by_timm.keys() == shell.keys() and all(torch.equal(by_timm[name], shell[name]) for name in shell)
    resolve(published).path.resolve().write_bytes(b"others")
    with pytest.raises(WeightsUnavailable, match="has changed since its first download"):
        timm.create_model(published.name, pretrained=True, **options)


@pytest.mark.parametrize("published", ["deit_tiny_patch16_224.fb_in1k"], indirect=True)
@pytest.mark.parametrize("method", ["evit", "tome"])
def test_methods_that_run_deits_weights_take_the_verified_file(published: ModelRecord, method: str) -> None:
    name = f"{method}_deit_tiny_patch16_224"
    own_classes = timm.create_model(name, pretrained=True, num_classes=3, **DEIT)
    whole = stvit.create_model("deit_tiny_patch16_224", pretrained=True, **DEIT)
    assert record(name).repo == published.repo and own_classes.head.out_features == 3
    assert torch.equal(own_classes.patch_embed.proj.weight, whole.patch_embed.proj.weight)
    resolve(published).path.resolve().write_bytes(b"others")
    with pytest.raises(WeightsUnavailable, match="has changed since its first download"):
        timm.create_model(name, pretrained=True, **DEIT)


def test_page_shell_and_clips_show_a_model_the_same_part_of_a_picture() -> None:
    for spec in OFFERED:
        if spec.bundled is None and record(spec.model).num_classes == 1000:
            assert spec.crop_pct == record(spec.model).crop_pct == 224 / 256
    for name in ("stvit_r_swin_small_224", "swin_tiny_patch4_window7_224", "deit_tiny_patch16_224"):
        seen = Classifier(stvit.create_model(name, **narrow(name))).preprocessing
        assert (seen.input_size, seen.crop_pct) == (224, 224 / 256)
