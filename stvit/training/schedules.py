"""Learning rates and EViT's keep rate as functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, PolyLRScheduler
from timm.scheduler.scheduler import Scheduler
from torch import nn

from .recipe import Recipe, RecipeError


def make_optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW; with ``layer_decay``, the layers are those of the model's ``group_matcher``."""
    decay = recipe.layer_decay if recipe.layer_decay < 1 else None
    return create_optimizer_v2(
        model,
        "adamw",
        lr=recipe.learning_rate,
        weight_decay=recipe.weight_decay,
        betas=recipe.betas,
        layer_decay=decay,
    )


def make_schedule(recipe: Recipe, optimizer: torch.optim.Optimizer, steps_per_epoch: int) -> Scheduler:
    """The learning rate as a function of the step alone."""
    warmup = {
        "warmup_t": round(recipe.warmup_epochs * steps_per_epoch),
        "warmup_lr_init": recipe.warmup_learning_rate,
        "t_in_epochs": False,
    }
    total = recipe.epochs * steps_per_epoch
    if recipe.schedule == "steps":
        steps = [milestone * steps_per_epoch for milestone in recipe.milestones]
        return MultiStepLRScheduler(optimizer, steps, decay_rate=0.1, **warmup)
    after = total - warmup["warmup_t"]
    common = {"lr_min": recipe.min_learning_rate, "warmup_prefix": True, "cycle_limit": 1, **warmup}
    if recipe.schedule == "polynomial":
        return PolyLRScheduler(optimizer, after, power=1.0, **common)
    return CosineLRScheduler(optimizer, after, **common)


def make_keep_rate(recipe: Recipe, model: nn.Module, steps_per_epoch: int) -> Callable[[int], float] | None:
    """The share of tokens that the model keeps as a function of the step, from 1 down to its present ``keep_rate``; see
    :attr:`Recipe.keep_rate_epochs` (Liang et al., ICLR 2022, and the settings that its authors released).

    Returns:
        ``None`` if the recipe leaves the model's own rate alone.

    Raises:
        RecipeError: the model has no keep rate.
    """
    if not recipe.keep_rate_epochs:
        return None
    if not hasattr(model, "keep_rate"):
        raise RecipeError(f"{recipe.model} has no keep rate, as EViT has: leave out keep_rate_epochs")
    target = model.keep_rate
    first, last = (epoch * steps_per_epoch for epoch in recipe.keep_rate_epochs)

    def keep_rate(step: int) -> float:
        if step <= first:
            return 1.0  # and not a rounding error above it
        done = min((step - first) / (last - first), 1.0)
        return target + (1 - target) * (1 + math.cos(math.pi * done)) / 2

    return keep_rate
