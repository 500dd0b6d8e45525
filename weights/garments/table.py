"""``python -m weights.garments.table RUN [RUN ...] --data backgrounds=DIR``: finished runs side by side.

Runs whose recipes differ in the seed alone are one line: mean and range of what they reach on the test split (with
``--split validation``, what their last evaluation found), what they reached on the validation split before any training
and after every epoch, multiply-adds, and, with ``--measure``, the speed of all models on the same inputs, interleaved.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from stvit.errors import UserError
from stvit.measure.compare import compare
from stvit.predict.device import best_precision, keep_freed_memory
from stvit.training.recipe import RecipeError, add_data_option
from stvit.training.runs import FinishedRun, costs, input_shape, test

#: the metric of each task that decides
MAIN_METRIC = {"classify": "top1", "sparsify": "top1", "video": "top1", "detect": "box_AP50", "segment": "mIoU"}
REPORTED = ("top1", "box_AP", "box_AP50", "mask_AP", "mIoU")


@dataclass(frozen=True)
class Row:
    """Runs of one recipe.

    Attributes:
        name: of the recipe, with the changes but for the seed.
        runs: one for each seed.
    """

    name: str
    runs: tuple[FinishedRun, ...]


def rows(runs: Sequence[FinishedRun]) -> list[Row]:
    """Gather runs that differ in the seed alone, in the order of their first."""
    gathered: dict[str, list[FinishedRun]] = {}
    for run in runs:
        changes = [change for change in run.origin.changes if not change.startswith("seed=")]
        gathered.setdefault(" ".join([run.origin.recipe, *changes]), []).append(run)
    return [Row(name, tuple(of_name)) for name, of_name in gathered.items()]


def figures(row: Row, paths: Mapping[str, Path], split: str = "test") -> dict[str, Any]:
    """A line of the table as plain data: metrics in percent, one figure for each seed.

    Args:
        split: ``test``, which takes the data, or ``validation``: what the run's last evaluation found.
    """
    first = row.runs[0]
    last = [test(run, paths) if split == "test" else run.validation()[-1][1] for run in row.runs]
    main = MAIN_METRIC[first.recipe.task]
    histories = [{epoch: metrics[main] for epoch, metrics in run.validation()} for run in row.runs]
    common = set.intersection(*map(set, histories))
    progress = {epoch: rounded([history[epoch] for history in histories]) for epoch in sorted(common)}
    return {
        "model": first.recipe.model,
        "options": first.model_options,
        "seeds": [run.recipe.seed for run in row.runs],
        "epochs": first.recipe.epochs,
        "samples_per_epoch": first.recipe.data.get("train_samples"),
        "macs": costs(first),
        split: {metric: rounded([one[metric] for one in last]) for metric in last[0]},
        "progress": {"split": "validation", "metric": main, "after_epochs": progress},
        "commands": first.origin.commands,
    }


def rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 2) for value in values]


def speeds(lines: Sequence[Row], batch_size: int, rounds: int) -> dict[str, Any]:
    """Speed of the models of all lines on the same inputs, interleaved.

    Raises:
        RecipeError: their inputs have several shapes, or they are detectors, whose time depends on what is found.
    """
    shapes = {input_shape(row.runs[0].recipe) for row in lines}
    if len(shapes) > 1 or any(row.runs[0].recipe.task == "detect" for row in lines):
        raise RecipeError("only models of one input shape are measured side by side, and no detectors")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    precision = best_precision(device)
    models = {row.name: row.runs[0].model().to(device, precision) for row in lines}
    comparison = compare(models, input_shape=shapes.pop(), batch_size=batch_size, rounds=rounds)
    return {
        "device": comparison.device,
        "precision": comparison.precision,
        "batch_size": batch_size,
        "rounds": rounds,
        "versions": comparison.versions,
        "images_per_second": {name: round(cost.images_per_second, 1) for name, cost in comparison.costs.items()},
        "speed_up_against_first": {
            name: [round(ratio, 3) for ratio in comparison.speed_up(name, lines[0].name, "throughput").measured]
            for name in models
        },
    }


def report(table: Mapping[str, Any]) -> str:
    """The table as Markdown."""
    lines, split = [], table["split"]
    for name, line in table["lines"].items():
        metrics = [f"{metric} {describe(values)}" for metric, values in line[split].items() if metric in REPORTED]
        cells = [name, ", ".join(metrics), f"{line['macs'] / 1e6:.0f} M"]
        if "speed" in table:
            first, median, third = table["speed"]["speed_up_against_first"][name]
            rate = table["speed"]["images_per_second"][name]
            cells += [f"{rate:.0f}", f"{median:.2f}x ({first:.2f} to {third:.2f})"]
        lines.append("| " + " | ".join(cells) + " |")
    heads = ["recipe", f"{split} split", "multiply-adds"] + ["images/s", "against the first"] * ("speed" in table)
    return "\n".join(["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads), *lines])


def describe(values: Sequence[float]) -> str:
    """Mean, and the range over the seeds if there are several."""
    mean = f"{statistics.mean(values):.1f}"
    return mean if len(values) == 1 else f"{mean} ({min(values):.1f} to {max(values):.1f})"


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    paths = dict(options.data)
    try:
        lines = rows([FinishedRun.read(folder) for folder in options.runs])
        of_lines = {row.name: figures(row, paths, options.split) for row in lines}
        table: dict[str, Any] = {"split": options.split, "lines": of_lines}
        if options.measure:
            table["speed"] = speeds(lines, options.batch_size, options.rounds)
    except UserError as error:
        print(f"weights.garments.table: {error}", file=sys.stderr)
        return 1
    print(report(table))
    if options.output:
        options.output.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m weights.garments.table",
        description="Compare finished runs; the first is what the others are measured against.",
    )
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folders of finished runs")
    add_data_option(parser)
    parser.add_argument("--split", choices=("test", "validation"), default="test")
    parser.add_argument("--measure", action="store_true", help="also measure speed; all inputs must be of one shape")
    parser.add_argument("--batch-size", type=int, default=128, help="for --measure")
    parser.add_argument("--rounds", type=int, default=30, help="for --measure")
    parser.add_argument("--output", type=Path, help="also save everything as JSON in this file")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
