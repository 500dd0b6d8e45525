"""Semantic-token Swin models that start from a trained full-token Swin."""

import pytest
import timm
import torch

import stvit

SIZES = {"embed_dim": 16, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 8), "num_classes": 7}
MODELS = ("stvit_swin_tiny_224", "stvit_r_swin_small_224")


@pytest.fixture(scope="module")
def swin() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    model = timm.create_model("swin_tiny_patch4_window7_224", **SIZES)
    return {name: torch.randn_like(t) if t.is_floating_point() else t for name, t in model.state_dict().items()}


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_takes_the_weights_of_the_layer_it_replaces(swin, name):
    model = stvit.create_model(name, **SIZES)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    new = model.init_from(swin)
    after = model.state_dict()
    assert all(torch.equal(after[n], before[n]) for n in new)
    assert not [n for n in new if "mlp" in n or "norm1" in n or ".attn." in n]
    taken = {n for n in after if n not in new}
    assert torch.equal(after["norm.weight"], swin["norm.weight"])
    assert torch.equal(after["head.weight"], swin["head.fc.weight"])
    assert torch.equal(after["stages.0.downsample.norm.weight"], swin["layers.1.downsample.norm.weight"])
    assert torch.equal(after["stages.1.layers.1.attn.qkv.weight"], swin["layers.1.blocks.1.attn.qkv.weight"])
    stgm = next(n for n in taken if n.endswith("stgm_global.attn.kv.weight")).removesuffix(".attn.kv.weight")
    replaced = {"stvit_swin_tiny_224": 3, "stvit_r_swin_small_224": 2}[name]  # the second layer of the STGM
    qkv = swin[f"layers.2.blocks.{replaced}.attn.qkv.weight"]
    assert torch.equal(torch.cat([after[f"{stgm}.attn.q.weight"], after[f"{stgm}.attn.kv.weight"]]), qkv)
    assert torch.equal(after[f"{stgm}.mlp.fc1.bias"], swin[f"layers.2.blocks.{replaced}.mlp.fc1.bias"])


@pytest.mark.parametrize("name", MODELS)
def test_another_models_weights_are_refused_and_change_nothing(swin, name):
    model = stvit.create_model(name, **SIZES)
    before = {n: t.clone() for n, t in model.state_dict().items()}
    wider = dict(timm.create_model("swin_tiny_patch4_window7_224", **SIZES | {"embed_dim": 24}).state_dict().items())
    deeper = swin | {"layers.2.blocks.6.norm1.weight": torch.zeros(64)}
    fewer = {n: t for n, t in swin.items() if not n.startswith("layers.2.blocks.5.")}
    for weights, what in ((wider, "of another shape"), (deeper, "unknown"), (fewer, "missing")):
        with pytest.raises(ValueError, match=f"{what} .'"):
            model.init_from(weights)
    assert all(torch.equal(t, before[n]) for n, t in model.state_dict().items())
