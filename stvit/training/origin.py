"""Where trained weights come from: what a run notes beside them. Read without the libraries that training needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from stvit.predict.device import device_name

from .checkpoints import WEIGHTS_FILE
from .recipe import AnyTuple, Recipe, RecipeError, plain

ORIGIN_FILE = "recipe.json"


class Origin(BaseModel):
    """What was trained, how and on what, and the runs that it started from; kept beside the weights.

    Attributes:
        recipe: its name.
        changes: those made to it, as on the command line.
        entries: all entries of the recipe as it was then.
        precision: of the computation.
        device, torch: what it ran on.
        data: names of the data paths, without ``start`` and ``teacher``.
        classes: names in the order of the model's outputs; empty where the data do not tell them.
        before: by role, ``start`` or ``teacher``, the run whose weights it took; weights from elsewhere are left out.
    """

    model_config = ConfigDict(frozen=True)

    recipe: str
    changes: Annotated[tuple[str, ...], AnyTuple]
    entries: dict[str, Any]
    precision: str
    device: str
    torch: str
    data: Annotated[tuple[str, ...], AnyTuple] = ("backgrounds",)  # of runs from before it was noted
    classes: Annotated[tuple[str, ...], AnyTuple] = ()
    before: dict[str, Origin] = {}

    @classmethod
    def of_run(
        cls,
        name: str,
        changes: Sequence[str],
        recipe: Recipe,
        paths: Mapping[str, Path],
        classes: Sequence[str],
        precision: str,
        device: str,
    ) -> Origin:
        """The origin of a run that is about to begin; ``device`` is PyTorch's name of it."""
        roles = ("start", "teacher")
        return cls(
            recipe=name,
            changes=tuple(changes),
            entries=plain(recipe),
            precision=precision,
            device=device_name(torch.device(device)),
            torch=torch.__version__.split("+")[0],
            data=tuple(name for name in paths if name not in roles),
            classes=tuple(classes),
            before={role: cls.read(paths[role].parent) for role in roles if _is_of_a_run(paths.get(role))},
        )

    @classmethod
    def read(cls, folder: Path) -> Origin:
        """The origin of the run in a folder.

        Raises:
            RecipeError: there is none, or it is not of this program.
        """
        try:
            return cls.model_validate_json((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, ValidationError) as error:
            raise RecipeError(f"{folder} holds no run: {ORIGIN_FILE} cannot be read ({error})") from error

    def write(self, folder: Path) -> None:
        """Leave it in the folder of the run."""
        (folder / ORIGIN_FILE).write_text(self.model_dump_json(indent=1) + "\n", encoding="utf-8")

    @property
    def commands(self) -> tuple[str, ...]:
        """The shell commands that repeat all runs before this one, and then this one. Paths are left to be filled in;
        ``WEIGHTS`` are those of the command before where there is one."""
        changes = "".join(f" --set {change}" for change in self.changes)
        data = "".join(f" --data {name}=PATH" for name in self.data)
        roles = "".join(f" --data {role}=WEIGHTS" for role in ("start", "teacher") if self.entries[role])
        own = (
            f"python -m stvit.training {self.entries['task']} --recipe {self.recipe}{changes} "
            f"--precision {self.precision}{data}{roles} --output FOLDER"
        )
        return tuple(dict.fromkeys([*(line for run in self.before.values() for line in run.commands), own]))

    @property
    def samples_seen(self) -> int | None:
        """In this run and those whose weights it started from; ``None`` where a recipe does not say it."""
        start = self.before.get("start")
        if "train_samples" not in self.entries["data"] or (start and start.samples_seen is None):
            return None
        own = self.entries["data"]["train_samples"] * self.entries["epochs"]
        return own + (start.samples_seen if start else 0)


def _is_of_a_run(weights: Path | None) -> bool:
    return weights is not None and weights.name == WEIGHTS_FILE and (weights.parent / ORIGIN_FILE).is_file()
