"""The base of all tasks: their model, data, loss and metrics, as the loop calls them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import timm
from accelerate import Accelerator, PartialState
from torch import Tensor, nn

from stvit.factory import create_model
from stvit.init_weights import init_from_state_dict
from stvit.training.batches import Share
from stvit.training.datasets.data import Data
from stvit.training.recipe import DataPaths, Recipe, RecipeError


class Task(ABC):
    """One kind of training.

    Args:
        recipe: what to train.
        paths: where data and weights are on this machine.
    """

    data: Data
    teacher: nn.Module | None = None  # moved to the device by the loop
    may_skip_parameters = False  # whether a batch may leave parameters without a gradient
    starts_trained = False  # whether the model is trained before the run, beside what a recipe names as start

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        self.recipe, self.paths = recipe, paths

    def check(self, share: Share, workers: int) -> None:
        """Look for what would stop the run later; called before the first step.

        Raises:
            RecipeError: see above.
        """
        self.data.check(share, workers)

    def build_model(self) -> nn.Module:
        """Build the model, and initialise it from the trained model that the recipe names as ``start``.

        Raises:
            RecipeError: there is no such model, or it has no such options, or the weights are of one of other sizes.
        """
        try:
            model = timm.create_model(self.recipe.model, **self.recipe.model_options)
        except (RuntimeError, TypeError) as error:
            raise RecipeError(f"the recipe's model cannot be built: {error}") from error
        if self.recipe.start:
            trained = self.trained("start")
            try:
                self.start(model, trained)
            except ValueError as error:
                raise RecipeError(f"the recipe's start does not fit its model: {error}") from error
        return model

    def start(self, model: nn.Module, trained: nn.Module) -> None:
        """Initialise a model, or the part ``into`` of the recipe, from the trained one, or from its part ``out_of``.

        Raises:
            ValueError: their sizes differ.
        """
        start = self.recipe.start
        part, source = model.get_submodule(start.into), trained.get_submodule(start.out_of)
        if hasattr(part, "init_from") and type(part) is not type(source):
            part.init_from(source.state_dict())
        else:
            init_from_state_dict(part, source.state_dict(), start.new, start.model)

    def trained(self, role: Literal["start", "teacher"]) -> nn.Module:
        """The model that the recipe names in this role, with the weights at the data path of that name."""
        entry = getattr(self.recipe, role)
        return create_model(entry.model, checkpoint=self.paths.need(role), **entry.options)

    def before_step(self, model: nn.Module, epoch: float) -> None:  # noqa: B027 - most models stay as they are
        """Change the model as the run proceeds; called before every step with the epochs that are done."""

    def finish(self, model: nn.Module, output: Path) -> None:  # noqa: B027 - most tasks leave no more
        """Leave more than weights and card in the output folder; called on the main process at the end."""

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """The terms of the loss of one batch; their sum is minimised."""

    @abstractmethod
    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """Metrics over a split, of which this process gets its share of batches; the same on every process."""


class DenseTask(Task):
    """A task whose model has a ``backbone`` and heads on it."""

    def build_model(self) -> nn.Module:
        """As for every task; on several GPUs the heads' BatchNorm sees the batches of all of them, as published."""
        model, machines = super().build_model(), PartialState()
        if machines.num_processes > 1 and machines.device.type == "cuda":
            for name, part in list(model.named_children()):
                if name != "backbone":
                    setattr(model, name, nn.SyncBatchNorm.convert_sync_batchnorm(part))
        return model
