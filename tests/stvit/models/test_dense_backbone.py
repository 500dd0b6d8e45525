"""Dense backbones against the authors' code and timm's, and the laws that any image size must obey."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

from stvit import count_macs
from stvit.layers.windows import gather_with_halo, pad_to_multiple, window_partition, window_reverse
from stvit.models.dense_backbone import DenseBackbone, dense_backbone
from stvit.models.dense_checkpoint import hidden_keys, visible_keys
from stvit.models.stvit_r_swin import CENTRES, WINDOW
from tests.golden.fill import fill, structured_images

GOLDEN = Path(__file__).parents[2] / "golden" / "detection"
CPU = torch.device("cpu")
CASES = json.loads((GOLDEN / "backbone.json").read_text())


def narrow(name: str = "stvit_r_swin_small", **options) -> DenseBackbone:
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 8)}
    backbone = dense_backbone(name, **sizes, **options).eval()
    for parameter_name, parameter in backbone.named_parameters():
        if parameter_name.endswith(("ls1.gamma", "ls2.gamma")):
            torch.nn.init.constant_(parameter, 0.5)  # at 1e-5 the semantic tokens would hardly show in the output
    return backbone


def released_backbone(size: str) -> dict[str, torch.Tensor]:
    shapes = json.loads((GOLDEN / f"released_shapes_{size}.json").read_text())
    state = fill({n: s for n, s in shapes.items() if n.startswith("backbone.")}, attention_gain=1.0)
    return {name.removeprefix("backbone."): tensor for name, tensor in state.items()}


@pytest.fixture(scope="module")
def golden_backbone() -> DenseBackbone:
    backbone = dense_backbone("stvit_r_swin_small").eval()
    counters = {n: t for n, t in backbone.state_dict().items() if n.endswith("num_batches_tracked")}
    backbone.load_state_dict(backbone.convert_released_state_dict(released_backbone("small")) | counters)
    return backbone


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return load_file(GOLDEN / "backbone.safetensors")


@pytest.mark.parametrize("case", CASES)
def test_every_map_equals_the_authors_code(golden_backbone, golden, case):
    """No padding, padding at the bottom, on the right, in both, and maps smaller than the masks' widths."""
    batch, _, height, width = CASES[case]["shape"]
    with torch.inference_mode():
        maps = golden_backbone(structured_images(batch, height, width))
    for i, (feature, stride) in enumerate(zip(maps, CASES[case]["strides"], strict=True)):
        torch.testing.assert_close(
            feature.flatten()[::stride], golden[f"{case}.map{i}"], atol=CASES[case]["atol"], rtol=0
        )


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    ("attention", "tokens_per_window", "neighbourhood"), [("spatial", 7, 14), ("global_", 7, 21), ("recovery", 3, 27)]
)
def test_hidden_keys_are_those_of_the_authors_code(golden, case, attention, tokens_per_window, neighbourhood):
    grid_hw = tuple(-(-side // 16) for side in CASES[case]["shape"][2:])
    found = hidden_keys(grid_hw, tokens_per_window, neighbourhood, strict=False, device=CPU)
    bits = np.unpackbits(golden[f"{case}.hidden_{attention}"].numpy(), count=found.numel())
    expected = torch.from_numpy(bits.astype(bool)).view(found.shape)
    expected &= ~expected.all(dim=1, keepdim=True)  # the same penalty on every key is none
    assert torch.equal(found, expected)


@pytest.mark.parametrize("grid_hw", [(14, 14), (9, 14), (14, 9), (9, 10), (3, 4)])
def test_strict_masks_hide_the_padding_and_the_outside_and_nothing_else(grid_hw):
    windows_hw = [-(-side // WINDOW) for side in grid_hw]
    real = F.pad(torch.ones(grid_hw), [0, windows_hw[1] * WINDOW - grid_hw[1], 0, windows_hw[0] * WINDOW - grid_hw[0]])
    semantic = torch.ones([side * CENTRES for side in windows_hw])
    for cells, window, (before, after) in ((real, 7, (3, 4)), (real, 7, (7, 7)), (semantic, 3, (12, 12))):
        square = window + before + after
        framed = F.pad(cells, [before, after, before, after])[None, None]
        seen = F.unfold(framed, square, stride=window)[0].T.bool()
        assert torch.equal(~hidden_keys(grid_hw, window, square, strict=True, device=CPU), seen)


@pytest.mark.parametrize("strict", [False, True], ids=["released masks", "strict masks"])
@pytest.mark.parametrize("grid_hw", [(14, 14), (9, 14), (50, 37), (5, 5), (80, 7)])
def test_recovery_row_by_row_is_recovery_window_by_window(grid_hw, strict):
    """The strips and their one key for all that lies outside, against a gathered copy of the keys for every window."""
    torch.manual_seed(0)
    backbone, dim = narrow(), 64
    layer = backbone.stages[2].units[0].recovery
    torch.nn.init.normal_(layer.norm1.bias)  # keys outside of the map are its projection: make them count
    windows_hw = [-(-side // WINDOW) for side in grid_hw]
    image, semantic = torch.randn(2, *grid_hw, dim), torch.randn(2, *(side * CENTRES for side in windows_hw), dim)
    with torch.inference_mode():
        found, _ = layer(image, semantic, visible_keys(grid_hw, strict, CPU).recovery)
        windows = window_partition(pad_to_multiple(image, WINDOW), WINDOW)
        keys = gather_with_halo(semantic, CENTRES, 27, torch.zeros(dim))
        hidden = hidden_keys(grid_hw, CENTRES, 27, strict, CPU)
        bias = torch.zeros(hidden.shape).masked_fill(hidden, -torch.inf)[:, None, None].repeat(2, 1, 1, 1)
        attended, _ = layer.attend_from(
            windows.flatten(0, 1),
            layer.norm1(windows.flatten(0, 1)),
            layer.keys_values(layer.norm1(keys.flatten(0, 1))),
            bias=bias,
        )
        padded_hw = tuple(side * WINDOW for side in windows_hw)
        expected = window_reverse(attended.view(windows.shape), WINDOW, padded_hw)[:, : grid_hw[0], : grid_hw[1]]
        torch.testing.assert_close(found, layer.feed_forward(expected), atol=2e-5, rtol=0)


@pytest.mark.slow
def test_released_names_cover_every_parameter():
    for size in ("small", "base"):
        with torch.device("meta"):
            backbone = dense_backbone(f"stvit_r_swin_{size}")
        converted = backbone.convert_released_state_dict(released_backbone(size))
        own = {n: t.shape for n, t in backbone.state_dict().items() if not n.endswith("num_batches_tracked")}
        assert {n: t.shape for n, t in converted.items()} == own


@pytest.mark.parametrize(
    ("name", "at_800x1333", "at_512x512"),
    [
        ("stvit_r_swin_small", 132.2, 32.3),
        ("stvit_r_swin_base", 229.0, 56.6),
        ("swin_small", 194.5, 49.4),
        ("swin_base", 343.0, 87.1),
    ],
)
def test_costs_are_at_most_the_papers(name, at_800x1333, at_512x512):
    """10^9 multiply-adds; the paper prints 134, 233, 194 and 343, and 34, 60, 49 and 87. With semantic tokens they are
    fewer here, because padding is not projected and tokens outside of the map are one key."""
    with torch.device("meta"):
        backbone = dense_backbone(name)
    assert count_macs(backbone, (3, 800, 1333)) / 1e9 == pytest.approx(at_800x1333, abs=0.05)
    assert count_macs(backbone, (3, 512, 512)) / 1e9 == pytest.approx(at_512x512, abs=0.05)


def test_full_token_backbone_is_timms_swin():
    """Compared at a size where both shift every map: a single window is shifted by dense code alone."""
    torch.manual_seed(0)
    sizes = {"embed_dim": 16, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8)}
    theirs = timm.models.SwinTransformer(img_size=448, num_classes=0, **sizes).eval()
    ours = dense_backbone("swin_small", **sizes).eval()
    state = {}
    for name, tensor in theirs.state_dict().items():
        if ".downsample." in name:  # timm merges before a stage, the published code after one
            _, stage, rest = name.split(".", 2)
            name = f"layers.{int(stage) - 1}.{rest}"
        state[name if not name.startswith("norm.") else name.replace("norm.", "norm3.")] = tensor
    converted = ours.convert_released_state_dict(state)
    ours.load_state_dict(converted | {n: t for n, t in ours.state_dict().items() if n.startswith("norms.")})
    images = structured_images(1, 448, 448)
    with torch.inference_mode():
        expected = theirs.forward_intermediates(images, intermediates_only=True)
        for found, feature in zip(ours(images), expected, strict=True):
            normalised = F.layer_norm(feature.permute(0, 2, 3, 1), feature.shape[1:2]).permute(0, 3, 1, 2)
            torch.testing.assert_close(found, normalised, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("strict_masks", [False, True], ids=["released masks", "strict masks"])
@pytest.mark.parametrize("hw", [(1, 1), (33, 70), (112, 224), (230, 97)])
def test_any_size_gives_four_finite_maps(hw, strict_masks):
    backbone = narrow(strict_masks=strict_masks)
    with torch.inference_mode():
        maps = backbone(structured_images(1, *hw))
    sides = [[-(-side // 4) for side in hw]]
    for _ in range(3):
        sides.append([-(-side // 2) for side in sides[-1]])
    assert [list(m.shape) for m in maps] == [[1, c, *s] for c, s in zip(backbone.channels, sides, strict=True)]
    assert all(m.isfinite().all() for m in maps)


@pytest.mark.parametrize("name", ["stvit_r_swin_small", "swin_small"])
def test_an_image_does_not_depend_on_its_batch(name):
    backbone, images = narrow(name), structured_images(2, 130, 200)
    with torch.inference_mode():
        for together, alone in zip(backbone(images), backbone(images[1:]), strict=True):
            torch.testing.assert_close(together[1:], alone, atol=2e-5, rtol=0)


@pytest.mark.parametrize("name", ["stvit_r_swin_small", "swin_small"])
def test_every_parameter_gets_a_gradient(name):
    backbone = narrow(name).train()
    sum(
        m.square().mean() * (i + 1) + (m * m.roll(1, 1)).mean()
        for i, m in enumerate(backbone(structured_images(2, 96, 130)))
    ).backward()
    assert [n for n, p in backbone.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_trace_describes_the_pass_that_the_fast_path_makes():
    backbone, images = narrow(strict_masks=True), structured_images(2, 150, 200)
    with torch.inference_mode():
        fast = backbone(images)
        traced, trace = backbone(images, return_trace=True)
    for a, b in zip(fast, traced, strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=0)
    assert [layer.name for layer in trace.cluster_layers()] == ["STGM 1", "STGM 2", "Recovery"]
    for layer in trace.cluster_layers():
        assert (layer.image_grid_hw, layer.semantic_grid_hw) == ((10, 13), (6, 6))
        assert layer.semantic_to_image().shape == (2, 36, 130)
        sums = layer.attention.sum(dim=-1)  # with strict masks, all weight lies on what the trace shows
        torch.testing.assert_close(sums, torch.ones_like(sums), atol=1e-5, rtol=0)
        assert layer.clusters().unique().numel() > 4


def test_trace_puts_weights_where_the_keys_are():
    """Each semantic token's weights lie inside the square around its window, and each image token's around its own."""
    backbone = narrow()
    with torch.inference_mode():
        _, trace = backbone(structured_images(1, 448, 560), return_trace=True)
    first, _, recovery = trace.cluster_layers()
    weights = first.attention[0, 0].unflatten(1, first.image_grid_hw)  # (12 * 15, 28, 35)
    assert weights[0, 11:].sum() == 0 and weights[0, :, 11:].sum() == 0  # 7x7 window and 4 tokens beyond it
    assert weights[0, 10].sum() > 0 and weights[0, :, 10].sum() > 0
    back = recovery.attention[0, 0].view(*recovery.image_grid_hw, *recovery.semantic_grid_hw)
    assert back[0, 0].sum() > 0.2 and back[27, 34].sum() > 0.2


def test_unknown_backbones_are_refused():
    for name in ("swin_huge", "resnet_small", "small"):
        with pytest.raises(ValueError, match="no dense backbone"):
            dense_backbone(name)


def test_stage_three_must_be_whole_units():
    with pytest.raises(ValueError, match="not a multiple of the 6"):
        dense_backbone("stvit_r_swin_small", depths=(2, 2, 7, 2))
