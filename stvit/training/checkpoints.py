"""The state of a run on disk: written whole or not at all, read without running pickled code."""

from __future__ import annotations

import json
import os
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stvit.errors import UserError

from .recipe import build, plain

STATE_FILE = "state.pt"
WEIGHTS_FILE = "model.safetensors"
METRICS_FILE = "metrics.jsonl"
STATE_ENTRIES = {"step", "recipe", "model", "optimizer"}


class ResumeError(UserError):
    """A run cannot be resumed from the state in its folder."""


def save_state(folder: Path, state: dict[str, Any]) -> None:
    """Replace the state of a run; a process killed meanwhile leaves the old one."""
    partial = folder / f"{STATE_FILE}.partial"
    torch.save(state, partial)
    os.replace(partial, folder / STATE_FILE)


def load_state(folder: Path, recipe: dict[str, Any]) -> dict[str, Any] | None:
    """The state to resume from, or ``None`` for a new run.

    Raises:
        ResumeError: the state is of another recipe, or unreadable.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, UnpicklingError) as error:
        raise ResumeError(f"{path} cannot be read ({error}). Remove it to start again.") from error
    if not isinstance(state, dict) or not state.keys() >= STATE_ENTRIES:
        raise ResumeError(f"{path} is not the state of a run. Remove it, or choose another output folder.")
    before = plain(build(state["recipe"]))  # with defaults for entries that are newer than the run
    differing = sorted(key for key in recipe if before[key] != recipe[key])
    if differing:
        raise ResumeError(
            f"{folder} holds a run of another recipe: {', '.join(differing)} differ. Choose another output folder."
        )
    return state


def save_weights(folder: Path, weights: dict[str, Tensor]) -> Path:
    """Write the weights of a model, ready for ``stvit.create_model(..., checkpoint=)``."""
    partial, path = folder / f"{WEIGHTS_FILE}.partial", folder / WEIGHTS_FILE
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}, partial)
    os.replace(partial, path)
    return path


class MetricsLog:
    """One JSON object per line, in the order of the steps; resuming drops the lines after the state."""

    def __init__(self, folder: Path, last_step: int) -> None:
        self.path = folder / METRICS_FILE
        kept = [line for line in read_metrics(folder) if line["step"] <= last_step]
        self.path.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")

    def write(self, **figures: Any) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(figures) + "\n")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """All lines of a run's log; a last line that was cut off is left out."""
    path = folder / METRICS_FILE
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
