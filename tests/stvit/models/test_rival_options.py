"""Sizes and options of the methods beside STViT that no golden value has: costs by hand, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

import stvit
from tests.stvit.models.families import FAMILIES, images_for, narrow

WIDTHS = {"tiny": 192, "base": 768}
NUM_TOKENS, DEPTH, CLASSES = 196, 12, 1000


def without_weights(name: str, **options: Any) -> nn.Module:
    with torch.device("meta"):
        return stvit.create_model(name, **options)


def vit_macs(C: int, entering: Sequence[int], going_on: Sequence[int], pooled: int) -> int:
    """Multiply-adds of a vision transformer by hand, a LayerNorm counted as 5 for each element.

    Args:
        C: channels.
        entering: tokens that attend in every layer, the class token counted.
        going_on: tokens that its feed-forward network takes.
        pooled: tokens of the last norm.
    """
    total = NUM_TOKENS * 3 * 16 * 16 * C + 5 * pooled * C + C * CLASSES
    for n, m in zip(entering, going_on, strict=True):
        total += 5 * n * C + 4 * n * C**2 + 2 * n**2 * C + 5 * m * C + 8 * m * C**2
    return total


def predictor_macs(T: int, C: int) -> int:
    """Of DynamicViT's and DynamicSwin's small networks."""
    return T * (5 * C + C**2 + C * C // 2 + C // 2 * C // 4 + C // 4 * 2)


def test_dynamicvit_costs_what_the_tokens_that_stay_cost() -> None:
    C, rate = WIDTHS["base"], 0.9
    stages = [NUM_TOKENS, *(int(NUM_TOKENS * rate**k) for k in (1, 2, 3))]
    tokens = [1 + stages[i // 3] for i in range(DEPTH)]
    expected = vit_macs(C, tokens, tokens, tokens[-1]) + sum(predictor_macs(T, C) for T in stages[:3])
    assert stvit.count_macs(without_weights("dynamicvit_deit_base_patch16_224", keep_rate=rate)) == expected


def test_evo_vit_costs_what_the_slow_half_costs() -> None:
    C, tokens = WIDTHS["tiny"], [197] * 4 + [99] * 8
    rows = sum(tokens[3:]) * C  # the class token's attention, once more and apart
    expected = vit_macs(C, tokens, tokens, 1) + rows
    assert stvit.count_macs(without_weights("evo_vit_deit_tiny_patch16_224")) == expected


def test_atc_costs_what_its_clusters_cost_and_their_distances() -> None:
    C, rate = WIDTHS["base"], 0.9
    stages = [NUM_TOKENS, *(int(NUM_TOKENS * rate**k) for k in (1, 2, 3))]
    entering = [1 + stages[(i - 1) // 3 if i else 0] for i in range(DEPTH)]
    going_on = [1 + stages[i // 3] for i in range(DEPTH)]
    distances = sum(T**2 * 64 for T in stages[:3])
    model = without_weights("atc_deit_base_patch16_224", keep_rate=rate, linkage="complete")
    assert stvit.count_macs(model) == vit_macs(C, entering, going_on, going_on[-1]) + distances


def test_diffrate_costs_what_its_schedule_says() -> None:
    C = WIDTHS["base"]
    merged = [197, 180, 160, 150, 140, 120, 110, 100, 90, 80, 60, 2]
    pruned = [197, 190, 170, 150, 145, 130, 110, 105, 95, 85, 70, 7]
    entering = [197, *merged[:-1]]
    rows = sum(entering) * C  # the class token's attention, once more and apart
    matched = sum((kept - left) * left * C for kept, left in zip(pruned, merged, strict=True))
    model = without_weights("diffrate_deit_base_patch16_224", schedule=(pruned, merged))
    assert stvit.count_macs(model) == vit_macs(C, entering, merged, 2) + rows + matched


def test_tokenlearner_costs_its_maps_and_short_layers() -> None:
    C, tokens = WIDTHS["base"], [197] * 6 + [17] * 6
    maps = NUM_TOKENS * (5 * C + C * 64 + 64 * 16 + 16 * C)
    model = without_weights("tokenlearner_deit_base_patch16_224", num_tokens=16)
    assert stvit.count_macs(model) == vit_macs(C, tokens, tokens, tokens[-1]) + maps


def test_avit_has_what_deit_has() -> None:
    model, deit = without_weights("avit_tiny_patch16_224"), without_weights("deit_tiny_patch16_224")
    assert model.state_dict().keys() == deit.state_dict().keys()
    assert stvit.count_macs(model) == stvit.count_macs(deit)
    assert (model.gate_scale, model.gate_centre) == (10.0, 30.0)


@pytest.mark.parametrize(("size", "C", "published"), [("tiny", 384, 4.0), ("base", 512, 12.1)])
def test_dynamicswin_costs_what_its_slow_tokens_cost(size: str, C: int, published: float) -> None:
    model = without_weights(f"dynamicswin_{size}_224")
    decisions, depth = ((1, 2, 3), 6) if size == "tiny" else ((2, 4, 6), 18)
    counts = [int(NUM_TOKENS * (0.7 - step)) for step in (0.0, 0.2, 0.4)]
    fast = [NUM_TOKENS - counts[sum(i >= one for one in decisions) - 1] for i in range(decisions[0], depth)]
    full = stvit.count_macs(without_weights(f"swin_{size}_patch4_window7_224"))
    macs = stvit.count_macs(model)
    assert macs == full + 3 * predictor_macs(NUM_TOKENS, C) - 7 * C**2 * sum(fast)
    assert macs / 1e9 == pytest.approx(published, abs=0.1)
    blocks = model.layers[2].blocks
    assert [hasattr(block, "fastmlp") for block in blocks] == [i >= decisions[0] for i in range(depth)]


RATES = [0, -0.1, 1.5, math.nan, "0.7", None, True, [0.7]]
REFUSED: list[tuple[str, dict[str, Any], str]] = [
    *[("dynamicvit_deit", {"keep_rate": value}, r"^keep_rate=.*: choose a share above 0 ") for value in RATES],
    *[("evit_deit", {"keep_rate": value}, r"^keep_rate=.*: choose a share above 0 ") for value in RATES],
    *[("atc_deit", {"keep_rate": value}, r"^keep_rate=.*: choose a share above 0 ") for value in RATES],
    *[("evo_vit_deit", {"slow_rate": value}, r"^slow_rate=.*: choose a share above 0 ") for value in RATES],
    *[("dynamicswin", {"keep_rate": value}, r"^keep_rate=.*: choose a share above 0\.4 ") for value in (*RATES, 0.4)],
    *[("dynamicswin", {"decisions": value}, "choose blocks of the third stage") for value in [(2, 1), (1, 6), (-1,)]],
    *[("atc_deit", {"linkage": value}, "choose average, complete or single") for value in ("ward", None, 1)],
    *[("avit", {"gate_scale": value}, "^gate_scale=.*choose a finite number") for value in ("10", math.nan, None)],
    *[("avit", {"gate_centre": value}, "^gate_centre=.*choose a finite number") for value in ("75", math.inf, True)],
    *[("tokenlearner_deit", {"num_tokens": value}, "choose a whole number of tokens") for value in (0, -1, 2.5, "8")],
    *[("tokenlearner_deit", {"position": value}, "a layer from 0 to 5") for value in (6, -1, "3")],
    *[("tome_deit", {"r": value}, "choose the number of tokens to merge") for value in (-1, 2.5, "8", None)],
    *[("diffrate_deit", {"schedule": value}, "write a budget such as '2.9G'") for value in ("", "nan", "-1G", "fast")],
    ("diffrate_deit", {"schedule": "0.0001G"}, "too small: 3 tokens from the first layer on take 0.00"),
    *[
        ("diffrate_deit", {"schedule": value}, "two lists of 6 whole numbers")
        for value in (None, 5, [], [[100] * 6], [[100] * 5] * 2, [[100] * 6] * 3, [[99.5] * 6] * 2, ["abcdef"] * 2)
    ],
    *[
        ("diffrate_deit", {"schedule": [pruned, merged]}, rf"^layer {layer} of the schedule leaves .* no count may be")
        for layer, pruned, merged in (
            (1, [198] * 6, [100] * 6),
            (2, [150, 151, 90, 90, 90, 90], [150, 100, 90, 90, 90, 90]),
            (3, [150] * 6, [150, 150, 151, 90, 90, 90]),
            (6, [150] * 5 + [1], [150] * 5 + [1]),
            (4, [150, 150, 150, -3, -3, -3], [150, 150, 150, -3, -3, -3]),
        )
    ],
]


@pytest.mark.parametrize(("family", "options", "message"), REFUSED)
def test_a_wrong_option_is_refused_in_one_line(family: str, options: dict[str, Any], message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message) as caught:
        FAMILIES[family](**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["2.3", "3.1 g"])
def test_a_schedule_is_named_by_its_published_cost(name: str) -> None:
    macs = stvit.count_macs(without_weights("diffrate_deit_small_patch16_224", schedule=name))
    assert macs / 1e9 == pytest.approx(float(name.rstrip("Gg ")), rel=0.02)


@pytest.mark.parametrize("family", ["dynamicvit_deit", "atc_deit", "evo_vit_deit", "evit_deit"])
def test_a_rate_that_leaves_next_to_nothing_leaves_one_token(family: str) -> None:
    model = narrow(family, **{"slow_rate" if family == "evo_vit_deit" else "keep_rate": 0.001})
    with torch.inference_mode():
        logits, trace = model(images_for(model), return_trace=True)
    left = trace.layers[-1].num_tokens
    assert logits.isfinite().all() and left == (2 if family == "evit_deit" else 1)  # EViT's second token is fused


def test_compiled_atc_leaves_its_clustering_to_eager() -> None:
    model, sizes = narrow("atc_deit", depth=2, reduction_layers=(0,)), []

    def backend(graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> Any:
        sizes.append(len(graph.graph.nodes))
        return graph.forward

    images = images_for(model, batch=1)
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(model, backend=backend)(images), model(images))
    assert len(sizes) > 1 and max(sizes) < 200  # 59 steps of some fifteen operators otherwise


def test_avit_halts_in_single_precision_whatever_its_own() -> None:
    model = narrow("avit", gate_scale=20.0, gate_centre=2.0).bfloat16()
    images = images_for(model).bfloat16()
    with torch.inference_mode():
        _, trace = model(images, return_trace=True)
        halting = model.halting(images)
        packed, masked = model(images), model.forward_head(model.norm(model.run_masked(model.embed(images))[0]))
    channel = trace.layers[0].tokens[..., 0].float()
    assert torch.equal(halting.scores[:, 0, 1:], torch.sigmoid(channel * 20 - 2))
    assert packed.dtype == torch.bfloat16 and 1 < halting.depths.float().mean() < 6
    torch.testing.assert_close(packed, masked, atol=0.05, rtol=0.05)
