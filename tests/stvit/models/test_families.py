"""What holds for the models of every family."""

import pytest
import timm
import torch
from torch import nn

import stvit
from stvit.models.diffrate import merge_lowest
from stvit.trace import LayerTrace
from tests.stvit.models.families import FAMILIES, images_for, narrow

TRACED = [family for family in FAMILIES if family != "lvvit"]  # LV-ViT keeps all its tokens, like timm's models
# parameters in millions, from the published models and, where there are none, from a prototype that meets their FLOPs
REGISTERED = {
    "stvit_deit_tiny_patch16_224": 5.728,
    "stvit_deit_small_patch16_224": 22.072,
    "stvit_deit_base_patch16_224": 86.610,
    "stvit_swin_tiny_224": 27.450,
    "stvit_swin_small_224": 48.760,
    "stvit_swin_base_224": 86.265,
    "evit_deit_tiny_patch16_224": 5.717,
    "evit_deit_small_patch16_224": 22.051,
    "evit_deit_base_patch16_224": 86.568,
    "tome_deit_tiny_patch16_224": 5.717,
    "tome_deit_small_patch16_224": 22.051,
    "tome_deit_base_patch16_224": 86.568,
    "lvvit_small_224": 26.152,
    "evit_lvvit_small_224": 26.152,
    "stvit_lvvit_small_224": 25.788,
}


@pytest.mark.parametrize(("name", "millions"), REGISTERED.items())
def test_timm_builds_it_with_the_right_number_of_parameters(name, millions):
    with torch.device("meta"):
        model = timm.create_model(name)
        other_head = timm.create_model(name, num_classes=5)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(millions, abs=6e-4)
    assert other_head.head.out_features == 5
    assert model.pretrained_cfg["input_size"] == (3, 224, 224) and model.pretrained_cfg["num_classes"] == 1000


@pytest.mark.parametrize("name", REGISTERED)
def test_pretrained_weights_exist_only_where_a_full_token_model_lends_them(name):
    cfg = timm.models.get_pretrained_cfg(name)
    if name.startswith(("evit_deit", "tome_deit")):
        assert cfg.hf_hub_id == f"timm/{name.partition('_')[2]}.fb_in1k"
    else:
        assert not cfg.has_weights


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_have_their_shape_and_are_finite(family):
    model = narrow(family)
    with torch.inference_mode():
        logits = model(images_for(model, batch=3))
    assert logits.shape == (3, 7) and logits.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_gives_what_its_images_give_alone(family):
    model = narrow(family)
    images = images_for(model, batch=3)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_parameter_gets_a_gradient(family):
    model = narrow(family, drop_path_rate=0.1).train()
    model(images_for(model, batch=4)).square().mean().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert without == [] and any(p.grad.abs().sum() > 0 for p in model.parameters())


@pytest.mark.parametrize("family", FAMILIES)
def test_state_dict_round_trip_is_strict(family):
    model, other = narrow(family), FAMILIES[family]()
    other.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(dict(other.state_dict()), dict(model.state_dict()))


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_export_computes_the_same(family):
    model = narrow(family)
    images = images_for(model, batch=1)
    with torch.no_grad():
        exported = torch.export.export(model, (images,)).module()
        torch.testing.assert_close(exported(images), model(images), atol=1e-5, rtol=1e-4)


@pytest.mark.slow
def test_compilation_needs_no_graph_break():
    model = narrow("stvit_deit")
    images = images_for(model, batch=1)
    with torch.no_grad():
        compiled = torch.compile(model, backend="eager", fullgraph=True)
        torch.testing.assert_close(compiled(images), model(images), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_trace_is_made_only_when_asked_for(family, monkeypatch):
    model = narrow(family)
    monkeypatch.setattr(LayerTrace, "__init__", lambda *arguments, **values: pytest.fail("made a trace"))
    model(images_for(model))


def test_merging_opposite_tokens_leaves_sizes_that_have_a_logarithm():
    one = torch.ones(1, 1, 4)
    tokens = torch.cat([one, one, -one, -one], dim=1)  # the class token, and one that both others must merge into
    merged, sizes, _ = merge_lowest(tokens, torch.ones(1, 4, 1), 2)
    assert merged.isfinite().all() and sizes.min() > 0 and sizes.log().isfinite().all()


@pytest.mark.parametrize("family", TRACED)
def test_fast_path_equals_traced_path(family):
    model = narrow(family)
    images = images_for(model)
    with torch.inference_mode():
        traced, _ = model(images, return_trace=True)
        torch.testing.assert_close(model(images), traced, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_bfloat16_models_run_and_stay_close(family):
    model = narrow(family)
    images = images_for(model)
    with torch.inference_mode():
        exact = model(images).softmax(-1)
        rounded = model.bfloat16()(images.bfloat16()).float().softmax(-1)
    assert (exact - rounded).abs().max() < 0.1  # reductions may choose other tokens at near ties


@pytest.mark.parametrize("family", ["stvit_deit", "stvit_lvvit", "stvit_swin"])
def test_semantic_tokens_leave_the_stgm_and_clusters_partition_the_image(family):
    model = narrow(family)
    with torch.inference_mode():
        _, trace = model(images_for(model), return_trace=True)
    expected = 36 if family == "stvit_swin" else 16
    kinds = [layer.kind for layer in trace.layers]
    assert kinds == ["image"] * 2 + ["stgm"] * 2 + ["semantic"] * (len(kinds) - 4)
    for layer in trace.layers:
        assert layer.num_tokens == (196 if layer.kind == "image" else expected)
        assert layer.image_grid_hw == (14, 14) and layer.assignment is None
    assert [layer.name for layer in trace.cluster_layers()] == ["STGM 1", "STGM 2"]
    for layer in trace.cluster_layers():
        clusters = layer.clusters()
        assert clusters.shape == (2, 196) and clusters.min() >= 0 and clusters.max() < expected


@pytest.mark.parametrize("name", ["stvit_deit_tiny_patch16_224", "evit_deit_tiny_patch16_224", "lvvit_small_224"])
def test_images_of_another_size_are_refused_with_a_next_step(name):
    model = stvit.create_model(name, depth=6, embed_dim=48, num_heads=3)
    with pytest.raises(ValueError, match=r"made for 224x224 pixels, the images have 256x224: resize.*img_size="):
        model(torch.zeros(1, 3, 256, 224))


def test_full_token_lvvit_gives_feature_maps_and_the_others_say_why_not():
    images = images_for(narrow("lvvit"), batch=1)
    maps = narrow("lvvit").forward_intermediates(images, indices=2, intermediates_only=True)
    assert [tuple(m.shape) for m in maps] == [(1, 24, 14, 14)] * 2
    for family in ("stvit_deit", "evit_deit", "tome_deit"):
        with pytest.raises(ValueError, match="no feature maps: call the model with return_trace=True"):
            narrow(family).forward_intermediates(images)


@pytest.mark.parametrize("name", REGISTERED)
def test_features_only_works_or_says_why_not(name):
    if name == "lvvit_small_224":
        features = timm.create_model(name, features_only=True, img_size=32, out_indices=(3, 15))
        assert [tuple(m.shape) for m in features(torch.zeros(1, 3, 32, 32))] == [(1, 384, 2, 2)] * 2
    else:
        with pytest.raises(ValueError, match=f"{name} gives up image tokens on the way"):
            timm.create_model(name, features_only=True)


def test_heads_can_be_replaced_and_removed():
    model = narrow("evit_lvvit")
    images = images_for(model)
    model.reset_classifier(3)
    assert model(images).shape == (2, 3) and isinstance(model.aux_head, nn.Linear)
    model.reset_classifier(0)
    assert model(images).shape == (2, 24) and model.aux_head is None
