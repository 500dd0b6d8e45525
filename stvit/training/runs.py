"""Finished runs: what their weights are worth on the test split, and what the model costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from stvit.factory import create_model
from stvit.measure.macs import count_macs

from .__main__ import make_task
from .batches import Share
from .checkpoints import WEIGHTS_FILE, read_metrics
from .origin import ORIGIN_FILE, Origin, read
from .recipe import Recipe, RecipeError, build

TEST_FILE = "test.json"
#: arguments of models that matter in training alone
TRAINING_OPTIONS = ("drop_path_rate", "patch_drop_rate")


@dataclass(frozen=True)
class FinishedRun:
    """The folder that a run left.

    Attributes:
        folder: its output.
        origin: what it did.
    """

    folder: Path
    origin: Origin

    @classmethod
    def read(cls, folder: Path) -> FinishedRun:
        """Look at a folder.

        Raises:
            RecipeError: it holds no finished run.
        """
        try:
            origin = read(folder)
        except (OSError, ValueError) as error:
            raise RecipeError(f"{folder} holds no run: {ORIGIN_FILE} cannot be read ({error})") from error
        if not (folder / WEIGHTS_FILE).is_file():
            raise RecipeError(
                f"the run in {folder} is not finished: there is no {WEIGHTS_FILE}. Let it go on to its end."
            )
        return cls(folder, origin)

    @cached_property
    def recipe(self) -> Recipe:
        """As it was when the run began."""
        return build(self.origin.entries)

    @property
    def weights(self) -> Path:
        return self.folder / WEIGHTS_FILE

    @property
    def model_options(self) -> dict[str, Any]:
        """The model's arguments after training."""
        return {k: v for k, v in self.recipe.model_options.items() if k not in TRAINING_OPTIONS}

    def validation(self) -> list[tuple[float, dict[str, float]]]:
        """Epochs, from 0 on, and the metrics on the validation split after them."""
        return [(line["epoch"], line["evaluation"]) for line in read_metrics(self.folder) if "evaluation" in line]

    def model(self, weights: Path | None = None) -> nn.Module:
        """The trained model, in evaluation mode; other weights than the run's may be given."""
        return create_model(self.recipe.model, checkpoint=weights or self.weights, **self.model_options)


def test(run: FinishedRun, places: Mapping[str, Path], weights: Path | None = None) -> dict[str, float]:
    """The metrics of a run on the test split; those of its own weights are kept in its folder and not measured twice.

    Args:
        run: the run.
        places: where the data is, as in training.
        weights: other weights than the run's, e.g. rounded ones.
    """
    kept = run.folder / TEST_FILE
    if weights is None and kept.is_file() and kept.stat().st_mtime > run.weights.stat().st_mtime:
        return json.loads(kept.read_text(encoding="utf-8"))
    without_start = {role: path for role, path in places.items() if role not in ("start", "teacher")}
    recipe = replace(run.recipe, start={}, teacher={})
    task, accelerator = make_task(recipe, without_start), Accelerator()
    share = Share(accelerator.process_index, accelerator.num_processes, recipe.batch_size, 1)
    model = run.model(weights).to(accelerator.device)
    with torch.inference_mode():
        metrics = task.evaluate(model, task.data.evaluation_batches("test", share, 0), accelerator, "test")
    if weights is None:
        kept.write_text(json.dumps(metrics) + "\n", encoding="utf-8")
    return metrics


def input_shape(recipe: Recipe) -> tuple[int, ...]:
    """(3, H, W) of a picture or (3, T, H, W) of a clip."""
    side = recipe.data["size"]
    return (3, recipe.data["frames"], side, side) if recipe.task == "video" else (3, side, side)


def costs(run: FinishedRun) -> int:
    """Multiply-adds of one input; of a detector, those of its backbone, since the rest depends on what is found."""
    model = run.model()
    return count_macs(model.backbone if run.recipe.task == "detect" else model, input_shape(run.recipe))
