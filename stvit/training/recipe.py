"""Recipes: everything that decides what a training run comes to, in one plain file.

A recipe names no paths and no hardware: the same recipe gives the same run on one processor or on several machines.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
TaskName = Literal["classify", "detect", "segment", "video"]
ScheduleName = Literal["cosine", "steps", "polynomial"]


class RecipeError(ValueError):
    """A recipe cannot be used as it is; the message is for the user."""


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        task: what is learned.
        model: registered name.
        data: ``kind`` and the options of that kind, see :mod:`stvit.training.tasks`.
        epochs: passes over the training set.
        batch_size: samples per optimiser step, over all processes and accumulated batches.
        learning_rate: at the end of the warm-up, for this batch size.
        model_options: arguments of the model.
        start: registered name and options of a full-token model whose trained weights the model takes over; ``into``
            names the part of the model that they are for, e.g. the backbone.
        teacher: registered name and options of a trained model to learn from beside the labels; ``weight`` in [0, 1]
            and ``temperature`` of the distillation.
        schedule: of the learning rate after the warm-up: ``cosine``, ``steps`` (a tenth after every one of
            ``milestones``) or ``polynomial`` (linear).
        milestones: epochs.
        min_learning_rate: where the schedule ends.
        warmup_epochs: the learning rate rises linearly from ``warmup_learning_rate``; may be a fraction.
        weight_decay, betas: of AdamW; norms, biases and what the model exempts do not decay.
        clip_norm: bound of the gradient's norm; 0 for none.
        ema_decay: of the moving average of the weights that is evaluated and saved; 0 for none.
        augmentation: options of the task's augmentation.
        loss: options of the task's loss.
        seed: of the weights, the order and the augmentation.
    """

    task: TaskName
    model: str
    data: Mapping[str, Any]
    epochs: int
    batch_size: int
    learning_rate: float
    model_options: Mapping[str, Any] = field(default_factory=dict)
    start: Mapping[str, Any] = field(default_factory=dict)
    teacher: Mapping[str, Any] = field(default_factory=dict)
    schedule: ScheduleName = "cosine"
    milestones: tuple[int, ...] = ()
    min_learning_rate: float = 1e-5
    warmup_epochs: float = 0.0
    warmup_learning_rate: float = 1e-6
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    loss: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.task not in get_args(TaskName):
            raise RecipeError(f"there is no task {self.task!r}; choose one of {', '.join(get_args(TaskName))}")
        if self.schedule not in get_args(ScheduleName):
            raise RecipeError(f"no schedule {self.schedule!r}; choose one of {', '.join(get_args(ScheduleName))}")
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise RecipeError("epochs and batch_size are at least 1 and learning_rate is above 0")
        if not 0 <= self.warmup_epochs < self.epochs or not 0 <= self.ema_decay < 1:
            raise RecipeError("warmup_epochs lies in [0, epochs) and ema_decay in [0, 1)")
        if "kind" not in self.data:
            raise RecipeError("data names no kind")


def names() -> list[str]:
    """The recipes that come with the package."""
    return sorted(file.stem for file in FOLDER.glob("*.toml"))


def load_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: one that comes with the package, or a path that ends in ``.toml``.
        changes: ``key=value`` with a TOML value, or a bare word for a string; keys of tables are dotted.

    Raises:
        RecipeError: no such recipe, no valid TOML, or keys and values that do not make a recipe.
    """
    path = Path(name) if name.endswith(".toml") else FOLDER / f"{name}.toml"
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {name!r}; there are: {', '.join(names())}") from None
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error
    for change in changes:
        _apply(entries, change)
    return _build(entries)


def _apply(entries: dict[str, Any], change: str) -> None:
    key, found, text = change.partition("=")
    if not found:
        raise RecipeError(f"{change!r} is no change; write key=value")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *tables, last = key.split(".")
    for table in tables:
        entries = entries.setdefault(table, {})
        if not isinstance(entries, dict):
            raise RecipeError(f"{key} names no table of the recipe")
    entries[last] = value


def _build(entries: dict[str, Any]) -> Recipe:
    known = {f.name: f for f in fields(Recipe)}
    if unknown := sorted(entries.keys() - known.keys()):
        raise RecipeError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(known)}")
    required = ("task", "model", "data", "epochs", "batch_size", "learning_rate")
    if missing := [name for name in required if name not in entries]:
        raise RecipeError(f"the recipe lacks {', '.join(missing)}")
    tuples = {name: tuple(entries[name]) for name in ("betas", "milestones") if name in entries}
    try:
        return Recipe(**entries | tuples)
    except TypeError as error:
        raise RecipeError(f"a value of the recipe has the wrong type: {error}") from error
