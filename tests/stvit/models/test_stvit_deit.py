"""STViT-DeiT, STViT-LV-ViT and STViT-Swin: options, laws, initialisation from a full-token model."""

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from stvit.layers.pooling import AdaptivePooling, IntraInterPooling, bin_cells, fitting_layout, initial_centres
from tests.stvit.models.families import LVVIT, VIT, LVViT, images_for, narrow

INITIALISATIONS = ("both", "spatial", "global", "learned_position")


def run(model, **kwargs):
    with torch.inference_mode():
        return model(images_for(model), **kwargs)


@pytest.mark.parametrize(("length", "bins"), [(14, 4), (14, 6), (14, 8), (14, 10), (7, 2), (7, 3), (7, 4), (18, 4)])
@pytest.mark.parametrize("layout", ["tile", "map"])
def test_bins_cover_every_cell_and_tiles_cover_it_once(length, bins, layout):
    cells = [cell for one in bin_cells(length, bins, layout) for cell in one if cell >= 0]
    assert set(cells) == set(range(length))
    assert layout == "map" or len(cells) == length
    assert len({len(one) for one in bin_cells(length, bins, layout)}) == 1


@pytest.mark.parametrize(("centres", "layout"), [(4, "tile"), (6, "tile"), (8, "tile"), (10, "map")])
def test_layout_is_the_authors_where_no_tile_is_empty(centres, layout):
    assert fitting_layout((14, 14), centres) == layout


def test_a_layout_with_an_empty_tile_is_refused():
    with pytest.raises(ValueError, match="leaves some of the 10x10 bins"):
        IntraInterPooling(8, (14, 14), 10, "tile")


@pytest.mark.parametrize("pooling", ["intra_inter", "average", "max"])
@pytest.mark.parametrize(
    ("grid_hw", "centres"), [((14, 14), 4), ((14, 14), 6), ((14, 14), 10), ((7, 7), 3), ((9, 12), 4)]
)
def test_pooling_of_a_constant_map_is_that_constant(pooling, grid_hw, centres):
    torch.manual_seed(0)
    pool = initial_centres(pooling, 8, grid_hw, centres, fitting_layout(grid_hw, centres))
    token = torch.randn(2, 1, 1, 8)
    pooled = pool(token.expand(2, *grid_hw, 8))
    torch.testing.assert_close(pooled, token.flatten(1, 2).expand(2, centres**2, 8))


def test_matrix_product_and_elementwise_pooling_agree():
    torch.manual_seed(0)
    pool, token_map = IntraInterPooling(8, (14, 14), 4, "tile"), torch.randn(2, 14, 14, 8)
    fused = pool(token_map)
    pool.fused_sum = False
    torch.testing.assert_close(pool(token_map), fused)


def test_centres_see_only_their_own_bin_where_bins_do_not_touch():
    torch.manual_seed(0)
    pool, token_map = AdaptivePooling(2, "average"), torch.randn(1, 14, 14, 8)
    before = pool(token_map)
    token_map[:, 7:, 7:] += 1
    assert ((pool(token_map) - before).abs().sum(-1) > 0)[0].tolist() == [False, False, False, True]


@pytest.mark.parametrize("initialisation", INITIALISATIONS)
def test_every_initialisation_trains_all_its_parameters(initialisation):
    model = narrow("stvit_deit", initialisation=initialisation).train()
    model(images_for(model)).square().mean().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None] == []
    centres = [n for n, _ in model.named_parameters() if n.endswith("global_centres")]
    where = {"spatial": [], "global": ["blocks.2.pooling.global_centres"]}
    assert centres == where.get(initialisation, ["blocks.3.global_centres"])
    assert set(centres) <= model.no_weight_decay()


def test_learned_position_differs_from_global_centres_only_in_the_keys():
    both, position = narrow("stvit_deit"), narrow("stvit_deit", initialisation="learned_position")
    position.load_state_dict(both.state_dict(), strict=True)
    assert (run(both) - run(position)).abs().max() > 1e-4
    with torch.no_grad():
        both.blocks[3].global_centres.zero_()
        position.blocks[3].global_centres.zero_()
    torch.testing.assert_close(run(both), run(position))


@pytest.mark.parametrize("pooling", ["intra_inter", "average", "max"])
@pytest.mark.parametrize("family", ["stvit_deit", "stvit_swin"])
def test_every_pooling_runs(family, pooling):
    assert run(narrow(family, pooling=pooling)).isfinite().all()


def test_layer_scale_is_off_unless_asked_for_and_then_everywhere():
    assert not any("ls1" in name for name, _ in narrow("stvit_deit").named_parameters())
    scaled = narrow("stvit_deit", init_values=0.1)
    assert sum(name.endswith("ls1.gamma") for name, _ in scaled.named_parameters()) == 6
    assert run(scaled).isfinite().all()


@pytest.mark.parametrize("tokens", [16, 36, 64, 100])
def test_any_published_number_of_semantic_tokens_leaves_the_stgm(tokens):
    _, trace = run(narrow("stvit_deit", num_semantic_tokens=tokens), return_trace=True)
    assert [layer.num_tokens for layer in trace.layers] == [196] * 2 + [tokens] * 4


@pytest.mark.parametrize("layers", [2, 3, 4])
def test_more_stgm_layers_take_the_place_of_semantic_layers(layers):
    model = narrow("stvit_deit", stgm_layers=layers)
    _, trace = run(model, return_trace=True)
    assert [layer.kind for layer in trace.layers] == ["image"] * 2 + ["stgm"] * layers + ["semantic"] * (4 - layers)
    assert sum(n.endswith("global_centres") for n, _ in model.named_parameters()) == 1


@pytest.mark.parametrize("window", [2, 3, 4])
def test_any_published_number_of_tokens_per_window_leaves_the_stgm(window):
    _, trace = run(narrow("stvit_swin", semantic_window=window), return_trace=True)
    assert trace.layers[-1].num_tokens == (2 * window) ** 2


def test_stgm_attention_is_a_distribution_over_image_tokens_in_the_first_layer():
    _, trace = run(narrow("stvit_deit"), return_trace=True)
    first, second = trace.cluster_layers()
    assert first.attention.shape == second.attention.shape == (2, 3, 16, 196)
    torch.testing.assert_close(first.attention.sum(-1), torch.ones(2, 3, 16))
    assert ((second.attention.sum(-1) > 0) & (second.attention.sum(-1) < 1)).all()


def test_a_class_token_ends_before_the_stgm():
    model = narrow("stvit_deit", class_token_in_base=True)
    logits, trace = run(model, return_trace=True)
    assert logits.shape == (2, 7) and [layer.num_tokens for layer in trace.layers] == [196] * 2 + [16] * 4
    model.train()(images_for(model)).sum().backward()
    assert model.cls_token.grad.abs().sum() > 0


def test_projecting_once_equals_projecting_every_copy():
    model = narrow("stvit_swin")
    once = run(model)
    model.stages[2].stgm_spatial.project_once = False
    torch.testing.assert_close(run(model), once, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("img_size", [80, (80, 112)])
def test_other_image_sizes_run(img_size):
    model = narrow("stvit_deit", img_size=img_size)
    hw = model.patch_embed.img_size
    with torch.inference_mode():
        logits, trace = model(torch.randn(1, 3, *hw), return_trace=True)
    assert logits.isfinite().all() and trace.layers[0].image_grid_hw == (hw[0] // 8, hw[1] // 8)


def test_layers_before_the_stgm_keep_timms_names():
    ours, theirs = narrow("stvit_deit").state_dict(), VisionTransformer(**VIT).state_dict()
    for prefix in ("patch_embed.", "blocks.0.", "blocks.1.", "blocks.4.", "norm.", "head."):
        shapes = {n: t.shape for n, t in theirs.items() if n.startswith(prefix)}
        assert shapes and shapes == {n: t.shape for n, t in ours.items() if n.startswith(prefix)}


@pytest.mark.parametrize(("family", "full_token"), [("stvit_deit", VisionTransformer), ("stvit_lvvit", LVViT)])
def test_the_stgm_takes_the_weights_of_the_layers_it_replaces(family, full_token):
    trained = full_token(**(VIT if family == "stvit_deit" else LVVIT)).eval()
    model = narrow(family)
    new = model.init_from(trained.state_dict())
    assert all("pooling" in name or name.endswith("global_centres") for name in new) and len(new) == 11
    tokens = torch.randn(2, 196, 24)
    for number in (2, 3):  # asked with all tokens, an STGM layer is the self-attention layer that it replaces
        layer, replaced = model.blocks[number], trained.blocks[number]
        normalised = layer.norm1(tokens)
        attended, _ = layer.attend_from(tokens, normalised, layer.keys_values(normalised))
        torch.testing.assert_close(layer.feed_forward(attended), replaced(tokens))
    torch.testing.assert_close(model.pos_embed, trained.pos_embed[:, 1:])
    torch.testing.assert_close(model.head.weight, trained.head.weight)


def test_initialisation_keeps_a_class_token_that_the_model_has():
    trained = VisionTransformer(**VIT)
    model = narrow("stvit_deit", class_token_in_base=True)
    model.init_from(trained.state_dict())
    torch.testing.assert_close(model.pos_embed, trained.pos_embed)
    torch.testing.assert_close(model.cls_token, trained.cls_token)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"depth": 7}, "unknown .*blocks.6"), ({"depth": 5}, "missing .*blocks.5"), ({"embed_dim": 48}, "another shape")],
)
def test_weights_of_another_model_are_refused_and_nothing_changes(change, message):
    model = narrow("stvit_deit")
    before = model.head.weight.clone()
    with pytest.raises(ValueError, match=message):
        model.init_from(VisionTransformer(**{**VIT, **change}).state_dict())
    torch.testing.assert_close(model.head.weight, before)


@pytest.mark.parametrize(
    ("family", "options", "message"),
    [
        ("stvit_deit", {"num_semantic_tokens": 15}, "choose a square number from 1 to 196"),
        ("stvit_deit", {"num_semantic_tokens": 225}, "choose a square number from 1 to 196"),
        ("stvit_deit", {"num_semantic_tokens": -4}, "choose a square number"),
        ("stvit_deit", {"stgm_layers": 1}, "at least 2"),
        ("stvit_deit", {"stgm_position": 5}, "6 layers in all"),
        ("stvit_deit", {"pooling": "median"}, "choose max, average or intra_inter"),
        ("stvit_deit", {"initialisation": "random"}, "choose both, spatial, global, learned_position"),
        ("stvit_swin", {"stgm_position": 5}, "choose 0 to 4"),
        ("stvit_swin", {"semantic_window": 8}, "choose 1 to 7"),
        ("stvit_swin", {"img_size": 256}, "multiples of 224"),
    ],
)
def test_options_that_do_not_fit_are_refused_with_what_does(family, options, message):
    with pytest.raises(ValueError, match=message):
        narrow(family, **options)


def test_the_image_size_is_fixed_once_built():
    with pytest.raises(ValueError, match="create the model with img_size="):
        narrow("stvit_deit").set_input_size(224)
