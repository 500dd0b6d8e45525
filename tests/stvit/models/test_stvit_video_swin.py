"""Semantic tokens of the frames of a clip."""

from typing import Any

import pytest
import torch

from stvit.layers.pooling import initial_centres
from stvit.layers.stgm import FrameSTGMLayer, GlobalSTGMLayer, WholeMapSTGMLayer
from stvit.models.stvit_video_swin import STViTVideoSwin
from tests.stvit.models.clip_models import SIZES, clips, spread, with_semantic_tokens


def frame_layer(window: int = 4, **options: Any) -> FrameSTGMLayer:
    pooling = initial_centres("intra_inter", 16, (window, window), 2)
    sizes = {"window_size": window, "centres": 2, "neighbourhood": window * 10 // 7}
    return spread(FrameSTGMLayer(16, 4, pooling, **{**sizes, **options}))


def test_on_a_single_window_the_first_layer_attends_the_whole_map():
    layer, frames = frame_layer(), clips(3, 4, 4, 16)
    reference = WholeMapSTGMLayer(16, 4, layer.pooling)
    reference.load_state_dict(layer.state_dict())
    with torch.inference_mode():
        tokens, weights = layer(frames, return_attention=True)
        expected, expected_weights = reference.eval()(frames.flatten(1, 2), (4, 4), return_attention=True)
    torch.testing.assert_close(tokens.flatten(1, 2), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.image_attention(weights, (4, 4)), expected_weights, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("grid_hw", [(4, 4), (8, 8), (9, 13), (6, 4)])
def test_windows_of_frames_lie_inside_them_and_see_only_their_surroundings(grid_hw):
    layer = frame_layer()
    with torch.inference_mode():
        tokens, weights = layer(clips(2, *grid_hw, 16), return_attention=True)
        attention = layer.image_attention(weights, grid_hw)
    rows, columns = (-(-side // 4) * 2 for side in grid_hw)
    assert tokens.shape == (2, rows, columns, 16)
    assert attention.shape == (2, 4, rows * columns, grid_hw[0] * grid_hw[1])
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4, rows * columns))
    first, last = attention[:, :, 0].unflatten(-1, grid_hw), attention[:, :, -1].unflatten(-1, grid_hw)
    assert not first[..., 5:, :].any() and not first[..., :, 5:].any()
    assert not last[..., :-5, :].any() and not last[..., :, :-5].any() and last[..., -4:, -4:].all()


def test_projecting_each_token_once_changes_nothing_but_the_cost():
    once, copies, frames = frame_layer(), frame_layer(project_once=False), clips(2, 9, 12, 16)
    copies.load_state_dict(once.state_dict())
    with torch.inference_mode():
        torch.testing.assert_close(once(frames)[0], copies(frames)[0], atol=1e-5, rtol=1e-4)


def test_the_second_layer_is_that_of_the_image_model():
    stage, image_map, semantic_map = with_semantic_tokens().stages[2], clips(2, 9, 64), clips(2, 3, 3, 64)
    reference = GlobalSTGMLayer(64, 4, num_global_centres=9, layer_scale=None).eval()
    reference.load_state_dict(stage.stgm_global.state_dict())
    with torch.inference_mode():
        expected, _ = reference(semantic_map.flatten(1, 2), image_map)
        torch.testing.assert_close(stage.stgm_global(semantic_map, image_map)[0], expected, atol=1e-5, rtol=1e-4)


def test_centres_are_resampled_for_other_sizes_and_kept_for_their_own():
    layer = with_semantic_tokens(img_size=224).stages[2].stgm_global
    assert layer._centres_for((6, 6)) is layer.global_centres
    torch.nn.init.ones_(layer.global_centres)
    torch.testing.assert_close(layer._centres_for((3, 9)), torch.ones(1, 27, 64))


def test_once_there_are_semantic_tokens_frames_do_not_see_each_other():
    stage, clip_map = with_semantic_tokens(stgm_position=0).stages[2], clips(2, 3, 7, 7, 64)
    with torch.inference_mode():
        together, _ = stage(clip_map)
        alone = torch.cat([stage(clip_map[:, i : i + 1])[0] for i in range(3)], dim=1)
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


def test_the_trace_tells_every_frame_apart_and_changes_nothing():
    model, batch = with_semantic_tokens(), clips(2, 3, 5, 120, 112)
    with torch.inference_mode():
        logits, trace = model(batch, return_trace=True)
        torch.testing.assert_close(model(batch), logits, atol=1e-5, rtol=1e-4)
        _, of_one = model(batch[1:], return_trace=True)
    assert [layer.kind for layer in trace.layers] == ["image", "stgm", "stgm", "semantic", "semantic", "semantic"]
    assert [layer.name for layer in trace.cluster_layers()] == ["STGM 1", "STGM 2"]
    for layer, alone in zip(trace.layers, of_one.layers, strict=True):
        assert layer.frames == 3 and layer.image_grid_hw == (8, 7)  # 5 frames make 3, and 120 rows two windows
        assert layer.num_tokens == (56 if layer.kind == "image" else 18) and layer.tokens.shape[0] == 6
        torch.testing.assert_close(layer.tokens[3:], alone.tokens, atol=1e-4, rtol=1e-4)
    for layer in trace.cluster_layers():
        assert layer.semantic_grid_hw == (6, 3) and layer.attention.shape == (6, 4, 18, 56)
        clusters = layer.clusters().unflatten(0, (-1, layer.frames))
        assert clusters.shape == (2, 3, 56) and clusters.min() >= 0 and clusters.max() < 18
    weight = trace.cluster_layers()[1].attention.sum(-1)
    assert (weight > 0).all() and (weight < 1).all()


@pytest.mark.parametrize(("options", "smallest"), [({}, "97x97"), ({"window_size": (4, 4, 4)}, "49x49")])
def test_frames_smaller_than_a_window_are_refused_with_a_next_step(options, smallest):
    with pytest.raises(ValueError, match=rf"frames of 48x200 pixels do not fill one .* at least {smallest}, or create"):
        with_semantic_tokens(**options)(torch.zeros(1, 3, 2, 48, 200))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"stgm_position": 3}, "stgm_position=3 does not fit stage 3: choose 0 to 2"),
        ({"window_size": (8, 7, 6)}, "windows of as many rows as columns"),
        ({"semantic_window": 8}, r"semantic_window=8 does not fit a window: choose 1 to 7"),
    ],
)
def test_sizes_that_cannot_be_built_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        STViTVideoSwin(**{**SIZES, "stgm_position": 1, **options})


@pytest.mark.parametrize("options", [{"pooling": "max"}, {"global_centres": False}, {"layer_scale": 1e-5}])
def test_semantic_tokens_can_be_made_in_other_ways(options):
    model = with_semantic_tokens(**options)
    with torch.inference_mode():
        assert model(clips(1, 3, 4, 112, 112)).isfinite().all()
    assert any("global_centres" in name for name, _ in model.named_parameters()) == options.get("global_centres", True)
