"""Recipes: everything that decides what a training run comes to, in one plain file.

A recipe names no paths and no hardware: the same recipe gives the same run on one processor or on several machines.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from stvit.errors import UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

FOLDER = Path(__file__).parent / "recipes"
TaskName = Literal["classify", "detect", "segment", "video", "sparsify"]
ScheduleName = Literal["cosine", "steps", "polynomial"]

T = TypeVar("T", bound=BaseModel)
AnyTuple = Field(strict=False)  # TOML has lists alone


class RecipeError(UserError, ValueError):
    """A recipe, or data that it names, cannot be used as it is."""


class Table(BaseModel):
    """A table of a recipe with fixed keys and types; read one with :func:`read_table`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class TrainedModel(Table):
    """A trained model beside the one that is trained: registered name and arguments."""

    model: str
    options: dict[str, Any] = {}


class Start(TrainedModel):
    """The trained model whose weights a run begins with.

    Attributes:
        into: part of the new model that the weights are for, e.g. ``backbone``; empty for the whole.
        out_of: part of the trained model that they are of.
        new: parameters that the trained model lacks, where the new model does not know them itself.
    """

    into: str = ""
    out_of: str = ""
    new: Annotated[tuple[str, ...], AnyTuple] = ()


class Teacher(TrainedModel):
    """The trained model that a run learns from beside the labels.

    Attributes:
        weight: share of the distillation in the loss, in [0, 1].
        temperature: of the softened class probabilities.
    """

    weight: float = Field(0.5, ge=0, le=1)
    temperature: float = Field(1.0, gt=0)


def none_if_empty(table: Any) -> Any:
    return None if table == {} else table


class Recipe(Table):
    """One training run.

    Attributes:
        task: what is learned.
        model: registered name.
        data: ``kind`` and the options of that kind, see :mod:`stvit.training.datasets.data`.
        epochs: passes over the training set.
        batch_size: samples per optimiser step, over all processes and accumulated batches, copies included.
        learning_rate: at the end of the warm-up, for this batch size.
        model_options: arguments of the model.
        start: trained model whose weights the model begins with.
        teacher: trained model to learn from beside the labels.
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
            that it keeps falls along a cosine to its own ``keep_rate`` (EViT). Empty: the model's own rate throughout.
        augmentation: options of the task's augmentation.
        repeats: copies of every sample in a batch, each augmented independently; an epoch of as many steps then sees
            that many times fewer samples.
        loss: options of the task's loss.
        seed: of the weights, the order and the augmentation.
    """

    task: TaskName
    model: str
    data: dict[str, Any]
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    learning_rate: float = Field(gt=0)
    model_options: dict[str, Any] = {}
    start: Annotated[Start | None, BeforeValidator(none_if_empty)] = None
    teacher: Annotated[Teacher | None, BeforeValidator(none_if_empty)] = None
    schedule: ScheduleName = "cosine"
    milestones: Annotated[tuple[int, ...], AnyTuple] = ()
    min_learning_rate: float = 1e-5
    warmup_epochs: float = Field(0.0, ge=0)
    warmup_learning_rate: float = 1e-6
    layer_decay: float = Field(1.0, gt=0, le=1)
    weight_decay: float = 0.05
    betas: Annotated[tuple[float, float], AnyTuple] = (0.9, 0.999)
    clip_norm: float = 0.0
    ema_decay: float = Field(0.0, ge=0, lt=1)
    keep_rate_epochs: Annotated[tuple[float, ...], AnyTuple] = ()
    augmentation: dict[str, Any] = {}
    repeats: int = Field(1, ge=1)
    loss: dict[str, Any] = {}
    seed: int = 0

    @field_validator("data")
    @classmethod
    def _names_a_kind(cls, data: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(data.get("kind"), str):
            raise ValueError("names no kind")
        return data

    @model_validator(mode="after")
    def _epochs_fit(self) -> Recipe:
        if self.warmup_epochs >= self.epochs:
            raise ValueError(f"warmup_epochs lies in [0, {self.epochs}), not at {self.warmup_epochs}")
        if self.schedule == "steps" and not self.milestones:
            raise ValueError("schedule = 'steps' needs milestones")
        shrinking = self.keep_rate_epochs
        if shrinking and (len(shrinking) != 2 or not 0 <= shrinking[0] < shrinking[1] <= self.epochs):
            given = ", ".join(f"{epoch:g}" for epoch in shrinking)
            raise ValueError(f"keep_rate_epochs are two, rising, from 0 to {self.epochs}, not [{given}]")
        return self


def read_table(kind: type[T], entries: Mapping[str, Any], name: str = "") -> T:
    """Check the entries of a table.

    Args:
        kind: what they have to be.
        name: of the table in the recipe; empty for the recipe itself.

    Raises:
        RecipeError: unknown or missing keys, or values of other types or out of range; the message names them all.
    """
    try:
        return kind.model_validate(dict(entries))
    except ValidationError as error:
        raise RecipeError("; ".join(_problems(error, kind, name))) from error


def _problems(error: ValidationError, kind: type[BaseModel], name: str) -> Iterable[str]:
    for one in error.errors(include_url=False, include_context=False):
        key = ".".join(map(str, [*([name] if name else []), *one["loc"]]))
        if one["type"] == "missing":
            yield f"the recipe lacks {key}"
        elif one["type"] == "extra_forbidden":
            known = f"; {name or 'a recipe'} has {', '.join(kind.model_fields)}" if len(one["loc"]) == 1 else ""
            yield f"a recipe has no {key}{known}"
        elif one["type"] == "value_error":
            yield f"{key} {one['msg'].removeprefix('Value error, ')}".strip()
        else:
            yield f"{key} = {one['input']!r}: {one['msg'][0].lower()}{one['msg'][1:]}"


def folders() -> list[Path]:
    """Where recipes are looked for by name: the package's folder, and those that ``pyproject.toml`` in the current
    folder lists as ``recipes`` under ``[tool.stvit]``.

    Raises:
        RecipeError: the list is none of folders.
    """
    project = Path("pyproject.toml")
    if not project.is_file():
        return [FOLDER]
    listed = _read_toml(project).get("tool", {}).get("stvit", {}).get("recipes", [])
    if not isinstance(listed, list) or not all(isinstance(folder, str) for folder in listed):
        raise RecipeError(f"recipes under [tool.stvit] in {project} is no list of folders")
    return [FOLDER, *map(Path, listed)]


def names() -> list[str]:
    """The recipes that are found by name; files whose names begin with ``_`` are only bases of others."""
    files = (file for folder in folders() for file in folder.glob("*.toml"))
    return sorted(file.stem for file in files if not file.name.startswith("_"))


def load_recipe(name: str, changes: Iterable[str] = ()) -> Recipe:
    """Read a recipe.

    Args:
        name: one of :func:`names`, or a path that ends in ``.toml``. A recipe with ``base = "other"`` holds what
            differs from the other one, which lies beside it or is found by name; tables are merged key by key.
        changes: ``key=value`` with a TOML value, or a bare word for a string; keys of tables are dotted.

    Raises:
        RecipeError: no such recipe, no valid TOML, or keys and values that do not make a recipe.
    """
    entries = read_entries(_find(name, folders()))
    for change in changes:
        _apply(entries, change)
    return build(entries)


def read_entries(path: Path, heirs: tuple[Path, ...] = ()) -> dict[str, Any]:
    """The entries of a recipe, those of its base included.

    Raises:
        RecipeError: see :func:`load_recipe`.
    """
    if path in heirs:
        raise RecipeError(f"{path} is its own base")
    entries = _read_toml(path)
    base = entries.pop("base", None)
    if base is None:
        return entries
    if not isinstance(base, str):
        raise RecipeError(f"base in {path} is not the name of a recipe: {base!r}")
    return _merged(read_entries(_find(base, [path.parent, *folders()]), (*heirs, path)), entries)


def _find(name: str, places: Iterable[Path]) -> Path:
    candidates = [Path(name)] if name.endswith(".toml") else [folder / f"{name}.toml" for folder in places]
    for path in candidates:
        if path.is_file():
            return path
    raise RecipeError(f"there is no recipe {name!r}; there are: {', '.join(names())}")


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read ({error})") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path} is not valid TOML: {error}") from error


def _merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    tables = {key for key, value in own.items() if isinstance(value, dict) and isinstance(base.get(key), dict)}
    return {**base, **own, **{key: _merged(base[key], own[key]) for key in tables}}


def plain(recipe: Recipe) -> dict[str, Any]:
    """A recipe with all its defaults as plain data, to keep it or to compare it with another run's."""
    return recipe.model_dump(mode="json")


def build(entries: Mapping[str, Any]) -> Recipe:
    """A recipe of these entries; what they lack has its default.

    Raises:
        RecipeError: keys and values that do not make a recipe.
    """
    return read_table(Recipe, entries)


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


class DataPaths:
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
            raise RecipeError(f"--data {name}: there is no {path}")
        return path

    def need(self, name: str) -> Path:
        """The path of that name.

        Raises:
            RecipeError: none was given, or there is nothing at it.
        """
        path = self.get(name)
        if path is None:
            raise RecipeError(f"this recipe needs --data {name}=PATH")
        return path


def add_data_option(parser: argparse.ArgumentParser, help: str = "where the data are, as in training") -> None:
    """Give a command ``--data NAME=PATH``, any number of times; ``--place`` is its former name."""
    how = {"type": _data_path, "action": "append", "metavar": "NAME=PATH"}
    parser.add_argument("--data", default=[], help=help, **how)
    parser.add_argument("--place", dest="data", help=argparse.SUPPRESS, **how)


def _data_path(text: str) -> tuple[str, Path]:
    name, found, path = text.partition("=")
    if not found or not path:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=PATH")
    return name, Path(path)
