from __future__ import annotations

import re

import pytest

import stvit
from demo.charts.costs import breakdown, cost_of, giga, merge_head
from stvit.measure.macs import LayerCost
from tests.demo.conftest import OFFERED

STVIT, DEIT = "stvit_deit_small_patch16_224:num_semantic_tokens=16", "deit_small_patch16_224"


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        (STVIT, (196, 16)),
        (DEIT, (196,)),
        ("evit_deit_small_patch16_224:keep_rate=0.7", (196, 139, 99, 71)),
        ("stvit_r_swin_small_224", (3136, 784, 196, 36, 196, 36, 196, 36, 196, 49)),
        ("stvit_swin_tiny_224:semantic_window=3", (3136, 784, 196, 36)),
    ],
)
def test_the_token_counts_fall_where_the_method_reduces_them(name: str, tokens: tuple[int, ...]) -> None:
    counts = cost_of(OFFERED.find(name)).token_counts()

    assert counts == tokens


def test_layers_sum_up_to_the_count_of_the_model() -> None:
    cost = cost_of(OFFERED.find(DEIT))
    model = stvit.create_model(DEIT)
    assert cost.macs == stvit.count_macs(model)
    assert cost.macs_as_published == stvit.count_macs(model, as_published=True)


def test_the_picture_has_a_column_for_each_layer_and_the_tokens_in_words() -> None:
    picture = breakdown(OFFERED.find(STVIT), OFFERED.find(DEIT))
    first, second = picture.split('<section class="lane"')[1:]
    assert first.count('<i class="part ') == 14 and "Tokens: <b>196 → 16</b>" in first
    assert first.count('<i class="part stgm"') == 2 and first.count('<i class="part semantic-tokens"') == 6
    assert "Tokens: <b>196</b>" in second
    assert "1.91 G" in first and "4.61 G" in second


def test_columns_share_one_scale() -> None:
    heights = [
        float(part) for part in re.findall(r"--part:([\d.]+)", breakdown(OFFERED.find(STVIT), OFFERED.find(DEIT)))
    ]
    assert max(heights) == 1.0 and max(heights[:14]) == pytest.approx(0.377 / 0.379, abs=0.01)


def test_classifiers_are_one_entry() -> None:
    layers = (
        LayerCost("a", "image tokens", 5, 9),
        LayerCost("norm", "head", 1, None),
        LayerCost("fc", "head", 2, None),
    )
    assert merge_head(layers) == (layers[0], LayerCost("head", "head", 3, None))


@pytest.mark.parametrize(("macs", "words"), [(4_608_338_304, "4.61"), (5_000_000, "0.01"), (384_000, "< 0.01")])
def test_a_small_cost_is_not_called_zero(macs: int, words: str) -> None:
    assert giga(macs) == words
