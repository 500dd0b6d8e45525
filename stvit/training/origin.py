"""Where the weights of a run come from: what was trained, how and on what, and the runs that it started from."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from stvit.measure.timing import device_name

from .checkpoints import WEIGHTS_FILE
from .recipe import Recipe, plain

ORIGIN_FILE = "recipe.json"


@dataclass(frozen=True)
class Origin:
    """One run.

    Attributes:
        recipe: its name.
        changes: those made to it, as on the command line.
        entries: all entries of the recipe as it was then.
        precision: of the computation.
        device, torch: what it ran on.
        before: by role, ``start`` or ``teacher``, the run whose weights it took; weights from elsewhere are left out.
    """

    recipe: str
    changes: tuple[str, ...]
    entries: Mapping[str, Any]
    precision: str
    device: str
    torch: str
    before: Mapping[str, Origin] = field(default_factory=dict)

    @classmethod
    def of_run(
        cls, name: str, changes: Sequence[str], recipe: Recipe, places: Mapping[str, Path], precision: str, device: str
    ) -> Origin:
        """The origin of a run that is about to begin; ``device`` is PyTorch's name of it."""
        before = {role: read(places[role].parent) for role in ("start", "teacher") if _is_of_a_run(places.get(role))}
        words = device_name(torch.device(device))
        return cls(name, tuple(changes), plain(recipe), precision, words, torch.__version__.split("+")[0], before)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Origin:
        """Raises KeyError or TypeError where the content is not of :meth:`write`."""
        before = {role: cls.from_json(earlier) for role, earlier in content["before"].items()}
        return cls(**{**content, "changes": tuple(content["changes"]), "before": before})

    def write(self, folder: Path) -> None:
        """Leave it in the folder of the run."""
        (folder / ORIGIN_FILE).write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")

    @property
    def commands(self) -> tuple[str, ...]:
        """What a shell takes to repeat this run and all before it, the first first; paths are left to be filled in, and
        ``WEIGHTS`` are those of the command before where there is one."""
        changes = "".join(f" --set {change}" for change in self.changes)
        roles = "".join(f" --place {role}=WEIGHTS" for role in ("start", "teacher") if self.entries[role])
        own = (
            f"python -m stvit.training {self.entries['task']} --recipe {self.recipe}{changes} "
            f"--precision {self.precision} --place backgrounds=PHOTOGRAPHS{roles} --output FOLDER"
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


def read(folder: Path) -> Origin:
    """The origin of a run.

    Raises:
        OSError, ValueError: it cannot be read.
    """
    content = json.loads((folder / ORIGIN_FILE).read_text(encoding="utf-8"))
    try:
        return Origin.from_json(content)
    except (KeyError, TypeError) as error:
        raise ValueError(f"{ORIGIN_FILE} is not of this program: {error}") from error


def _is_of_a_run(weights: Path | None) -> bool:
    return weights is not None and weights.name == WEIGHTS_FILE and (weights.parent / ORIGIN_FILE).is_file()
