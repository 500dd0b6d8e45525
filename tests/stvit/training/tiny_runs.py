"""Runs of tiny recipes, in this process."""

from __future__ import annotations

from pathlib import Path

import torch

from stvit.training.batches import Share, seed_everything
from stvit.training.checkpoints import read_metrics
from stvit.training.recipe import load_recipe
from stvit.training.tasks.task import Task
from tests.stvit.training.tiny_sources import write_items, write_photos

Source = tuple[str, dict[str, Path]]  # a recipe's file, and where its data lie


def garments_source(folder: Path, recipe: str) -> Source:
    """A recipe on garments, with tiny stand-ins for the garments and photographs."""
    (folder / "garments.toml").write_text(recipe)
    places = {"items": write_items(folder / "items"), "backgrounds": write_photos(folder / "photos")}
    return str(folder / "garments.toml"), places


def arguments(source: Source, output: Path, *more: str) -> list[str]:
    """Those of the command that runs the recipe."""
    recipe, places = source
    given = [f"--data={name}={path}" for name, path in places.items()]
    task = load_recipe(recipe).task
    return [task, "--recipe", recipe, *given, "--output", str(output), "--cpu", "--log-every", "1", *more]


def evaluations(output: Path) -> list[dict[str, float]]:
    """What the evaluations of a run found, in their order."""
    return [line["evaluation"] for line in read_metrics(output) if "evaluation" in line]


def learn_by_heart(task: Task, batch_size: int, learning_rate: float, steps: int = 30) -> tuple[float, float]:
    """Sums of the losses when one batch is trained on again and again: of the first five steps, and of the last."""
    seed_everything("test")
    model = task.build_model().train()
    batch = next(task.data.training_batches(0, 0, Share(0, 1, batch_size, 1), 0, seed=0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate)
    sums = []
    for _ in range(steps):
        loss = sum(task.losses(model, batch).values())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        sums.append(loss.item())
    return sum(sums[:5]), sum(sums[-5:])
