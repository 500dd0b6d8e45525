"""What the rivals offer beside their forward pass: DiffRate's search, and what makes the others learn."""

from __future__ import annotations

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional as F

from stvit.models.diffrate import schedule_macs, search_schedule
from tests.stvit.models.families import FAMILIES, VIT, images_for, narrow


def test_the_search_costs_no_more_and_comes_no_farther_from_all_tokens():
    model = narrow("diffrate_deit")
    images, start, num_tokens = images_for(model, batch=4), model.schedule, model.pos_embed.shape[1]

    def divergence(schedule) -> float:
        with torch.no_grad():
            model.schedule = ((num_tokens,) * VIT["depth"],) * 2
            wanted = model(images).log_softmax(dim=-1)
            model.schedule = schedule
            return F.kl_div(model(images).log_softmax(dim=-1), wanted, log_target=True, reduction="batchmean").item()

    found = search_schedule(model, images, proposals=40)
    assert model.schedule == found == model.checked(found) and found != start
    assert schedule_macs(found, num_tokens, model.embed_dim) <= schedule_macs(start, num_tokens, model.embed_dim)
    assert divergence(found) < divergence(start)


def test_the_second_head_of_evo_vit_learns_from_the_class_token():
    model = narrow("evo_vit_deit", auxiliary_head=True).train()
    images = images_for(model)
    outputs = model.forward_training(images)
    torch.testing.assert_close(outputs.logits, model(images))
    outputs.auxiliary_logits.sum().backward()
    assert model.head_cls.weight.grad.abs().sum() > 0 and model.head.weight.grad is None


def test_dynamic_vit_learns_to_keep_its_share():
    model = narrow("dynamicvit_deit", keep_rate=0.5).train()
    optimiser, images = torch.optim.SGD(model.score_predictor.parameters(), lr=0.5), images_for(model)
    ratios = []
    for _ in range(30):
        torch.manual_seed(0)
        ratio = model.forward_training(images).losses["ratio"]
        ratios.append(ratio.item())
        optimiser.zero_grad()
        ratio.backward()
        optimiser.step()
    assert ratios[-1] < 0.3 * ratios[0]


@pytest.mark.parametrize("family", ["dynamicvit_deit", "evo_vit_deit"])
def test_they_start_from_full_token_weights(family):
    full_token = VisionTransformer(**VIT).eval()
    model = FAMILIES[family](**({"auxiliary_head": True} if family == "evo_vit_deit" else {"keep_rate": 1.0}))
    new = model.init_from(full_token.state_dict())
    assert all(name.startswith("score_predictor.") for name in new)
    images = images_for(model)
    if family == "dynamicvit_deit":
        torch.testing.assert_close(model.eval()(images), full_token(images))
    else:
        model.slow_rate = 1.0
        torch.testing.assert_close(model.eval().forward_training(images).auxiliary_logits, full_token(images))
    with pytest.raises(ValueError, match="not the weights of the full-token"):
        model.init_from({})
