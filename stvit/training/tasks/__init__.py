"""The tasks: what each learns from its data."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from stvit.training.recipe import DataPaths, Recipe

if TYPE_CHECKING:
    from .task import Task

TASKS = {"classify": "ClassifyTask", "detect": "DetectTask", "segment": "SegmentTask", "video": "VideoTask"}
TASKS |= {"sparsify": "SparsifyTask"}


def make_task(recipe: Recipe, paths: Mapping[str, Path]) -> Task:
    """The task of a recipe with its data at these paths; imports what that task alone needs.

    Raises:
        RecipeError: options or data that the task cannot use.
    """
    module = import_module(f".{recipe.task}", __package__)
    return getattr(module, TASKS[recipe.task])(recipe, DataPaths(paths))
