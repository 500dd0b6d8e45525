"""The roofline: bytes and multiply-adds counted by hand, a bound that behaves like one, and its words."""

from __future__ import annotations

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stvit.measure import roofline as module
from stvit.measure.machine import MachineLimits, machine_limits, working_set
from stvit.measure.macs import count_macs
from stvit.measure.roofline import Operator, Roofline, allowed, explain, operators, roofline
from tests.stvit.models.families import FAMILIES, images_for, narrow


@pytest.fixture
def slow_memory(monkeypatch: pytest.MonkeyPatch) -> MachineLimits:
    """A machine on which moving a byte takes as long as ten multiply-adds."""
    limits = MachineLimits(macs_per_s=1e9, bytes_per_s=1e8)
    monkeypatch.setattr(module, "machine_limits", lambda *_: limits)
    return limits


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        q, k, v = self.qkv(images.flatten(2).transpose(1, 2)).view(1, -1, 3, 2, 4).permute(2, 0, 3, 1, 4)
        return F.scaled_dot_product_attention(q, k, v)


def test_a_linear_layer_reads_its_weights_and_moves_its_tokens() -> None:
    network = nn.Sequential(nn.Flatten(2), nn.Linear(6, 5), nn.GELU(), nn.LayerNorm(5))
    assert operators(network, (4, 2, 3)) == (Operator(macs=4 * 6 * 5, weights=6 * 5 + 5, activations=4 * 6 + 4 * 5),)


def test_attention_moves_queries_keys_values_and_its_output_but_no_map() -> None:
    projection, attention = operators(Attention(), (8, 3, 3))
    assert projection == Operator(macs=9 * 8 * 24, weights=8 * 24, activations=9 * 8 + 9 * 24)
    assert attention == Operator(macs=2 * 2 * 9 * 9 * 4, weights=0, activations=4 * 9 * 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_of_every_family_all_multiply_adds_but_those_of_normalisation_count(family: str) -> None:
    network = narrow(family)
    shape = tuple(images_for(network, 1).shape[1:])
    found = operators(network, shape)
    assert 0.9 * count_macs(network, shape) < sum(one.macs for one in found) < count_macs(network, shape)
    assert max(one.weights for one in found) < sum(parameter.numel() for parameter in network.parameters())


def test_the_bound_is_the_longer_of_computing_and_moving(slow_memory: MachineLimits) -> None:
    network = nn.Sequential(nn.Flatten(2), nn.Linear(600, 500, bias=False))
    one, many = (roofline(network, (1, 20, 30), batch) for batch in (1, 1000))
    moved = 4 * (600 * 500 + 600 + 500)
    assert one.bound_ms == pytest.approx(1e3 * moved / 1e8) and one.weight_bytes == 4 * 600 * 500
    assert many.bound_ms == pytest.approx(1e3 * 1000 * 600 * 500 / 1e9)
    assert many.activation_bytes == 1000 * one.activation_bytes and many.weight_bytes == one.weight_bytes


def test_half_precision_moves_half_the_bytes(slow_memory: MachineLimits) -> None:
    network = nn.Sequential(nn.Flatten(2), nn.Linear(6, 5))
    full = roofline(network, (4, 2, 3))
    half = roofline(network.bfloat16(), (4, 2, 3))
    assert (half.weight_bytes, half.activation_bytes, half.macs) == (
        full.weight_bytes // 2,
        full.activation_bytes // 2,
        full.macs,
    )


def test_larger_batches_let_more_of_the_saved_multiply_adds_show(slow_memory: MachineLimits) -> None:
    with torch.device("meta"):
        short, full = (timm.create_model(name) for name in ("stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"))
    ratios = [allowed(roofline(short, batch=batch), roofline(full, batch=batch)) for batch in (1, 4, 16, 64)]
    by_macs = roofline(full).macs / roofline(short).macs
    assert ratios == sorted(ratios) and 1 < ratios[0] < 0.9 * by_macs and ratios[-1] <= by_macs * 1.001


def test_the_machine_is_measured_once_and_reaches_something() -> None:
    device = torch.device("cpu")
    limits = machine_limits(device, torch.float32, working_set(1, device))
    assert limits.macs_per_s > 0 and limits.bytes_per_s > 0
    assert machine_limits(device, torch.float32, working_set(2, device)) is limits


def of(macs: float, bound_ms: float, weight_bytes: float = 44e6, batch: int = 1) -> Roofline:
    return Roofline(batch, int(weight_bytes), 0, int(macs), bound_ms, MachineLimits(1e12, 1e10))


@pytest.mark.parametrize(
    ("model", "baseline", "times", "said"),
    [
        (of(2e9, 5, batch=16), of(4e9, 10, batch=16), (10, 20),
         "At batch 16, time follows the multiply-adds: 2.0x of 2.0x shows."),
        (of(2e9, 5), of(4e9, 7.5), (10, 15),
         "At batch 1, both read the same 44 MB of weights, so at most 1.5x of 2.0x can show, and 1.5x does."),
        (of(2e9, 5), of(4e9, 7.5), (10, 12),
         "At batch 1, both read the same 44 MB of weights, so at most 1.5x of 2.0x can show; its pass reaches "
         "20 % of the machine's peak and the baseline's 33 %, so 1.2x shows."),
        (of(2e9, 5, 3e6), of(4e9, 10), (10, 12),
         "At batch 1, 3.0 MB and 44 MB of weights are read, with time for all 2.0x; its pass reaches "
         "20 % of the machine's peak and the baseline's 33 %, so 1.2x shows."),
    ],
)  # fmt: skip
def test_one_sentence_tells_what_shows_and_what_keeps_the_rest_back(
    model: Roofline, baseline: Roofline, times: tuple[float, float], said: str
) -> None:
    assert explain(model, baseline, *times) == said
