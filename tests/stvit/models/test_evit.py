"""EViT against the authors' code, and its laws."""

import argparse
import json
import math
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer

import stvit
from stvit.checkpoint import load_checkpoint
from stvit.models.evit import EViT
from stvit.trace import LayerTrace, follow
from tests.golden.fill import fill, structured_images
from tests.stvit.models.families import LVVIT, VIT, LVViT, images_for, narrow

GOLDEN = Path(__file__).parents[2] / "golden"
CASES = json.loads((GOLDEN / "evit_deit_small.json").read_text())
REFERENCE = Path(__file__).resolve().parents[4] / "shared" / "reference" / "classification"


@pytest.fixture(scope="module")
def golden_model() -> EViT:
    """EViT-DeiT-S with the weights that the golden values were made with."""
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in timm.create_model("deit_small_patch16_224").state_dict().items()}
    model = stvit.create_model("evit_deit_small_patch16_224")
    model.load_state_dict(model.convert_released_state_dict(fill(shapes)), strict=True)
    return model


def reduced(model: EViT, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """Everything that a golden value exists for, named and ordered as there: fused tokens are -1, -2, -3."""
    found, selections = {}, {}
    hooks = [
        model.blocks[i].register_forward_hook(lambda module, inputs, output, i=i: selections.update({i: output[1]}))
        for i in model.reduction_layers
    ]
    hooks.append(model.head.register_forward_pre_hook(lambda module, inputs: found.update(features=inputs[0])))
    with torch.inference_mode():
        found["logits"] = model(images)
    for hook in hooks:
        hook.remove()
    names = torch.arange(196).expand(len(images), -1)
    for number, i in enumerate(model.reduction_layers, start=1):
        selection = selections[i]
        found[f"cls_attn_l{i}"] = selection.scores.gather(1, names.argsort(dim=1))
        names = names.gather(1, selection.kept)
        found[f"kept_l{i}"] = names.sort(dim=1).values
        if selection.fused:
            names = torch.cat([names, torch.full((len(images), 1), -number)], dim=1)
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_choices_and_outputs_equal_the_authors_code(golden_model, case, dtype):
    figures = CASES[case]
    golden_model.keep_rate, golden_model.fuse_inattentive = figures["keep_rate"], figures["fuse_inattentive"]
    found = reduced(golden_model.to(dtype), structured_images(seed=figures["input_seed"]).to(dtype))
    golden_model.float()
    values = load_file(GOLDEN / "evit_deit_small.safetensors")
    expected = {name.partition("/")[2]: value for name, value in values.items() if name.startswith(f"{case}/")}
    assert len(expected) == 8
    for name, value in expected.items():
        if name.startswith("kept"):
            assert torch.equal(found[name], value.long()), name
        else:
            off = (found[name].double() - value.double()).abs().max().item()
            assert off <= figures["tolerances"][name][f"atol_{str(dtype).removeprefix('torch.')}"], (name, off)


@pytest.mark.skipif(not REFERENCE.exists(), reason="the full reference lies outside of the repository")
@pytest.mark.parametrize("keep_rate", [0.9, 0.7, 0.5])
@pytest.mark.parametrize("fuse", [False, True], ids=["dropped", "fused"])
def test_every_reference_case_is_met(golden_model, monkeypatch, keep_rate, fuse):
    monkeypatch.syspath_prepend(str(REFERENCE))
    for name in ("golden", "fill"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    from golden import Golden

    golden = Golden(f"evit_deit_s_w0_x9/keep{keep_rate}_{'fuse' if fuse else 'nofuse'}")
    golden_model.keep_rate, golden_model.fuse_inattentive = keep_rate, fuse
    found = reduced(golden_model.double(), golden.inputs().double())
    golden_model.float()
    for name in golden.tensors:
        golden.check(name, found[name])


@pytest.mark.parametrize(
    ("family", "full_token", "sizes"), [("evit_deit", VisionTransformer, VIT), ("evit_lvvit", LVViT, LVVIT)]
)
def test_keep_rate_one_equals_the_full_token_model(family, full_token, sizes):
    model = narrow(family, keep_rate=1.0)
    trained = full_token(**sizes).eval()
    trained.load_state_dict(model.state_dict(), strict=True)
    with torch.inference_mode():
        assert torch.equal(model(images_for(model)), trained(images_for(model)))


@pytest.mark.parametrize("keep_rate", [0.5, 0.7, 0.9])
@pytest.mark.parametrize("fuse", [False, True], ids=["dropped", "fused"])
def test_each_image_token_is_kept_dropped_or_fused(keep_rate, fuse):
    model = narrow("evit_deit", keep_rate=keep_rate, fuse_inattentive=fuse)
    with torch.inference_mode():
        _, trace = model(images_for(model), return_trace=True)
    kept = math.ceil(196 * keep_rate)
    assert [layer.kind for layer in trace.layers] == ["image", "reduction", "image", "reduction", "image", "image"]
    assert trace.layers[0].num_tokens == 196 and trace.layers[1].num_tokens == kept + fuse
    assert torch.equal(trace.layers[0].assignment, torch.arange(196).expand(2, -1))
    for layer in trace.layers[1:]:
        sizes, dropped = layer.group_sizes(), (layer.assignment < 0).sum(1)
        assert layer.assignment.max() < layer.num_tokens
        assert torch.equal(sizes.sum(1) + dropped, torch.tensor([196, 196]))
        assert (dropped == 0).all() if fuse else (sizes == 1).all()


def test_tokens_that_stay_are_the_ones_the_assignment_names():
    model = narrow("evit_deit", keep_rate=0.5, reduction_layers=(0,), depth=1)
    images = images_for(model, batch=1)
    selection = []
    model.blocks[0].register_forward_hook(lambda module, inputs, output: selection.append(output[1]))
    with torch.inference_mode():
        _, trace = model(images, return_trace=True)
    assignment, kept = trace.layers[0].assignment[0], selection[0].kept[0]
    assert torch.equal(assignment[kept], torch.arange(98))
    rest = torch.ones(196, dtype=torch.bool).index_fill(0, kept, False)
    assert (assignment[rest] == 98).all() and selection[0].scores[0, kept].min() >= selection[0].scores[0, rest].max()


@pytest.mark.parametrize(
    ("before", "moved_to", "after"),
    [
        ([[0, 1, 2]], [[2, 0, 1]], [[2, 0, 1]]),
        ([[0, -1, 1]], [[-1, 0]], [[-1, -1, 0]]),
        ([[1, 1, 0]], [[0, 0]], [[0, 0, 0]]),
    ],
)
def test_following_tokens_through_a_step(before, moved_to, after):
    assert follow(torch.tensor(before), torch.tensor(moved_to)).tolist() == after


def test_group_sizes_of_networks_that_reduce_nothing_are_an_error():
    with pytest.raises(ValueError, match="is not of a network that drops, fuses or merges"):
        LayerTrace("Layer 1", "image", torch.zeros(1, 4, 2), (2, 2)).group_sizes()


def test_deit_weights_load_at_another_image_size():
    trained = VisionTransformer(**VIT)
    model = narrow("evit_deit", img_size=144)
    model.load_state_dict(model.convert_released_state_dict(trained.state_dict()), strict=True)
    with torch.inference_mode():
        logits, trace = model(torch.randn(1, 3, 144, 144), return_trace=True)
    assert logits.isfinite().all() and trace.layers[0].num_tokens == 18 * 18


def test_checkpoints_of_the_authors_training_code_load(tmp_path):
    trained = VisionTransformer(**VIT)
    args = argparse.Namespace(model="deit_small_patch16_shrink_base", base_keep_rate=0.7, lr=5e-4)
    torch.save({"model": trained.state_dict(), "args": args, "epoch": 299}, tmp_path / "checkpoint.pth")
    model = narrow("evit_deit")
    load_checkpoint(model, tmp_path / "checkpoint.pth")
    torch.testing.assert_close(dict(model.state_dict()), dict(trained.state_dict()))


@pytest.mark.parametrize("keep_rate", [0, -0.5, 1.1])
def test_keep_rates_outside_of_the_range_are_refused(keep_rate):
    with pytest.raises(ValueError, match="choose a share above 0 and at most 1"):
        narrow("evit_deit", keep_rate=keep_rate)
