"""The solved example that the page opens on: what two bundled models say about a picture, stored with the project.

``python -m demo.page.solved`` makes it again: after new weights, or another choice of the picture.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from dataclasses import dataclass, fields
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import torch

from demo.answers import ClassifyAnswer
from demo.benchmark import BenchmarkState
from demo.model_specs import build_registry
from demo.page.examples import GARMENTS
from demo.predictors import ClassifyRun, Predictors
from demo.registry import ModelSpec, Registry
from demo.runtime import Runtime
from demo.space.lent_models import on_zero_gpu
from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import TokenRegions
from stvit.predict.results import Prediction

STORED = Path(__file__).resolve().parents[2] / "assets" / "solved.json"
EXAMPLE = "t-shirt.jpg"
ARRAYS = {"assignment": "<i2", "attention": "<f2"}  # of a layer's regions, as they are stored
PATIENCE_S = 20.0


@dataclass(frozen=True)
class Solved:
    """An example and its answers.

    Attributes:
        path: of the picture.
        specs: the models that were asked.
        run: what they said.
    """

    path: Path
    specs: tuple[ModelSpec, ModelSpec]
    run: ClassifyRun


def example(registry: Registry, path: Path = STORED) -> Solved | None:
    """Read the solved example; ``None`` where the registry's models are not those that were asked, by the hashes of
    their weights."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    names = {spec.name: spec for spec in registry}
    specs = tuple(names.get(entry["answer"]["model"]) for entry in stored["answers"])
    hashes = [entry["sha256"] for entry in stored["answers"]]
    if [spec and spec.bundled and spec.bundled.sha256 for spec in specs] != hashes:
        return None
    picture_file = GARMENTS / stored["example"]
    pictures = [Predictors.open_picture(picture_file, spec) for spec in specs]
    answers = [
        _answer(entry["answer"], picture.prepared.geometry)
        for entry, picture in zip(stored["answers"], pictures, strict=True)
    ]
    return Solved(picture_file, specs, ClassifyRun(pictures[0], *answers, pictures[1]))


class FirstComparison:
    """A short comparison of the solved example's models, made once, in the background."""

    def __init__(self, runtime: Runtime, solved: Solved) -> None:
        self._states: list[BenchmarkState] = []
        self._measuring = Thread(target=self._measure, args=(runtime, solved), name="first-comparison", daemon=True)
        if not on_zero_gpu():  # which lends its GPU to requests alone
            self._measuring.start()

    def state(self, patience_s: float = PATIENCE_S) -> BenchmarkState | None:
        """Wait for its result; ``None`` where there is none."""
        if self._measuring.ident is not None:
            self._measuring.join(patience_s)
        return self._states[-1] if self._states and self._states[-1].done else None

    def _measure(self, runtime: Runtime, solved: Solved) -> None:
        for state in runtime.benchmark_classifiers(str(solved.path), *solved.specs, None):
            self._states[:] = [state]


def store(path: Path = STORED) -> None:
    """Ask the first bundled pair about ``EXAMPLE``, in full precision on the CPU, and write down what it says."""
    registry = build_registry()
    specs = registry.pair(registry.first_bundled("classify"))
    run = Predictors(torch.device("cpu"), torch.float32).classify_file(GARMENTS / EXAMPLE, *specs)
    answers = [
        {"sha256": spec.bundled.sha256, "answer": _plain(answer)}
        for spec, answer in zip(specs, (run.model, run.baseline), strict=True)
    ]
    path.write_text(json.dumps({"example": EXAMPLE, "answers": answers}, indent=1) + "\n", encoding="utf-8")


def _plain(answer: ClassifyAnswer) -> dict[str, Any]:
    values = {field.name: getattr(answer, field.name) for field in fields(answer) if field.name != "geometry"}
    predictions = [[entry.index, entry.label, round(entry.probability, 6)] for entry in answer.predictions]
    return {**values, "predictions": predictions, "regions": [_plain_regions(layer) for layer in answer.regions]}


def _plain_regions(layer: TokenRegions) -> dict[str, Any]:
    values = dict(vars(layer))
    for name, kind in ARRAYS.items():
        if values[name] is not None:
            values[name] = b64encode(values[name].astype(kind).tobytes()).decode("ascii")
    return {**values, "image_grid_hw": layer.image_grid_hw}


def _answer(plain: dict[str, Any], geometry: InputGeometry) -> ClassifyAnswer:
    predictions = tuple(Prediction(*entry) for entry in plain["predictions"])
    regions = tuple(map(_regions, plain["regions"]))
    return ClassifyAnswer(**{**plain, "predictions": predictions, "regions": regions, "geometry": geometry})


def _regions(plain: dict[str, Any]) -> TokenRegions:
    values, grid_hw = dict(plain), plain["image_grid_hw"]
    del values["image_grid_hw"]
    for name, kind in ARRAYS.items():
        if values[name] is not None:
            array = np.frombuffer(b64decode(values[name]), kind).reshape(-1, *grid_hw)
            values[name] = array[0].astype(np.int16) if name == "assignment" else array.astype(np.float32)
    grid = values["semantic_grid_hw"]
    return TokenRegions(**{**values, "semantic_grid_hw": grid and tuple(grid)})


if __name__ == "__main__":
    store()
