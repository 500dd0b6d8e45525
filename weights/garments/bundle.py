"""``python -m weights.garments.bundle RUN NAME --data backgrounds=DIR``: bundle a finished run on garments.

Writes ``NAME.safetensors``, the weights in half precision, and ``NAME.json``, the model card with the metrics of the
rounded weights on the test split.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from stvit.errors import UserError
from stvit.predict.device import keep_freed_memory
from stvit.pretrained.model_cards import BundledCard, write_card
from stvit.training.recipe import RecipeError, add_data_option
from stvit.training.runs import FinishedRun, costs, test

FOLDER = Path(__file__).parents[1] / "bundled"
LICENCE = "MIT"
DATA = "Fashion-MNIST garments, tinted and composed with photographs (weights.garments), training split"
LABELLED = {"video": "clips of one garment that moves", "classify": "one garment in a picture"}


def bundle(run: FinishedRun, name: str, folder: Path, paths: Mapping[str, Path]) -> BundledCard:
    """Write weights and model card; returns the card.

    Raises:
        RecipeError: the run is not on garments.
        ModelCardError: it has no card.
    """
    recipe = run.recipe
    if not recipe.data["kind"].startswith(f"{__package__}."):
        raise RecipeError(f"{run.folder} was trained on {recipe.data['kind']}; only models of garments are bundled")
    entries = describe(run, name)
    folder.mkdir(parents=True, exist_ok=True)
    weights = folder / f"{name}.safetensors"
    partial = weights.with_suffix(".partial")
    halved = {key: t.half() if t.is_floating_point() else t for key, t in load_file(run.weights).items()}
    save_file(halved, partial)
    try:
        metrics = test(run, paths, weights=partial)
        os.replace(partial, weights)
    finally:
        partial.unlink(missing_ok=True)
    measured = {key.lower(): round(value, 2) for key, value in metrics.items()}
    split = ["test", recipe.data.get("test_samples", 10000)]
    return write_card(weights, entries | {"metrics": measured, "metrics_split": split}, BundledCard)


def describe(run: FinishedRun, name: str) -> dict[str, Any]:
    """The entries of the card that do not depend on the weights."""
    recipe, origin = run.recipe, run.origin
    return {
        "name": name,
        **run.card.model_dump(exclude={"name", "sha256"}, exclude_none=True),
        "macs": costs(run),
        "data": f"{DATA}: {LABELLED.get(recipe.task, 'several garments in a scene')}",
        "seed": recipe.seed,
        "recipe": origin.recipe,
        "command": origin.commands,
        "epochs": recipe.epochs,
        "samples_seen": origin.samples_seen,
        "trained_on": f"{origin.device}, PyTorch {origin.torch}",
        "licence": LICENCE,
    }


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m weights.garments.bundle", description=__doc__)
    parser.add_argument("run", type=Path, help="output folder of a finished run")
    parser.add_argument("name", help="of the model in the catalogue")
    add_data_option(parser)
    parser.add_argument("--output", type=Path, default=FOLDER, help="default: weights/bundled")
    options = parser.parse_args(arguments)
    try:
        card = bundle(FinishedRun.read(options.run), options.name, options.output, dict(options.data))
    except UserError as error:
        print(f"weights.garments.bundle: {error}", file=sys.stderr)
        return 1
    print(json.dumps(card.metrics))
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
