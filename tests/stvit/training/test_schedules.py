"""Learning rates and keep rates, step by step and layer by layer."""

import pytest
import timm
import torch

from stvit.training.recipe import Recipe, RecipeError
from stvit.training.schedules import make_keep_rate, make_optimizer, make_schedule
from tests.stvit.models.families import narrow

STEPS_PER_EPOCH = 10


def recipe(**entries) -> Recipe:
    needed = {"task": "classify", "model": "any", "data": {"kind": "any"}, "epochs": 3, "batch_size": 8}
    return Recipe(**{**needed, "learning_rate": 2e-3, **entries})


@pytest.mark.parametrize("schedule", ["cosine", "polynomial", "steps"])
def test_the_learning_rate_is_a_function_of_the_step(schedule):
    planned_for = recipe(schedule=schedule, milestones=(1, 2), warmup_epochs=0.5, warmup_learning_rate=0.0)
    parameter = torch.nn.Parameter(torch.zeros(1))

    def rates(steps) -> list[float]:
        optimizer = torch.optim.SGD([parameter], lr=planned_for.learning_rate)
        planned = make_schedule(planned_for, optimizer, STEPS_PER_EPOCH)
        found = []
        for step in steps:
            planned.step_update(step)
            found.append(optimizer.param_groups[0]["lr"])
        return found

    whole = rates(range(30))
    assert whole[0] == 0 and max(whole) == pytest.approx(planned_for.learning_rate)
    assert whole[29] < 0.2 * planned_for.learning_rate
    assert rates([17]) == [whole[17]]


def test_the_shrinking_keep_rate_is_a_cosine_between_its_epochs():
    model = narrow("evit_deit", keep_rate=0.6)
    keep_rate = make_keep_rate(recipe(keep_rate_epochs=(0.5, 2.5)), model, STEPS_PER_EPOCH)
    expected = {0: 1.0, 5: 1.0, 10: 0.6 + 0.4 * (1 + 0.5**0.5) / 2, 15: 0.8, 25: 0.6, 29: 0.6}
    assert {step: keep_rate(step) for step in expected} == pytest.approx(expected)
    assert keep_rate(25) == 0.6 and keep_rate(5) == 1.0  # to the last bit
    assert all(keep_rate(step) > keep_rate(step + 1) for step in range(5, 25))


def test_the_keep_rate_stays_alone_unless_the_recipe_says_so():
    assert make_keep_rate(recipe(), narrow("evit_deit"), STEPS_PER_EPOCH) is None


def test_a_keep_rate_for_a_model_without_one_is_refused():
    with pytest.raises(RecipeError, match="any has no keep rate, as EViT has: leave out keep_rate_epochs"):
        make_keep_rate(recipe(keep_rate_epochs=(0, 1)), narrow("stvit_deit"), STEPS_PER_EPOCH)


def rates_by_name(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """The present learning rate of every parameter."""
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(p)]: group["lr"] for group in optimizer.param_groups for p in group["params"]}


@pytest.mark.parametrize("step", [0, 3, 12], ids=["first step", "warm-up", "later"])
def test_layer_decay_divides_the_learning_rate_layer_by_layer(step):
    planned_for = recipe(layer_decay=0.5, warmup_epochs=0.5, warmup_learning_rate=1e-4)
    model = narrow("stvit_deit")  # 6 layers
    optimizer = make_optimizer(planned_for, model)
    planned = make_schedule(planned_for, optimizer, STEPS_PER_EPOCH)
    planned.step_update(step)
    found = rates_by_name(model, optimizer)
    assert found.keys() == {name for name, _ in model.named_parameters()}
    full = found["head.weight"]
    if step == 0:
        assert full == pytest.approx(1e-4)
    expected = {"head.bias": 0, "norm.weight": 1, "blocks.5.mlp.fc1.weight": 1, "blocks.3.global_centres": 3}
    expected |= {"blocks.2.attn.kv.weight": 4, "blocks.0.norm1.bias": 6, "pos_embed": 7, "patch_embed.proj.bias": 7}
    for name, layers_below_the_head in expected.items():
        assert found[name] == pytest.approx(full * 0.5**layers_below_the_head), name


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_layer_decay_leaves_weight_decay_to_the_same_parameters(layer_decay):
    sizes = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8)}
    model = timm.create_model("stvit_r_swin_small_upernet", **sizes)
    optimizer = make_optimizer(recipe(layer_decay=layer_decay), model)
    decaying = {id(p) for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    exempt = model.no_weight_decay()
    for name, parameter in model.named_parameters():
        assert (id(parameter) in decaying) == (parameter.ndim > 1 and name not in exempt), name
