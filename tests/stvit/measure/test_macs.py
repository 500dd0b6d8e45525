"""Counting multiply-adds: the same however a model runs, the same as another counter, and split without loss."""

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch import nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from stvit.measure.macs import count_macs, macs_by_layer, macs_by_module, macs_by_part, norm_costs
from tests.stvit.models.families import FAMILIES, images_for, narrow


@pytest.fixture
def explicit_attention():
    set_fused_attn(False)
    yield
    set_fused_attn(True)


def shape_for(model: nn.Module) -> tuple[int, ...]:
    return tuple(images_for(model, batch=1).shape[1:])


@pytest.mark.parametrize("family", FAMILIES)
def test_fused_attention_on_or_off_counts_the_same(family, explicit_attention):
    explicit = narrow(family)
    set_fused_attn(True)
    fused = narrow(family)
    if family != "dynamicswin":  # timm fuses the attention of windows only at a level of its own
        assert any(getattr(module, "fused_attn", getattr(module, "fused", False)) for module in fused.modules())
    assert count_macs(explicit, shape_for(explicit)) == count_macs(fused, shape_for(fused))


def cpu_attention(query_shape, key_shape, value_shape, *_, out_shape=None, **__) -> int:
    """The fused kernel of the CPU, for which torch before 2.15 has no formula."""
    return sdpa_flop_count(query_shape, key_shape, value_shape)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_run_on_the_cpu_counts_what_meta_counts(family):
    model = narrow(family)
    costs = norm_costs(2) | {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: cpu_attention}
    with torch.inference_mode(), FlopCounterMode(display=False, custom_mapping=costs) as counter:
        model(images_for(model, batch=1))
    assert counter.get_total_flops() // 2 == count_macs(model, shape_for(model)) > 0


@pytest.mark.parametrize("family", FAMILIES)
def test_fvcore_agrees_on_explicit_attention(family, explicit_attention):
    fvcore = pytest.importorskip("fvcore.nn")
    model = narrow(family)
    analysis = fvcore.FlopCountAnalysis(model, images_for(model, batch=1)).unsupported_ops_warnings(False)
    assert count_macs(model, shape_for(model)) == pytest.approx(analysis.total(), rel=1e-3)


@pytest.mark.parametrize("as_published", [False, True])
@pytest.mark.parametrize("family", FAMILIES)
def test_modules_layers_and_parts_each_sum_to_the_total(family, as_published):
    model = narrow(family)
    shape, options = shape_for(model), {"as_published": as_published}
    total = count_macs(model, shape, **options)
    modules, layers = macs_by_module(model, shape, **options), macs_by_layer(model, shape, **options)
    assert sum(modules.values()) == sum(layer.macs for layer in layers) == sum(macs_by_part(layers).values()) == total
    assert min(modules.values()) > 0 and set(modules) <= {name for name, _ in model.named_modules()}


@pytest.mark.parametrize(
    ("name", "parts", "tokens"),
    [
        ("deit_small_patch16_224", ["patch embedding", "image tokens", "head"], [196] * 12),
        ("stvit_deit_small_patch16_224", ["patch embedding", "image tokens", "STGM", "semantic tokens", "head"],
         [196] * 4 + [16] * 8),
        ("evit_deit_small_patch16_224", ["patch embedding", "image tokens", "head"],
         [196] * 3 + [139] * 3 + [99] * 3 + [71] * 3),
        ("tome_deit_small_patch16_224", ["patch embedding", "image tokens", "head"],
         [196 - 13 * i for i in range(1, 13)]),
        ("swin_tiny_patch4_window7_224", ["patch embedding", "image tokens", "head"],
         [3136] * 2 + [784] * 2 + [196] * 6 + [49] * 2),
        ("stvit_swin_tiny_224", ["patch embedding", "image tokens", "STGM", "semantic tokens", "head"],
         [3136] * 2 + [784] * 2 + [196] * 2 + [36] * 6),
        ("stvit_r_swin_small_224", ["patch embedding", "image tokens", "STGM", "semantic tokens", "recovery", "head"],
         [3136] * 2 + [784] * 2 + [196, 36, 36, 36, 36, 196] * 3 + [49] * 2),
    ],
)  # fmt: skip
def test_layers_tell_part_and_token_count(name, parts, tokens):
    with torch.device("meta"):
        model = timm.create_model(name)
    layers = macs_by_layer(model)
    assert [layer.tokens for layer in layers if layer.tokens is not None] == tokens
    assert [part for part, macs in macs_by_part(layers).items() if macs] == parts
    assert layers[0].part == "patch embedding" and layers[-1].part == "head"


def test_a_class_token_is_counted_but_not_among_the_tokens():
    with torch.device("meta"):
        models = [timm.create_model("stvit_deit_tiny_patch16_224", class_token_in_base=on) for on in (False, True)]
    without, with_one = (macs_by_layer(model) for model in models)
    assert [a.tokens for a in without] == [b.tokens for b in with_one]
    assert with_one[1].macs > without[1].macs and with_one[6].macs == without[6].macs


def test_patch_merging_belongs_to_the_tokens_that_it_works_on():
    with torch.device("meta"):
        recovered, semantic = timm.create_model("stvit_r_swin_small_224"), timm.create_model("stvit_swin_small_224")
    parts = {layer.name: layer.part for model in (recovered, semantic) for layer in macs_by_layer(model)}
    assert parts["stages.2.downsample"] == "image tokens" and parts["stages.2.expand"] == "semantic tokens"


def test_counting_leaves_the_model_as_it_is():
    model = narrow("stvit_swin").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    count_macs(model, as_published=True)
    assert model.training and model.stages[2].stgm_spatial.project_once
    assert not any(module._forward_hooks for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    torch.testing.assert_close(dict(model.state_dict()), before)


@pytest.mark.parametrize("initialisation", ["spatial", "global", "learned_position"])
def test_every_way_to_begin_the_semantic_tokens_can_be_counted(initialisation):
    whole = {"img_size": 64, "embed_dim": 48, "num_heads": 3, "num_semantic_tokens": 4}
    name = "stvit_deit_tiny_patch16_224"
    of_both = count_macs(timm.create_model(name, **whole), (3, 64, 64))
    assert count_macs(timm.create_model(name, initialisation=initialisation, **whole), (3, 64, 64)) <= of_both


def test_models_without_transformer_layers_have_no_breakdown():
    with pytest.raises(ValueError, match="has no transformer layers: use macs_by_module"):
        macs_by_layer(nn.Sequential(nn.Conv2d(3, 4, 3)))
