"""Recipes: everything that decides what a training run comes to, in one plain file.

A recipe names no paths and no hardware: the same recipe gives the same run on one processor or on several machines.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, get_args

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
TaskName = Literal["classify", "detect", "segment", "video"]
ScheduleName = Literal["cosine", "steps", "polynomial"]
WHOLE_NUMBERS = ("epochs", "batch_size", "repeats", "seed")
SEQUENCES = ("milestones", "betas", "keep_rate_epochs")
TABLES = ("data", "model_options", "start", "teacher", "augmentation", "loss")


class RecipeError(ValueError):
    """A recipe cannot be used as it is; the message is for the user."""


@dataclass(frozen=True)
class Recipe:
    """One training run.

    Attributes:
        task: what is learned.
        model: registered name.
        data: ``kind`` and the options of that kind, see :mod:`stvit.training.tasks.task`.
        epochs: passes over the training set.
        batch_size: samples per optimiser step, over all processes and accumulated batches, copies included.
        learning_rate: at the end of the warm-up, for this batch size.
        model_options: arguments of the model.
        start: registered name and options of a trained model whose weights the model takes over; ``into`` names the
            part of the model that they are for, e.g. the backbone, ``out_of`` the part of the trained model that they
            are of, ``new`` the parameters that they lack where the model itself does not know.
        teacher: registered name and options of a trained model to learn from beside the labels; ``weight`` in [0, 1]
            and ``temperature`` of the distillation.
        schedule: of the learning rate after the warm-up: ``cosine``, ``steps`` (a tenth after every one of
            ``milestones``) or ``polynomial`` (linear).
        milestones: epochs.
        min_learning_rate: where the schedule ends.
        warmup_epochs: the learning rate rises linearly from ``warmup_learning_rate``; may be a fraction.
        layer_decay: the learning rate of every layer as a share of the next one's, in (0, 1]; heads have the full one.
        weight_decay, betas: of AdamW; norms, biases and what the model exempts do not decay.
        clip_norm: bound of the gradient's norm; 0 for none.
        ema_decay: of the moving average of the weights that is evaluated and saved; 0 for none.
        keep_rate_epochs: two, may be fractions: until the first the model keeps all tokens, until the second the share
            that it keeps falls along a cosine to its own ``keep_rate`` (EViT). None: it is its own all the time.
        augmentation: options of the task's augmentation.
        repeats: copies of every sample in a batch, each augmented for itself; an epoch of as many steps then sees that
            many times fewer samples.
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
    layer_decay: float = 1.0
    weight_decay: float = 0.05
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float = 0.0
    ema_decay: float = 0.0
    keep_rate_epochs: tuple[float, ...] = ()
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    repeats: int = 1
    loss: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0

    def __post_init__(self) -> None:
        self._check_types()
        if self.task not in get_args(TaskName):
            raise RecipeError(f"there is no task {self.task!r}; choose one of {', '.join(get_args(TaskName))}")
        if self.schedule not in get_args(ScheduleName):
            raise RecipeError(f"no schedule {self.schedule!r}; choose one of {', '.join(get_args(ScheduleName))}")
        if self.epochs < 1 or self.batch_size < 1 or self.learning_rate <= 0:
            raise RecipeError("epochs and batch_size are at least 1 and learning_rate is above 0")
        if not 0 <= self.warmup_epochs < self.epochs or not 0 <= self.ema_decay < 1:
            raise RecipeError("warmup_epochs lies in [0, epochs) and ema_decay in [0, 1)")
        if not 0 < self.layer_decay <= 1 or self.repeats < 1:
            raise RecipeError("layer_decay lies in (0, 1] and repeats is at least 1")
        if len(self.betas) != 2 or (self.schedule == "steps" and not self.milestones):
            raise RecipeError("betas are two numbers, and the schedule in steps needs milestones")
        shrinking = self.keep_rate_epochs
        if shrinking and (len(shrinking) != 2 or not 0 <= shrinking[0] < shrinking[1] <= self.epochs):
            raise RecipeError(f"keep_rate_epochs are two, rising, from 0 to {self.epochs}, not {list(shrinking)}")
        self._check_tables()

    def _check_types(self) -> None:
        for name in WHOLE_NUMBERS:
            if not isinstance(getattr(self, name), int):
                raise TypeError(f"{name} is a whole number, not {getattr(self, name)!r}")
        for name in TABLES:
            if not isinstance(getattr(self, name), Mapping):
                raise TypeError(f"{name} is a table, not {getattr(self, name)!r}")

    def _check_tables(self) -> None:
        if "kind" not in self.data:
            raise RecipeError("data names no kind")
        for role, entry in (("start", self.start), ("teacher", self.teacher)):
            if entry and "model" not in entry:
                raise RecipeError(f"{role} names no model")


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
    return build(entries)


def plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe as it reads from a file, to keep it or to compare it with another run's."""
    return json.loads(json.dumps(asdict(recipe)))


def build(entries: Mapping[str, Any]) -> Recipe:
    """A recipe of these entries; what they lack has its default.

    Raises:
        RecipeError: keys and values that do not make a recipe.
    """
    known = {f.name: f for f in fields(Recipe)}
    if unknown := sorted(entries.keys() - known.keys()):
        raise RecipeError(f"a recipe has no {', '.join(unknown)}; it has {', '.join(known)}")
    required = ("task", "model", "data", "epochs", "batch_size", "learning_rate")
    if missing := [name for name in required if name not in entries]:
        raise RecipeError(f"the recipe lacks {', '.join(missing)}")
    try:
        tuples = {name: tuple(entries[name]) for name in SEQUENCES if name in entries}
        return Recipe(**{**entries, **tuples})
    except TypeError as error:
        raise RecipeError(f"a value of the recipe has the wrong type: {error}") from error


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
