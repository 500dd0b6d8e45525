"""Finished runs: where their weights come from, what they reach on the test split, and what the model costs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import nn

from stvit.factory import create_model
from stvit.measure.macs import count_macs
from stvit.pretrained.model_cards import WEIGHT_OPTIONS, ModelCard, numbered_classes, read_card
from stvit.training.datasets.data import Data

from .batches import Share
from .checkpoints import WEIGHTS_FILE, read_metrics
from .origin import Origin
from .recipe import Recipe, RecipeError, build
from .tasks import make_task

TEST_FILE = "test.json"
CARD_FILE = Path(WEIGHTS_FILE).with_suffix(".json").name
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
        origin = Origin.read(folder)
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
    def card(self) -> ModelCard:
        """What describes its model; the training command, given again, writes one that is missing.

        Raises:
            ModelCardError: it is missing or damaged.
        """
        return read_card(self.folder / CARD_FILE)

    @property
    def model_options(self) -> dict[str, Any]:
        """The model's arguments after training."""
        return options_after_training(self.recipe)

    def validation(self) -> list[tuple[float, dict[str, float]]]:
        """Epochs, from 0 on, and the metrics on the validation split after them."""
        return [(line["epoch"], line["evaluation"]) for line in read_metrics(self.folder) if "evaluation" in line]

    def model(self, weights: Path | None = None) -> nn.Module:
        """The trained model, in evaluation mode; other weights than the run's may be given."""
        return create_model(self.recipe.model, checkpoint=weights or self.weights, **self.model_options)


def options_after_training(recipe: Recipe) -> dict[str, Any]:
    """A recipe's arguments of its model, without those that matter in training alone or name other weights."""
    options = recipe.model_options.items()
    return {k: v for k, v in options if k not in TRAINING_OPTIONS and not k.startswith(WEIGHT_OPTIONS)}


def card_entries(recipe: Recipe, data: Data, model: nn.Module) -> dict[str, Any]:
    """The entries of a trained model's card that do not depend on its weights."""
    scale = getattr(data, "scale", None)
    entries = {
        "model": recipe.model,
        "options": options_after_training(recipe),
        "task": "classify" if recipe.task == "sparsify" else recipe.task,
        "classes": data.class_names or numbered_classes(model.num_classes),
        "input_size": min(scale) if scale else data.size or model.pretrained_cfg["input_size"][-1],
        "crop_pct": data.crop_pct,
    }
    entries |= {name: recipe.data[name] for name in ("mean", "std") if name in recipe.data}
    if scale:
        entries["scale"] = tuple(scale)
    if recipe.task == "video":
        entries |= {"frames": data.frames, "stride": data.stride}
    return entries


def test(run: FinishedRun, paths: Mapping[str, Path], weights: Path | None = None) -> dict[str, float]:
    """The metrics of a run on the test split; those of its own weights are kept in its folder and not measured twice.

    Args:
        run: the run.
        paths: where the data are, as in training.
        weights: other weights than the run's, e.g. rounded ones.
    """
    kept = run.folder / TEST_FILE
    if weights is None and kept.is_file() and kept.stat().st_mtime > run.weights.stat().st_mtime:
        return json.loads(kept.read_text(encoding="utf-8"))
    recipe = run.recipe.model_copy(update={"start": None, "teacher": None})
    task, accelerator = make_task(recipe, paths), Accelerator()
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
