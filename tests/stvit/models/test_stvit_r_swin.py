"""STViT-R-Swin against the authors' code, and the laws that any image must obey."""

import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file

import stvit
from stvit.models.stvit_r_swin import STViTRSwin
from tests.golden.fill import fill, structured_images

GOLDEN = Path(__file__).parents[2] / "golden"
SIZES = ("small", "base")


def released_state_dict(size: str) -> dict[str, torch.Tensor]:
    """A state dict named as the authors name it, filled by rule."""
    return fill(json.loads((GOLDEN / f"released_shapes_{size}.json").read_text()))


def narrow(**options) -> STViTRSwin:
    """One dumbbell unit and few channels: the architecture at a fraction of the cost."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 8)}
    return STViTRSwin(**sizes, num_classes=7, **options)


@pytest.fixture(scope="module")
def golden_model() -> STViTRSwin:
    model = stvit.create_model("stvit_r_swin_small_224")
    model.load_state_dict(model.convert_released_state_dict(released_state_dict("small")), strict=False)
    return model


@pytest.fixture(scope="module")
def golden() -> tuple[dict, dict[str, torch.Tensor]]:
    figures = json.loads((GOLDEN / "stvit_r_swin_small.json").read_text())
    return figures, load_file(GOLDEN / "stvit_r_swin_small.safetensors")


def traced_tensors(model: STViTRSwin, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything that a golden value exists for, by its name."""
    found = {}

    def keep_stage(number):
        def hook(module, inputs, output):
            found[f"layers.{number}"] = (output[0] if isinstance(output, tuple) else output).flatten(1, 2)

        return hook

    def keep_raw_attention(module, inputs, output):
        windows = output[1].unflatten(0, (len(images), -1))[0]
        found["unit1.block1.attn_image0"] = windows.transpose(0, 1).flatten(1, 2)

    hooks = [stage.register_forward_hook(keep_stage(i)) for i, stage in enumerate(model.stages)]
    hooks.append(model.stages[2].units[0].stgm_spatial.register_forward_hook(keep_raw_attention))
    with torch.inference_mode():
        found["logits"], trace = model(images, return_trace=True)
    for hook in hooks:
        hook.remove()
    for position, layer in enumerate(trace.layers):
        block = position % 6
        kind = "image" if block == 5 else "semantic"
        found[f"unit{layer.unit}.{kind}_after_block{block}"] = layer.tokens
    return found


@pytest.mark.slow
@pytest.mark.parametrize("project_once", [False, True], ids=["projected per window", "projected once"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_every_intermediate_equals_the_authors_code(golden_model, golden, dtype, project_once):
    figures, values = golden
    for unit in golden_model.stages[2].units:
        unit.stgm_spatial.project_once = project_once
    found = traced_tensors(golden_model.to(dtype), structured_images().to(dtype))
    golden_model.float()
    assert len(values) == 21
    for name, expected in values.items():
        assert list(found[name].shape) == figures[name]["shape"], name
        sampled = found[name].reshape(-1)[:: figures[name]["stride"]]
        off = (sampled.double() - expected.double()).abs().max().item()
        assert off <= figures[name][f"atol_{str(dtype).removeprefix('torch.')}"], f"{name} is off by {off:.3g}"


def test_fast_path_equals_traced_path(golden_model):
    images = structured_images(batch=1)
    with torch.inference_mode():
        traced, _ = golden_model(images, return_trace=True)
        torch.testing.assert_close(golden_model(images), traced, atol=2e-5, rtol=0)


@pytest.mark.parametrize(("size", "parameters"), [("small", 49_625_518), ("base", 87_812_336)])
def test_parameter_count_is_the_authors(size, parameters):
    with torch.device("meta"):
        model = timm.create_model(f"stvit_r_swin_{size}_224")
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.slow
@pytest.mark.parametrize("size", SIZES)
def test_released_names_cover_every_parameter(size):
    model = stvit.create_model(f"stvit_r_swin_{size}_224")
    converted = model.convert_released_state_dict(released_state_dict(size))
    own = {n: t.shape for n, t in model.state_dict().items() if not n.endswith("num_batches_tracked")}
    assert {n: t.shape for n, t in converted.items()} == own


def test_own_names_pass_the_conversion_unchanged():
    model = narrow()
    assert model.convert_released_state_dict(model.state_dict()).keys() == model.state_dict().keys()


@pytest.mark.parametrize(
    ("size", "published", "computed"), [("small", 5_826_291_456, 5.642e9), ("base", 10_264_130_560, 9.938e9)]
)
def test_macs_meet_the_papers_and_fall_below_it(size, published, computed):
    with torch.device("meta"):
        model = timm.create_model(f"stvit_r_swin_{size}_224")
    as_published = stvit.count_macs(model, as_published=True)
    assert as_published == pytest.approx(published, rel=1e-4)  # the rest is LayerNorm of tokens normalised twice there
    assert stvit.count_macs(model) <= computed


@pytest.mark.parametrize("hw", [(224, 224), (224, 448), (448, 448)])
def test_other_sizes_that_fit_the_windows_run(hw):
    model = narrow().eval()
    with torch.inference_mode():
        logits, trace = model(torch.randn(1, 3, *hw), return_trace=True)
    assert logits.shape == (1, 7) and logits.isfinite().all()
    assert trace.layers[1].image_grid_hw == (hw[0] // 16, hw[1] // 16)
    assert trace.layers[1].semantic_grid_hw == (hw[0] // 16 // 7 * 3, hw[1] // 16 // 7 * 3)


@pytest.mark.parametrize("hw", [(225, 224), (256, 256), (112, 112), (0, 224)])
def test_other_sizes_are_refused_with_the_rule(hw):
    with pytest.raises(ValueError, match="multiples of 224"):
        narrow()(torch.zeros(1, 3, *hw))


def test_each_token_belongs_to_one_cluster_and_attention_rows_sum_to_one():
    model = narrow().eval()
    with torch.inference_mode():
        _, trace = model(torch.randn(2, 3, 224, 224), return_trace=True)
    spatial, clustered, recovery = trace.cluster_layers()
    for layer in (spatial, clustered, recovery):
        assert layer.clusters().shape == (2, 196)
        assert layer.clusters().min() >= 0 and layer.clusters().max() < 36
        assert layer.semantic_to_image().shape == (2, 36, 196)
    assert ((spatial.attention.sum(-1) > 0) & (spatial.attention.sum(-1) < 1)).all()
    torch.testing.assert_close(recovery.attention.sum(-1), torch.ones(2, 4, 196))


def test_spatial_attention_lies_inside_the_key_windows():
    model = narrow().eval()
    with torch.inference_mode():
        _, trace = model(torch.randn(1, 3, 224, 224), return_trace=True)
    by_place = trace.layers[1].attention[0, 0].view(6, 6, 14, 14)
    assert (by_place[:3, :3, 10:, :] == 0).all() and (by_place[:3, :3, :, 10:] == 0).all()
    assert (by_place[3:, 3:, :4, :] == 0).all() and (by_place[3:, 3:, 4:, 4:] > 0).all()


def test_a_batch_gives_what_its_images_give_alone():
    model = narrow().eval()
    images = torch.randn(3, 3, 224, 224)
    with torch.inference_mode():
        alone = torch.cat([model(image[None]) for image in images])
        torch.testing.assert_close(model(images), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    "options",
    [{}, {"pooling": "intra_inter", "stgm_residual": True, "global_centres": True}, {"layer_scale": None}],
    ids=["released", "paper", "no layer scale"],
)
def test_every_parameter_gets_a_gradient(options):
    model = narrow(drop_path_rate=0.1, **options).train()
    model(torch.randn(2, 3, 224, 224)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.isfinite().all()] == []


def test_the_papers_options_change_the_output():
    torch.manual_seed(1)
    images = torch.randn(1, 3, 224, 224)
    released = narrow(layer_scale=0.5).eval()
    paper = narrow(layer_scale=0.5, stgm_residual=True).eval()
    paper.load_state_dict(released.state_dict())
    with torch.inference_mode():
        assert (released(images) - paper(images)).abs().max() > 1e-3


def test_state_dict_round_trip_is_strict():
    model, other = narrow(), narrow()
    other.load_state_dict(model.state_dict(), strict=True)
    torch.testing.assert_close(dict(other.state_dict()), dict(model.state_dict()))


def test_depth_must_fill_whole_units():
    with pytest.raises(ValueError, match="multiple of the 6"):
        STViTRSwin(16, (2, 2, 8, 2), (1, 2, 4, 8))


def test_timm_builds_features_and_other_heads():
    features = timm.create_model("stvit_r_swin_small_224", features_only=True).eval()
    with torch.inference_mode():
        maps = features(torch.randn(1, 3, 224, 224))
    assert [tuple(m.shape[1:]) for m in maps] == [(192, 28, 28), (384, 14, 14), (768, 7, 7), (768, 7, 7)]
    assert features.feature_info.channels() == [192, 384, 768, 768]
    model = timm.create_model("stvit_r_swin_small_224", num_classes=5)
    assert model.head.out_features == 5
    model.reset_classifier(0)
    assert model.eval()(torch.randn(1, 3, 224, 224)).shape == (1, 768)
    assert model.pretrained_cfg["hf_hub_id"] == "csncsn/STViT-R"


@pytest.mark.slow
def test_export_computes_the_same():
    model = narrow().eval()
    images = torch.randn(1, 3, 224, 224)
    exported = torch.export.export(model, (images,)).module()
    torch.testing.assert_close(exported(images), model(images), atol=1e-5, rtol=1e-4)


def test_bfloat16_predictions_stay_close():
    torch.manual_seed(0)
    model = narrow(layer_scale=0.5).eval()
    images = torch.randn(4, 3, 224, 224)
    with torch.inference_mode():
        exact = model(images).softmax(-1)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = model(images).float().softmax(-1)
    assert (exact - rounded).abs().max() < 0.01


def test_checkpoint_and_pretrained_exclude_each_other():
    with pytest.raises(ValueError, match="not both"):
        stvit.create_model("stvit_r_swin_small_224", checkpoint="some.pth", pretrained=True)
