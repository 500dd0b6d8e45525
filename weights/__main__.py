"""``python -m weights convert SRC DST | list | pull NAME | verify``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from stvit.pretrained.resolve import resolve

from . import BUNDLED_MODELS, CATALOGUE, WeightsUnavailable, resolve_bundled


def list_records() -> None:
    """One line for each record: name, where it is now, licence, source."""
    for record in CATALOGUE.values():
        try:
            state = resolve(record, offline=True).origin
        except WeightsUnavailable as error:
            state = error.reason if error.reason != "offline" else "not downloaded"
        print(f"{record.name:32} {state:15} {record.licence:45} {record.repo}/{record.filename}")
    for record in BUNDLED_MODELS.values():
        try:
            state = resolve_bundled(record).origin
        except WeightsUnavailable as error:
            state = error.reason
        metrics = ", ".join(f"{name} {value:.1f}" for name, value in record.metrics.items())
        print(f"{record.name:32} {state:15} {record.licence:45} trained by this project; {record.split}: {metrics}")


def pull(name: str) -> None:
    """Download one checkpoint, unless it is in the cache, and verify it."""

    def show(done_bytes: int, total_bytes: int | None) -> None:
        total = f" of {total_bytes / 1e6:.0f}" if total_bytes else ""
        print(f"\r{done_bytes / 1e6:.0f}{total} MB", end="", file=sys.stderr, flush=True)

    weights = resolve(CATALOGUE[name], progress=show)
    print(f"\n{weights.path}\nfrom: {weights.origin}\nsha256: {weights.sha256}")


def verify() -> bool:
    """Compare every downloaded checkpoint and every bundled model with its record; say whether all are as they were."""
    problems = 0
    for record in CATALOGUE.values():
        try:
            weights = resolve(record, offline=True)
            print(f"{record.name}: good ({weights.origin}, sha256 {weights.sha256})")
        except WeightsUnavailable as error:
            absent = error.reason == "offline"
            problems += not absent
            print(f"{record.name}: {'not downloaded' if absent else error}")
    for record in BUNDLED_MODELS.values():
        try:
            print(f"{record.name}: good (bundled, sha256 {resolve_bundled(record).sha256})")
        except WeightsUnavailable as error:
            problems += 1
            print(f"{record.name}: {error}")
    return problems == 0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m weights", description="Checkpoints of the models.")
    commands = parser.add_subparsers(dest="command", required=True)
    converting = commands.add_parser("convert", help="write a .pth checkpoint as safetensors")
    converting.add_argument("source", type=Path)
    converting.add_argument("destination", type=Path)
    commands.add_parser("list", help="what there is, and what has been downloaded")
    commands.add_parser("pull", help="download a checkpoint").add_argument("name", choices=CATALOGUE)
    commands.add_parser("verify", help="compare what has been downloaded or came along with what it has to be")
    options = parser.parse_args(arguments)
    try:
        if options.command == "convert":
            from .convert import convert  # imports torch: seconds that the other commands save

            convert(options.source, options.destination)
        elif options.command == "pull":
            pull(options.name)
        elif options.command == "list":
            list_records()
        else:
            return 0 if verify() else 1
    except RuntimeError as error:  # WeightsUnavailable, BundleError, CheckpointError: all written for the user
        print(f"\n{error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
