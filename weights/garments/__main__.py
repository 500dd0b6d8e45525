"""Look at the composed data, or write it as plain files.

``python -m weights.garments preview --backgrounds DIR --out DIR`` writes contact sheets;
``python -m weights.garments export scenes --backgrounds DIR --out DIR`` a COCO-format folder;
``python -m weights.garments export classification --backgrounds DIR --out DIR`` an image folder;
``python -m weights.garments examples --backgrounds DIR --licences FILE --out DIR`` a few samples of the test split,
on photographs that may be handed on.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path

import torch

from stvit.errors import UserError

from .datasets import GarmentClassification, GarmentClips, GarmentScenes
from .export import classification_sheet, clip_sheet, export_classification, export_scenes, scene_sheet
from .sources import DEBIAN_FOLDER, SPLITS, SourceError, Sources

KINDS = {
    "classification": (GarmentClassification, export_classification),
    "scenes": (GarmentScenes, export_scenes),
}
COUNTS = {"train": 10_000, "validation": 1000, "test": 1000}


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(1)  # the operations are too small to gain by more, and lose where other work runs beside them
    try:
        {"preview": preview, "export": export, "examples": examples}[options.command](options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--backgrounds", type=Path, required=True, help="folder of photographs")
    common.add_argument("--items", type=Path, default=Path(DEBIAN_FOLDER), help="folder of Fashion-MNIST's files")
    common.add_argument("--out", type=Path, required=True, help="folder to write to")
    common.add_argument("--seed", type=whole, default=0)
    parser = argparse.ArgumentParser(prog="python -m weights.garments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    show = commands.add_parser("preview", parents=[common], help="write contact sheets")
    show.add_argument("--split", choices=SPLITS, default="train")
    write = commands.add_parser("export", parents=[common], help="write an image folder or a COCO-format folder")
    write.add_argument("kind", choices=KINDS)
    write.add_argument("--size", type=whole, help="height and width in pixels (default: 112, scenes 256)")
    for split in SPLITS:
        write.add_argument(f"--{split}", type=whole, default=COUNTS[split], help=f"samples (default: {COUNTS[split]})")
    few = commands.add_parser("examples", parents=[common], help="write a few samples of the test split to hand on")
    few.add_argument("--licences", type=Path, required=True, help="JSON: licence, author, source by photograph")
    few.add_argument("--first-scene", type=whole, help="sample to begin the scenes with")
    few.add_argument("--picture", type=whole, help="sample to show of its class, in place of the first")
    few.add_argument("--long-clip", type=whole, help="sample to begin the clips with, as a long one")
    return parser.parse_args(arguments)


def whole(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def preview(options: argparse.Namespace) -> None:
    """Write three contact sheets."""
    sources = Sources.load(options.backgrounds, options.split, options.items)
    options.out.mkdir(parents=True, exist_ok=True)
    sheets = {
        "classification": classification_sheet(GarmentClassification(sources, seed=options.seed)),
        "scenes": scene_sheet(GarmentScenes(sources, seed=options.seed)),
        "clips": clip_sheet(GarmentClips(sources, seed=options.seed)),
    }
    for name, sheet in sheets.items():
        path = options.out / f"{name}-{options.split}.png"
        sheet.save(path)
        print(path)


def export(options: argparse.Namespace) -> None:
    """Write every split of which samples are asked for.

    Raises:
        SourceError: the folder is not empty.
    """
    if options.out.is_dir() and any(options.out.iterdir()):
        raise SourceError(f"{options.out} is not empty. Name a new folder.")
    dataset, write = KINDS[options.kind]
    size = {} if options.size is None else {"size": options.size}
    for split in SPLITS:
        if length := getattr(options, split):
            sources = Sources.load(options.backgrounds, split, options.items)
            samples = dataset(sources, seed=options.seed, length=length, **size)
            write(samples, options.out, partial(show_progress, split))
    print(file=sys.stderr)


def examples(options: argparse.Namespace) -> None:
    """Write examples of the test split.

    Raises:
        SourceError: too few photographs that may be handed on.
    """
    from .examples import read_licences, write_examples  # imports what video needs: seconds that the others save

    sources = Sources.load(options.backgrounds, "test", options.items)
    photographs, chosen = read_licences(options.licences), (options.first_scene, options.long_clip, options.picture)
    write_examples(sources, photographs, options.out, options.seed, *chosen)


def show_progress(split: str, done: int, total: int) -> None:
    if done == total or done % 100 == 0:
        print(f"\r{split} {done}/{total} ", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
