"""What a task has to know for the loop to train it: its data, its loss and its metrics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

import timm
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import Dataset

from stvit.factory import create_model
from stvit.init_weights import init_from_state_dict
from stvit.training.batches import Share, evaluation_batches, steps_per_epoch, training_batches
from stvit.training.recipe import Recipe, RecipeError


class Places:
    """Folders and files on this machine, by the names that recipes ask for."""

    def __init__(self, paths: Mapping[str, Path]) -> None:
        self.paths = paths

    def get(self, name: str) -> Path | None:
        """The path of that name, if one was given.

        Raises:
            RecipeError: there is nothing at it.
        """
        path = self.paths.get(name)
        if path is not None and not path.exists():
            raise RecipeError(f"--place {name}: there is no {path}")
        return path

    def need(self, name: str) -> Path:
        """The path of that name.

        Raises:
            RecipeError: none was given, or there is nothing at it.
        """
        path = self.get(name)
        if path is None:
            raise RecipeError(f"this recipe needs --place {name}=PATH")
        return path


class Data(Protocol):
    """Where batches come from; every process takes its own share."""

    def steps_per_epoch(self, share: Share) -> int: ...

    def training_batches(self, epoch: int, first_step: int, share: Share, workers: int, seed: int) -> Iterator[Any]: ...

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]: ...


class MapData(ABC):
    """Data whose samples have numbers."""

    collate: Callable[[list[Any]], Any] | None = None

    @abstractmethod
    def dataset(self, split: str, epoch: int) -> Dataset:
        """The ``train`` samples of an epoch, or those of ``validation`` or ``test``."""

    def steps_per_epoch(self, share: Share) -> int:
        return steps_per_epoch(len(self.dataset("train", 0)), share)

    def training_batches(self, epoch: int, first_step: int, share: Share, workers: int, seed: int) -> Iterator[Any]:
        dataset = self.dataset("train", epoch)
        where = {"epoch": epoch, "first_step": first_step}
        return training_batches(dataset, share, seed=seed, **where, workers=workers, collate=self.collate)

    def evaluation_batches(self, split: str, share: Share, workers: int) -> Iterator[Any]:
        return evaluation_batches(self.dataset(split, 0), share, workers=workers, collate=self.collate)


def data_of_kind(kinds: Mapping[str, Callable[[Recipe, Places], Data]], recipe: Recipe, places: Places) -> Data:
    """The data that a recipe names.

    Args:
        kinds: by name, those of the recipe's task.

    Raises:
        RecipeError: no such kind, or an option of it is missing.
    """
    kind = recipe.data["kind"]
    if kind not in kinds:
        raise RecipeError(f"there is no data of kind {kind!r} to {recipe.task}; choose one of {', '.join(kinds)}")
    try:
        return kinds[kind](recipe, places)
    except KeyError as error:
        raise RecipeError(f"data of kind {kind!r} needs {error.args[0]!r}") from error


class Task(ABC):
    """One kind of training.

    Args:
        recipe: what to train.
        places: where data and weights are on this machine.
    """

    data: Data
    teacher: nn.Module | None = None  # moved to the device by the loop
    may_skip_parameters = False  # whether a batch may leave parameters without a gradient

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.recipe, self.places = recipe, places

    def build_model(self) -> nn.Module:
        """The model at the start of the run: fresh, or with the weights of the trained model that the recipe names as
        its ``start``.

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
        """Give a fresh model, or the part that the recipe names, the weights of the trained one or of a part of that.

        Raises:
            ValueError: their sizes differ.
        """
        start = self.recipe.start
        part, source = model.get_submodule(start.get("into", "")), trained.get_submodule(start.get("out_of", ""))
        if hasattr(part, "init_from") and type(part) is not type(source):
            part.init_from(source.state_dict())
        else:
            init_from_state_dict(part, source.state_dict(), start.get("new", ()), start["model"])

    def trained(self, role: str) -> nn.Module:
        """The model that the recipe names as ``start`` or ``teacher``, with the weights at the place of that name."""
        entry: Mapping[str, Any] = getattr(self.recipe, role)
        return create_model(entry["model"], checkpoint=self.places.need(role), **entry.get("options", {}))

    @abstractmethod
    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """The terms of the loss of one batch; their sum is minimised."""

    @abstractmethod
    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """Metrics over a split, of which this process gets its share of batches; the same on every process."""
