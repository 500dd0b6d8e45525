"""Average precision of a detector on COCO, or on a set of your own in COCO's format.

``python -m stvit.evaluate coco --images val2017 --annotations instances_val2017.json --model MODEL --checkpoint FILE``
``python -m stvit.evaluate coco --images FOLDER --annotations FILE.json --record CARD.json``

A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from timm.models import is_model

from stvit.checkpoint import CheckpointError
from stvit.errors import UserError, needs_extra
from stvit.factory import create_model
from stvit.predict.device import keep_freed_memory
from stvit.predict.load import PRECISIONS, Source, test_scale
from stvit.pretrained.model_cards import ModelCard, load_card
from stvit.pretrained.records import record
from stvit.pretrained.resolve import sha256_of

with needs_extra("train"):
    from . import coco
    from .coco_annotations import category_ids, find_images, first_of, read_annotations
from .errors import EvaluationError
from .results import ResultsFile


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        evaluate(options)
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. The same command continues with {options.results}.", file=sys.stderr)
        return 130
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    one = benchmarks.add_parser("coco", help="box and mask AP")
    one.add_argument("--images", type=Path, required=True, metavar="DIR", help="folder of the images")
    one.add_argument("--annotations", type=Path, required=True, metavar="FILE", help="instances_*.json")
    which = one.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", metavar="NAME", help="name of a registered detector")
    which.add_argument("--record", type=Path, metavar="FILE", help="a trained detector by its card, a .json")
    one.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of --model (default: the published ones)")
    one.add_argument(
        "--num-classes", type=positive, metavar="N", help="classes of the checkpoint (default: the model's)"
    )
    scale_help = "bounds of the input's sides (default: as it was tested or trained)"
    one.add_argument("--scale", type=positive, nargs=2, metavar=("LONG", "SHORT"), help=scale_help)
    one.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    one.add_argument("--precision", default="float32", choices=PRECISIONS)
    one.add_argument("--results", "--resume", type=Path, metavar="FILE", help="results by image (MODEL.coco.jsonl)")
    one.add_argument("--output", type=Path, metavar="FILE", help="metrics (the results' name with .metrics.json)")
    one.add_argument("--limit", type=positive, metavar="N", help="the first N images alone")
    one.add_argument("--skip-invalid", action="store_true", help="leave out objects that cannot be used")
    one.add_argument("--mask-area-from-box", action="store_true", help="sort masks by their box's size, as published")
    options = parser.parse_args(arguments)
    if options.model and not is_model(options.model):
        parser.error(f"unknown model: {options.model}")
    if options.record and (options.checkpoint or options.num_classes):
        parser.error("--record names weights and classes: give it without --checkpoint and --num-classes")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available")
    options.results = options.results or Path(f"{options.model or options.record.stem}.coco.jsonl")
    options.output = options.output or options.results.with_suffix(".metrics.json")
    return options


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def evaluate(options: argparse.Namespace) -> None:
    """Detect, measure, print and save.

    Raises:
        UserError: it cannot go on, and why.
    """
    annotations = read_annotations(options.annotations, skip_invalid=options.skip_invalid)
    if annotations.skipped:
        skipped = annotations.skipped
        print(f"{len(skipped)} objects are left out: {first_of(skipped)}.", file=sys.stderr)
    images = annotations.images[: options.limit]
    paths = find_images(options.images, images)
    detector, card = build(options)
    categories = category_ids(detector.num_classes, annotations.categories, card and card.classes)
    scale = options.scale or list(test_scale(Source(card.model if card else options.model, card=card)))
    origin = {
        "model": card.name if card else options.model,
        "checkpoint": card.sha256 if card else options.checkpoint and sha256_of(options.checkpoint),
        "scale": scale,
        "precision": options.precision,
        "annotations": annotations.sha256,
        "categories": categories,
    }
    with ResultsFile(options.results, origin) as results:
        progress = Progress(sum(image.id in results.finished for image in images), len(images))
        pairs = zip(images, paths, strict=True)
        coco.detect(detector, pairs, categories, results, scale=tuple(scale), progress=progress)
        by_box = options.mask_area_from_box
        metrics = coco.average_precision(annotations, images, results.finished, mask_area_from_box=by_box)
    report = {
        **origin,
        "images": len(images),
        "skipped_objects": len(annotations.skipped),
        "mask_area_from_box": by_box,
        **metrics,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"\n{table(metrics)}\n\nSaved in {options.output}.")


def build(options: argparse.Namespace) -> tuple[Any, ModelCard | None]:
    """The detector, on its device and in its precision, and its card if it is named by one.

    Raises:
        EvaluationError: it is no detector, or there are no published weights.
        ModelCardError, WeightsUnavailable: the card is wrong, or its weights are not those that it describes.
        CheckpointError: the checkpoint is no safe file, or does not fit.
    """
    if options.record:
        model, card = load_card(options.record)
    else:
        model, card = _published(options), None
    name = card.model if card else options.model
    if record(name).test_scale is None or not hasattr(model, "predict"):
        raise EvaluationError(f"{name} is no detector.", "Choose a model whose name ends in _cascade_mask_rcnn.")
    return model.to(options.device, PRECISIONS[options.precision]), card


def _published(options: argparse.Namespace) -> Any:
    """The model with the weights of a file, else with the published ones."""
    size = {} if options.num_classes is None else {"num_classes": options.num_classes}
    try:
        return create_model(options.model, options.checkpoint, pretrained=options.checkpoint is None, **size)
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, OSError) as error:  # WeightsUnavailable, and what timm raises
        raise EvaluationError(
            f"The published weights of {options.model} cannot be loaded ({error}).", "Name a file with --checkpoint."
        ) from error


class Progress:
    """Counts finished images on standard error, with the time that the rest will take."""

    def __init__(self, already: int, total: int) -> None:
        self.already, self.total, self.done, self.start = already, total, 0, time.monotonic()
        if already:
            print(f"{already} of {total} images are finished already.", file=sys.stderr)

    def __call__(self) -> None:
        self.done += 1
        seconds_each = (time.monotonic() - self.start) / self.done
        finished = self.already + self.done
        left = round(seconds_each * (self.total - finished))
        text = f"{finished}/{self.total} images, {1 / seconds_each:.2f} a second, {duration(left)} left"
        print(f"\r{text:60}", end="", file=sys.stderr, flush=True)


def duration(seconds: int) -> str:
    """Hours, minutes and seconds, e.g. ``1:02:03``."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"


def table(metrics: dict[str, dict[str, float | None] | None]) -> str:
    """The metrics in percent, as text."""
    lines = [f"{'':5}" + "".join(f"{name:>7}" for name in coco.METRICS)]
    for kind, values in metrics.items():
        if values is None:
            lines.append(f"{kind:5}  the ground truth has no masks")
        else:
            cells = ("    n/a" if value is None else f"{100 * value:7.2f}" for value in values.values())
            lines.append(f"{kind:5}" + "".join(cells))
    return "\n".join(lines)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
