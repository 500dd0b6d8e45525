"""Measure the accuracy of a model on a public benchmark, or on a set of your own laid out like one.

``python -m stvit.evaluate classify --images imagenet/val --model stvit_r_swin_small_224``
``python -m stvit.evaluate classify --images imagenet/val --suite paper``
``python -m stvit.evaluate coco --images val2017 --annotations instances_val2017.json --model MODEL --checkpoint FILE``
``python -m stvit.evaluate segment --images images/validation --annotations annotations/validation --record CARD.json``
``python -m stvit.evaluate video --list val.txt --clips FOLDER --model video_swin_tiny --views 4x3``

A run that was stopped goes on where it was when the same command is given again.
"""

from __future__ import annotations

import argparse
import sys
from copy import copy
from pathlib import Path

from stvit.errors import UserError, needs_extra
from stvit.predict.device import compute_in_one_place, keep_freed_memory
from stvit.pretrained.records import catalogue

with needs_extra("train"):
    from . import classify, coco, segment, video
    from .coco_annotations import read_annotations
from .data import first_of
from .run import add_common_arguments, check_common_arguments, load_model, run

BENCHMARKS = {
    "classify": (classify.add_arguments, "top-1 and top-5 on ImageNet"),
    "coco": (coco.add_arguments, "box and mask AP on COCO"),
    "segment": (segment.add_arguments, "mIoU on ADE20K"),
    "video": (video.add_arguments, "top-1 and top-5 on Kinetics"),
}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    if options.device == "cpu":
        compute_in_one_place()
    try:
        every = [evaluate(one) for one in suite(options)]
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped. The same command continues from its results.", file=sys.stderr)
        return 130
    return 0 if all(every) else 1


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    benchmarks = parser.add_subparsers(dest="benchmark", required=True)
    for name, (add_arguments, description) in BENCHMARKS.items():
        one = benchmarks.add_parser(name, help=description, description=description)
        add_arguments(one)
        add_common_arguments(one)
    options = parser.parse_args(arguments)
    check_common_arguments(parser, options)
    if bool(options.model or options.record) == bool(getattr(options, "suite", None)):
        parser.error("name one of --model, --record" + (" and --suite" if options.benchmark == "classify" else ""))
    if getattr(options, "suite", None) and (options.checkpoint or options.results or options.output):
        parser.error("--suite names models, weights and files: give it without --checkpoint, --results and --output")
    return options


def suite(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The options of every run: one, or one for each classifier of the catalogue."""
    if not getattr(options, "suite", None):
        return [options]
    runs = []
    for name in (name for name, found in catalogue().items() if found.test_scale is None):
        one = copy(options)
        one.model, one.results = name, Path(f"{name}.classify.jsonl")
        one.output = one.results.with_suffix(".metrics.json")
        runs.append(one)
    return runs


def evaluate(options: argparse.Namespace) -> bool:
    """Run, measure, print and save; whether nothing was unusable.

    Raises:
        UserError: it cannot go on, and why.
    """
    if options.benchmark == "coco":
        annotations = read_annotations(options.annotations, skip_invalid=options.skip_invalid)
        if skipped := annotations.skipped:
            print(f"{len(skipped)} objects are left out: {first_of(skipped)}.", file=sys.stderr)
        model = load_model(options, "detect")
        benchmark = coco.CocoBenchmark(model, options, annotations)
    else:
        model = load_model(options, options.benchmark)
        kinds = {
            "classify": classify.ClassifyBenchmark,
            "segment": segment.SegmentBenchmark,
            "video": video.VideoBenchmark,
        }
        benchmark = kinds[options.benchmark](model, options)
    return run(benchmark, options, model.published)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
