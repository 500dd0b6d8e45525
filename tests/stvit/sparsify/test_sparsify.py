import copy
import pickle
from pathlib import Path

import pytest
import timm
import torch
from timm.models._hub import save_for_hf
from timm.models._manipulate import group_parameters
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn.utils import prune

import stvit
from stvit.export.formats import FORMATS
from stvit.measure.macs import macs_by_layer
from stvit.sparsify.fit import CannotSparsify, why_not
from tests.stvit.models.timm_contract import check_backward
from tests.stvit.sparsify.hosts import GRAPHS, HOSTS, VIT, VITS, host, images_for

SWIN = "swin_tiny_patch4_window7_224"
ROTARY = ["vit_small_patch16_dinov3", "eva02_tiny_patch14_224", "vit_small_patch16_rope_mixed_224"]


@pytest.mark.parametrize("name", HOSTS)
@torch.no_grad()
def test_a_sparse_copy_behaves_as_timms_models_do(name: str, tmp_path: Path) -> None:
    original, images = host(name), images_for(name)
    before = copy.deepcopy(original.state_dict())
    sparse = stvit.sparsify(original, 4)

    logits, trace = sparse(images, return_trace=True)
    assert logits.shape == (2, 5) and logits.isfinite().all()
    torch.testing.assert_close(sparse(images), logits)  # the fused kernel and the one with weights
    torch.testing.assert_close(sparse(images[:1]), logits[:1], atol=1e-5, rtol=1e-4)
    regions = trace.region_layers()
    assert [layer.name for layer in regions] == ["STGM 1", "STGM 2"]
    assert all(layer.clusters().max() < layer.num_tokens for layer in regions)

    assert type(sparse).__mro__.index(type(original)) > 0 and sparse.num_features == original.num_features
    pooled = sparse.forward_head(sparse.forward_features(images), pre_logits=True)
    assert pooled.shape == original.forward_head(original.forward_features(images), pre_logits=True).shape
    assert copy.deepcopy(sparse).bfloat16()(images.bfloat16()).isfinite().all()
    assert torch.equal(pickle.loads(pickle.dumps(sparse))(images), sparse(images))
    groups = group_parameters(sparse, sparse.group_matcher(coarse=False), reverse=True)
    assert groups.keys() == dict(sparse.named_parameters()).keys()

    save_for_hf(sparse, str(tmp_path), safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(images), sparse(images))

    assert all(torch.equal(before[key], value) for key, value in original.state_dict().items())
    sparse.reset_classifier(0)
    assert sparse(images).shape == pooled.shape
    sparse.reset_classifier(3)
    assert sparse(images).shape == (2, 3)


@pytest.mark.parametrize("name", HOSTS)
def test_every_parameter_gets_a_gradient(name: str) -> None:
    sparse = stvit.sparsify(host(name), 4)
    check_backward(sparse, images_for(name))
    sparse.set_grad_checkpointing()
    grads = {key: parameter.grad.clone() for key, parameter in sparse.named_parameters()}
    sparse.zero_grad()
    check_backward(sparse, images_for(name))
    torch.testing.assert_close({key: p.grad for key, p in sparse.named_parameters()}, grads, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", HOSTS)
def test_a_sparse_model_of_every_host_is_exported(name: str, tmp_path: Path) -> None:
    shallow = {"depths": (1, 1, 3, 1)} if name == SWIN else {"depth": 3}
    sparse, side = stvit.sparsify(host(name, **shallow), 4), HOSTS[name]["img_size"]
    batch = "dynamic" if name in GRAPHS else 2  # a graph for any batch takes three times as long
    report = stvit.export(
        sparse,
        tmp_path / "model.pt2",
        input_size=(side, side),
        regions=True,
        class_names=tuple("abcde"),
        batch=batch,
    )
    assert report.agreement == 1 and [layer.name for layer in report.regions] == ["STGM 1", "STGM 2"]
    images = images_for(name, 5 if batch == "dynamic" else 2)
    logits, *_ = FORMATS["pt2"].run(report.path)(images)
    with torch.no_grad():
        torch.testing.assert_close(logits, sparse(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", VITS)
@torch.no_grad()
def test_with_all_tokens_kept_the_copy_is_the_original(name: str) -> None:
    original, images = host(name), images_for(name)
    sparse = stvit.sparsify(original, 16)
    torch.testing.assert_close(sparse(images), original(images), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(sparse.forward_features(images), original.forward_features(images), atol=2e-5, rtol=1e-5)
    assert set(sparse.state_dict()) - set(original.state_dict()) == {"blocks.2.global_centres"}


@pytest.mark.parametrize("name", ["deit_tiny_patch16_224", *ROTARY])
@torch.no_grad()
def test_the_module_may_stand_before_all_other_layers_and_take_them_all(name: str) -> None:
    original, images = host(name), images_for(name)
    sparse = stvit.sparsify(original, 16, stgm_position=0, stgm_layers=4)
    torch.testing.assert_close(sparse(images), original(images), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "vit_small_patch16_dinov3"])
@torch.no_grad()
def test_images_of_other_sizes(name: str) -> None:
    original = host(name, dynamic_img_size=True)
    sparse = stvit.sparsify(original, 4)
    for size in ((48, 40), (16, 32), (8, 16)):
        logits, trace = sparse(torch.randn(1, 3, *size), return_trace=True)
        assert logits.isfinite().all()
        assert trace.layers[1].attention.shape[-2:] == (4, size[0] * size[1] // 64)
    sparse.set_input_size((24, 16))
    assert sparse(torch.randn(1, 3, 24, 16)).shape == (1, 5)


@pytest.mark.parametrize("prefix", [0, 5])
def test_multiply_adds_are_those_computed_by_hand(prefix: int) -> None:
    name = "vit_small_patch14_reg4_dinov2" if prefix else "vit_base_patch16_gap_224"
    original, width, hidden, image, semantic = host(name), 24, 96, 16, 4
    sparse = stvit.sparsify(original, semantic)

    def layer(queries: int, keys: int, normalised: int) -> int:
        """Norms, projections, attention, feed-forward network."""
        norms = 5 * width * (normalised + queries)
        return norms + 2 * width**2 * (queries + keys) + 2 * width * queries * keys + 2 * width * hidden * queries

    full, few = prefix + image, prefix + semantic
    stgm = layer(few, full, full + few) + layer(few, few + image, few + image + few)
    norm = 5 * width * (full - few)  # the final one, before the pooling
    expected = 3 * layer(full, full, full) - stgm - layer(few, few, few) + norm
    assert stvit.count_macs(original, (3, 32, 32)) - stvit.count_macs(sparse, (3, 32, 32)) == expected
    layers = [layer for layer in macs_by_layer(sparse, (3, 32, 32)) if layer.tokens]
    parts = ("image tokens", 16), ("STGM", 4), ("STGM", 4), ("semantic tokens", 4)
    assert [(layer.part, layer.tokens) for layer in layers] == list(parts)


class TwoHeads(VisionTransformer):
    """A network of somebody's own."""

    def __init__(self, **options: object) -> None:
        super().__init__(**options)
        self.colour = nn.Linear(self.embed_dim, 2)

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features = self.forward_features(images)
        return self.forward_head(features), self.colour(features.mean(1))


@torch.no_grad()
def test_a_copy_of_a_compiled_model_is_not_compiled() -> None:
    """Or it would compute with the weights of the first."""
    sparse, images = stvit.sparsify(host("deit_tiny_patch16_224"), 4), images_for("deit_tiny_patch16_224")
    expected = sparse(images)
    sparse.compile(backend=lambda graph, inputs: pytest.fail("compiled"))
    for other in (copy.deepcopy(sparse), pickle.loads(pickle.dumps(copy.deepcopy(sparse)))):
        assert torch.equal(other(images), expected)


def test_a_subclass_with_another_head() -> None:
    torch.manual_seed(0)
    sparse = stvit.sparsify(TwoHeads(**VIT), 4)
    logits, colours = sparse(torch.randn(2, 3, 32, 32))
    assert logits.shape == (2, 5) and colours.shape == (2, 2)
    with pytest.raises(TypeError, match="return_trace"):  # what its own forward makes of the tokens is not known
        sparse(torch.randn(2, 3, 32, 32), return_trace=True)


@torch.no_grad()
def test_learned_pooling_starts_equal_too_and_keeps_to_its_size() -> None:
    original, images = host("deit_tiny_patch16_224"), images_for("deit_tiny_patch16_224")
    sparse = stvit.sparsify(original, 16, pooling="intra_inter")
    torch.testing.assert_close(sparse(images), original(images), atol=2e-6, rtol=1e-5)
    with pytest.raises(ValueError, match="one image size"):
        sparse.set_input_size((16, 16))


@torch.no_grad()
def test_swin_with_recovery_keeps_full_resolution(tmp_path: Path) -> None:
    original, images = host(SWIN), images_for(SWIN)
    sparse = stvit.sparsify(original, 9, method="stvit_r")
    assert sparse.forward_features(images).shape == original.forward_features(images).shape
    maps, theirs = (model.forward_intermediates(images, intermediates_only=True) for model in (sparse, original))
    assert [one.shape for one in maps] == [one.shape for one in theirs]
    _, trace = sparse(images, return_trace=True)
    assert [layer.kind for layer in trace.region_layers()] == ["stgm", "stgm", "recovery"]
    save_for_hf(sparse, str(tmp_path), safe_serialization=True)
    features = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True, out_indices=(1, 2, 3))
    assert [one.shape[-1] for one in features.eval()(images)] == [maps[i].shape[-1] for i in (1, 2, 3)]


@pytest.mark.parametrize("method", ["stvit", "stvit_r"])
@torch.no_grad()
def test_swin_of_any_size_takes_images_from_one_window_on(method: str) -> None:
    sparse = stvit.sparsify(host(SWIN, dynamic_img_size=True), 4, method=method)
    assert sparse(torch.randn(1, 3, 120, 200)).shape == (1, 5)
    with pytest.raises(ValueError, match="4x4 tokens is smaller than a window of 7x7"):
        sparse(torch.randn(1, 3, 64, 64))


@torch.no_grad()
def test_linear_layer_before_stage_4_merges_equal_tokens() -> None:
    original = host(SWIN)
    expand, merging = stvit.sparsify(original, 9).layers[2].stage.expand, original.layers[3].downsample
    tokens = torch.randn(2, 3, 5, 64)
    alike = tokens.repeat_interleave(2, 1).repeat_interleave(2, 2)
    torch.testing.assert_close(expand(tokens), merging(alike), atol=1e-4, rtol=1e-4)


class Adapter(nn.Module):
    """A linear layer with a change of low rank."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down = base, nn.Linear(base.in_features, 1, bias=False)
        self.up = nn.Linear(1, base.out_features, bias=False)

    @property
    def weight(self) -> torch.Tensor:
        return self.base.weight

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.base(tokens) + self.up(self.down(tokens))


def adapted(part: str) -> nn.Module:
    """A network with an adapter in every attention."""
    network = host("deit_tiny_patch16_224")
    for layer in network.blocks:
        setattr(layer.attn, part, Adapter(getattr(layer.attn, part)))
    return network


@torch.no_grad()
def test_adapters_are_kept_where_layers_are_called() -> None:
    network, images = adapted("proj"), images_for("deit_tiny_patch16_224")
    torch.testing.assert_close(stvit.sparsify(network, 16)(images), network(images), atol=2e-6, rtol=1e-5)


def with_own_features() -> nn.Module:
    """A network whose method was replaced in place."""
    network = host("deit_tiny_patch16_224")
    network.forward_features = lambda images: images
    return network


def pruned() -> nn.Module:
    """A network with a weight that is computed of others."""
    network = host("deit_tiny_patch16_224")
    prune.l1_unstructured(network.blocks[0].mlp.fc1, "weight", 0.5)
    return network


@pytest.mark.parametrize(
    ("build", "options", "reason"),
    [
        (lambda: timm.create_model("resnet10t"), {}, "no VisionTransformer, Eva or SwinTransformer"),
        (lambda: "deit_tiny_patch16_224", {}, "str cannot be sparsified"),
        (lambda: nn.DataParallel(host("deit_tiny_patch16_224")), {}, "its part module is one"),
        (lambda: adapted("qkv"), {}, "from Adapter, no plain linear layer"),
        (with_own_features, {}, "forward_features of its own"),
        (pruned, {}, "cannot be copied: Only Tensors created explicitly"),
        (lambda: host(SWIN, img_size=64, always_partition=True), {}, "larger than its map of 4x4"),
        (lambda: timm.create_model("vit_tiny_r_s16_p8_224"), {}, "convolutional hybrid"),
        (lambda: timm.create_model("vit_small_patch16_18x2_224", **VIT), {}, "ParallelThingsBlock"),
        (lambda: timm.create_model("vit_base_patch16_rpn_224", **VIT), {}, "ResPostBlock"),
        (lambda: timm.create_model("vit_dlittle_patch16_reg1_gap_256", **VIT), {}, "DiffAttention"),
        (lambda: stvit.sparsify(host("deit_tiny_patch16_224"), 4), {}, "gives up image tokens already"),
        (lambda: host("deit_tiny_patch16_224", patch_drop_rate=0.5), {}, "patch_drop_rate"),
        (lambda: host("eva02_tiny_patch14_224", use_post_norm=True), {}, "EvaBlockPostNorm"),
        (lambda: host("deit_tiny_patch16_224"), {"num_semantic_tokens": 10}, "no square number"),
        (lambda: host("deit_tiny_patch16_224"), {"num_semantic_tokens": 25}, "from 1 to 16"),
        (lambda: host("deit_tiny_patch16_224"), {"stgm_position": 3}, "from 0 to 2"),
        (lambda: host("deit_tiny_patch16_224"), {"stgm_layers": 1}, "at least 2"),
        (lambda: host("deit_tiny_patch16_224"), {"stgm_layers": 5}, "Choose fewer stgm_layers"),
        (lambda: host("deit_tiny_patch16_224"), {"num_semantic_tokens": 4.0}, "is a whole number, not '4.0'"),
        (lambda: host("deit_tiny_patch16_224"), {"stgm_position": "1"}, "stgm_position is a whole number"),
        (lambda: host("deit_tiny_patch16_224"), {"method": "other"}, "choose stvit or stvit_r"),
        (lambda: host("deit_tiny_patch16_224"), {"pooling": "median"}, "no pooling 'median'"),
        (lambda: host(SWIN), {"method": "stvit_r", "stgm_position": 1}, "Name no position"),
        (lambda: host("deit_tiny_patch16_224"), {"method": "stvit_r"}, "for Swin"),
        (lambda: host(SWIN), {"num_semantic_tokens": 64}, "7x7 window"),
        (lambda: host(SWIN), {"method": "other"}, "choose stvit or stvit_r"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(build: object, options: dict, reason: str) -> None:
    with pytest.raises(CannotSparsify, match=reason):
        stvit.sparsify(build(), **{"num_semantic_tokens": 4, **options})


def test_feature_maps_of_a_sparse_model_are_refused() -> None:
    sparse = stvit.sparsify(host("deit_tiny_patch16_224"), 4)
    with pytest.raises(ValueError, match="no feature maps"):
        sparse.forward_intermediates(images_for("deit_tiny_patch16_224"))
    assert why_not(host("deit_tiny_patch16_224")) is None
