"""timm's promises, model by model: see :mod:`tests.stvit.models.timm_contract`."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import stvit
from stvit.detection.losses import DetectionTarget
from tests.stvit.models import clip_models, timm_contract
from tests.stvit.models.families import FAMILIES, LVVIT, VIT, images_for, narrow

OURS = sorted(n for n in timm.list_models() if timm.model_entrypoint(n).__module__.startswith("stvit.models."))
SMALLEST = [n for n in OURS if "tiny" in n or (n.replace("small", "tiny") not in OURS and "base" not in n)]
DENSE = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8), "num_classes": 3}


def seeded(build: Callable[..., nn.Module], **options: Any) -> nn.Module:
    torch.manual_seed(0)
    return build(**options)


NARROW: dict[str, Callable[..., nn.Module]] = {
    **{name: partial(seeded, build) for name, build in clip_models.NARROW.items()},
    **{name: partial(narrow, name) for name in FAMILIES},
}


def example(model: nn.Module, batch: int = 2) -> Tensor:
    """Random input of the size that a narrow model takes."""
    if getattr(model, "output_fmt", "") == "NTHWC":
        return clip_models.clips(batch, 3, 4, 112, 112)
    return images_for(model, batch)


def full_size(model: nn.Module) -> Tensor:
    """Input of the size that a registered model takes."""
    clip = getattr(model, "output_fmt", "") == "NTHWC"
    return torch.zeros(2, 3, 4, 224, 224) if clip else torch.zeros(2, 3, 224, 224)


def squared_logits(model: nn.Module) -> Tensor:
    return model(example(model)).square().mean()


def test_all_models_are_here() -> None:
    assert len(OURS) == 38


@pytest.mark.parametrize("name", OURS)
def test_structure(name: str) -> None:
    timm_contract.check_structure(name)


@pytest.mark.parametrize("name", SMALLEST)
def test_features_and_heads(name: str) -> None:
    timm_contract.check_features_and_heads(name, full_size)


@pytest.mark.parametrize("name", NARROW)
def test_backward(name: str) -> None:
    model = NARROW[name]()
    timm_contract.check_backward(model, example(model))


@pytest.mark.parametrize("name", NARROW)
def test_grad_checkpointing(name: str) -> None:
    timm_contract.check_grad_checkpointing(partial(NARROW[name], drop_path_rate=0.1), squared_logits)


@pytest.mark.parametrize("name", NARROW)
def test_dropout(name: str) -> None:
    timm_contract.check_dropout(NARROW[name], example(NARROW[name]()))


@pytest.mark.parametrize("name", NARROW)
def test_every_layer_drops(name: str) -> None:
    timm_contract.check_every_layer_drops(NARROW[name], example(NARROW[name]()))


@pytest.mark.parametrize("name", NARROW)
def test_round_trip(name: str, tmp_path: Path) -> None:
    timm_contract.check_round_trip(NARROW[name], example(NARROW[name]()), tmp_path)


@pytest.mark.parametrize("name", ["stvit_r_swin_small_upernet", "swin_small_upernet"])
def test_grad_checkpointing_of_segmenters(name: str) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        return stvit.create_model(name, channels=4, auxiliary_channels=4, drop_path_rate=0.1, **DENSE)

    def loss(model: nn.Module) -> Tensor:
        images, labels = clip_models.clips(2, 3, 96, 128), torch.ones(2, 96, 128, dtype=torch.int64)
        return sum(model.losses(images, labels).values())

    timm_contract.check_grad_checkpointing(build, loss)


@pytest.mark.parametrize("name", ["stvit_r_swin_small_cascade_mask_rcnn", "swin_small_cascade_mask_rcnn"])
def test_grad_checkpointing_of_detectors(name: str) -> None:
    def build() -> nn.Module:
        torch.manual_seed(0)
        sizes = {"fpn_channels": 4, "box_hidden": 4, "num_proposals": 20}
        return stvit.create_model(name, attn_drop_rate=0.1, proj_drop_rate=0.1, **sizes, **DENSE)

    def loss(model: nn.Module) -> Tensor:
        mask = torch.zeros(1, 96, 128, dtype=torch.bool)
        mask[:, 20:60, 30:90] = True
        target = DetectionTarget(torch.tensor([[30.0, 20, 90, 60]]), torch.tensor([1]), mask)
        return sum(model.losses(clip_models.clips(1, 3, 96, 128), [target]).values())

    timm_contract.check_grad_checkpointing(build, loss)


@pytest.mark.parametrize("name", ["evit_deit", "tome_deit", "evit_lvvit", "lvvit"])
def test_images_of_any_size_on_request(name: str) -> None:
    model = narrow(name, dynamic_img_size=True)
    with torch.no_grad():
        torch.testing.assert_close(model(images_for(model)), narrow(name)(images_for(model)))
        assert model(torch.randn(1, 3, 64, 128)).shape == (1, 7)
        if name != "lvvit":
            trace = model(torch.randn(1, 3, 64, 128), return_trace=True)[1]
            assert {layer.image_grid_hw for layer in trace.layers} == {(8, 16)}
            assert trace.layers[-1].assignment.shape == (1, 128)


@pytest.mark.parametrize("name", ["evit_deit", "tome_deit", "evit_lvvit", "lvvit"])
def test_the_input_size_can_be_set_later(name: str) -> None:
    model = narrow(name)
    model.set_input_size((64, 128))
    with torch.no_grad():
        assert model(torch.randn(1, 3, 64, 128)).shape == (1, 7)


@pytest.mark.parametrize(("name", "sizes"), [("stvit_deit", VIT), ("stvit_lvvit", LVVIT)])
def test_models_of_one_size_say_so(name: str, sizes: dict) -> None:
    with pytest.raises(ValueError, match=r"one image size: create the model with img_size="):
        narrow(name, dynamic_img_size=True)
    with pytest.raises(ValueError, match=r"one image size: create the model with img_size="):
        narrow(name).set_input_size((64, 128))
    with torch.no_grad():
        assert narrow(name, img_size=(64, 128))(torch.randn(1, 3, 64, 128)).shape == (1, sizes["num_classes"])
