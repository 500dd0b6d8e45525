"""What the rivals offer beside their forward pass: DiffRate's search, Evo-ViT's second head."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from stvit.models.diffrate import schedule_macs, search_schedule
from tests.stvit.models.families import VIT, images_for, narrow


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
    averaged, of_class_token = model.forward_auxiliary(images)
    torch.testing.assert_close(averaged, model(images))
    of_class_token.sum().backward()
    assert model.head_cls.weight.grad.abs().sum() > 0 and model.head.weight.grad is None
