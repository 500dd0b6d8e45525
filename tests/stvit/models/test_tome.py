"""ToMe: the matching on small examples, and the laws of merging."""

from itertools import pairwise

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer

from stvit.models.tome import match_tokens, merge_sum
from tests.stvit.models.families import VIT, images_for, narrow


def test_the_most_similar_pairs_merge_and_the_class_token_never_does():
    a, b, c = torch.eye(3)
    # positions 0 (class token), 2 and 4 look for a partner among 1 and 3
    tokens = torch.stack([a, a, b + 0.1 * c, b, c])[None]
    matching = match_tokens(tokens, r=1)
    assert matching.merged.tolist() == [[1]] and matching.destination.tolist() == [[1]]
    assert matching.unmerged.tolist() == [[0, 2]]
    assert matching.moved_to(5).tolist() == [[0, 2, 3, 3, 1]]
    torch.testing.assert_close(merge_sum(tokens, matching)[0], torch.stack([a, c, a, 2 * b + 0.1 * c]))


@pytest.mark.parametrize("num_tokens", [9, 10])
def test_merging_keeps_the_sum_and_puts_tokens_where_it_says(num_tokens):
    torch.manual_seed(0)
    tokens = torch.randn(2, num_tokens, 4)
    matching = match_tokens(tokens, r=3)
    merged, moved_to = merge_sum(tokens, matching), matching.moved_to(num_tokens)
    assert merged.shape == (2, num_tokens - 3, 4) and (moved_to[:, 0] == 0).all()
    expected = torch.zeros_like(merged).scatter_add(1, moved_to.unsqueeze(-1).expand_as(tokens), tokens)
    torch.testing.assert_close(merged, expected)


def test_no_merging_equals_the_full_token_model():
    model, trained = narrow("tome_deit", r=0), VisionTransformer(**VIT).eval()
    trained.load_state_dict(model.state_dict(), strict=True)
    with torch.inference_mode():
        assert torch.equal(model(images_for(model)), trained(images_for(model)))


def test_every_layer_merges_and_every_image_token_stays_represented():
    model = narrow("tome_deit", r=13)
    with torch.inference_mode():
        _, trace = model(images_for(model), return_trace=True)
    assert [layer.num_tokens for layer in trace.layers] == [196 - 13 * i for i in range(1, 7)]
    for layer in trace.layers:
        assert layer.kind == "reduction" and layer.assignment.min() == 0
        sizes = layer.group_sizes()
        assert (sizes >= 1).all() and torch.equal(sizes.sum(1), torch.tensor([196, 196]))


def test_groups_only_grow():
    model = narrow("tome_deit", r=20)
    with torch.inference_mode():
        _, trace = model(images_for(model, batch=1), return_trace=True)
    together = [layer.assignment[0][:, None] == layer.assignment[0][None, :] for layer in trace.layers]
    assert all((before <= after).all() for before, after in pairwise(together))


def test_merging_stops_when_there_is_nothing_left_to_merge():
    model = narrow("tome_deit", r=90)
    with torch.inference_mode():
        _, trace = model(images_for(model), return_trace=True)
    assert [layer.num_tokens for layer in trace.layers] == [106, 53, 27, 14, 7, 4]


def test_equal_tokens_can_merge_without_changing_the_output():
    """Proportional attention: a token of size s counts as s equal tokens."""
    model, full = narrow("tome_deit", r=13), narrow("tome_deit", r=0)
    with torch.no_grad():
        for network in (model, full):
            network.pos_embed[:, 1:] = 0
    image = torch.randn(1, 3, 1, 1).expand(1, 3, 112, 112)
    with torch.inference_mode():
        torch.testing.assert_close(model(image), full(image), atol=1e-5, rtol=1e-4)


def test_a_negative_number_of_pairs_is_refused():
    with pytest.raises(ValueError, match="from 0 on"):
        narrow("tome_deit", r=-1)
