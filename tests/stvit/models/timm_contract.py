"""What timm's own ``tests/test_models.py`` asks of every model, as one call for each model.

Left out is TorchScript: a forward that may return a trace has no single type, and ``torch.export`` has its own test.
"""

from __future__ import annotations

import fnmatch
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.layers import Format, get_channel_dim, get_spatial_dim
from timm.models._manipulate import group_parameters
from timm.optim import create_optimizer_v2
from torch import Tensor, nn

DROPOUTS = ("drop_rate", "proj_drop_rate", "attn_drop_rate")


def check_structure(name: str) -> None:
    """Configuration, heads, groups of parameters, device and type of a registered model; on meta tensors."""
    model = timm.create_model(name, device="meta", dtype=torch.float32).eval()
    names, cfg = {n for n, _ in model.named_parameters()}, model.default_cfg
    assert {t.device.type for t in [*model.parameters(), *model.buffers()]} == {"meta"}
    assert model.num_classes == cfg["num_classes"] and model.in_chans == cfg["input_size"][0]
    for part in (cfg["first_conv"], *as_tuple(cfg["classifier"])):
        assert f"{part}.weight" in names

    with pytest.raises(TypeError):
        timm.create_model(name, device="meta", not_a_model_arg=1)
    assert inspect.signature(model.reset_classifier).parameters["global_pool"].default is None
    assert len(set(group_parameters(model, model.group_matcher(coarse=False), reverse=True).values())) > 1
    assert len(set(group_parameters(model, model.group_matcher(coarse=True), reverse=True).values())) > 1
    assert all(fnmatch.filter(names, p) or getattr(model, p, None) is None for p in model.no_weight_decay())
    create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.75)


def check_features_and_heads(name: str, example: Callable[[nn.Module], Tensor]) -> None:
    """Shapes of features, pooled features and logits, with the head replaced, removed, and never made; on meta."""
    model = timm.create_model(name, device="meta").eval()
    images = example(model).to("meta")
    features = model.forward_features(images)
    pooled = model.forward_head(features, pre_logits=True)
    assert pooled.shape == (len(images), model.head_hidden_size)
    if getattr(model, "output_fmt", "") == "NHWC":
        fmt = Format(model.output_fmt)
        assert tuple(features.shape[i] for i in get_spatial_dim(fmt)) == model.default_cfg["pool_size"]
        assert features.shape[get_channel_dim(fmt)] == model.num_features
    else:
        assert features.shape[-1] == model.num_features

    assert model.to(torch.bfloat16)(images.bfloat16()).dtype == torch.bfloat16
    model.float().reset_classifier(0)
    assert model.num_classes == 0 and model(images).shape == pooled.shape
    assert timm.create_model(name, num_classes=0, device="meta").eval()(images).shape == pooled.shape

    model.to(torch.float64).reset_classifier(2)
    heads = [p for head in as_tuple(model.get_classifier()) for p in head.parameters()]
    assert heads and {(p.device.type, p.dtype) for p in heads} == {("meta", torch.float64)}
    assert not any(module.training for module in model.modules())
    model.requires_grad_(False).reset_classifier(0)
    assert not any(p.requires_grad for p in model.parameters())


def check_backward(model: nn.Module, images: Tensor) -> None:
    """Finite logits, and a gradient for every parameter."""
    logits = model.train()(images)
    assert logits.shape == (len(images), model.num_classes) and logits.isfinite().all()
    logits.mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def check_grad_checkpointing(build: Callable[..., nn.Module], loss: Callable[[nn.Module], Tensor]) -> None:
    """The same loss and gradients from fewer saved activations, and every layer run twice.

    Args:
        build: makes the model, with the same weights every time.
        loss: of a forward pass in training.
    """
    found = {}
    for enabled in (False, True):
        model = build().train()
        model.set_grad_checkpointing(enabled)
        norms = [module for n, module in model.named_modules() if n.endswith(".norm2")]
        calls: list[nn.Module] = []
        for norm in norms:
            norm.register_forward_hook(lambda module, *_, calls=calls: calls.append(module))
        torch.manual_seed(0)
        total, kept = loss_and_saved_bytes(model, loss)
        total.backward()
        assert len(calls) == (2 if enabled else 1) * len(norms)
        found[enabled] = kept, total.detach(), {n: p.grad for n, p in model.named_parameters()}
    assert found[True][0] < found[False][0]
    torch.testing.assert_close(found[True][1:], found[False][1:], atol=1e-6, rtol=1e-4)
    model.set_grad_checkpointing(False)
    assert loss_and_saved_bytes(model, loss)[1] == found[False][0]


def loss_and_saved_bytes(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> tuple[Tensor, int]:
    """The loss of one forward pass and the bytes that are kept for its backward pass, parameters left out."""
    parameters = {p.untyped_storage()._cdata for p in model.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage()._cdata not in parameters:
            kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        total = loss(model)
    return total, sum(tensor.untyped_storage().nbytes() for tensor in kept.values())


def check_dropout(build: Callable[..., nn.Module], images: Tensor) -> None:
    """Every rate that timm's trainer passes changes training, and training alone."""
    plain = build().eval()
    with torch.no_grad():
        expected = plain(images)
        for rate in (*DROPOUTS, "drop_path_rate"):
            model = build(**{rate: 0.5})
            model.load_state_dict(plain.state_dict())
            torch.testing.assert_close(model.eval()(images), expected)
            for module in model.modules():  # so that BatchNorm does not differ
                module.train(not isinstance(module, nn.modules.batchnorm._BatchNorm))
            assert not torch.allclose(model(images), model(images)), f"{rate} has no effect"


def check_every_layer_drops(build: Callable[..., nn.Module], images: Tensor) -> None:
    """With everything dropped after the projections, no attention or feed-forward network learns; with all attention
    weights dropped, no attention learns more than the biases of its projection."""
    parts = {"*.attn.*": "proj_drop_rate", "*.mlp.*": "proj_drop_rate", "*.attn.proj.weight": "attn_drop_rate"}
    for pattern, rate in parts.items():
        model = build(**{rate: 1.0}).train()
        model(images).square().sum().backward()
        idle = {n: p for n, p in model.named_parameters() if fnmatch.fnmatch(n, pattern)}
        assert idle and [n for n, p in idle.items() if p.grad.any()] == [], rate


def check_round_trip(build: Callable[..., nn.Module], images: Tensor, folder: Path) -> None:
    """Weights through safetensors give the same logits."""
    model, other = build().eval(), build().eval()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.zero_()
        save_file(model.state_dict(), folder / "model.safetensors")
        other.load_state_dict(load_file(folder / "model.safetensors"))
        assert torch.equal(other(images), model(images))


def as_tuple(value: Any) -> tuple[Any, ...]:
    return tuple(value) if isinstance(value, tuple | list) else (value,)
