"""``python -m weights convert SRC DST | list | pull NAME | verify``"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save_file

from stvit.checkpoint import CheckpointError, read_checkpoint
from stvit.errors import UserError
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.records import ModelRecord, UnknownModel, catalogue, record
from stvit.pretrained.resolve import resolve, resolve_card, sha256_of

from . import BUNDLED_MODELS


def convert(source: str | PathLike[str], destination: str | PathLike[str]) -> None:
    """Write the model's tensors of a checkpoint, under the names they have in it, as safetensors.

    The metadata name the source file and its sha256. Nothing existing is overwritten.

    Raises:
        CheckpointError: the source cannot be read safely, or the destination exists or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if destination.exists():
        raise CheckpointError(f"{destination} exists already. Give another name, or delete it first.")
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in read_checkpoint(source).items()
    }
    metadata = {"format": "pt", "source": source.name, "source_sha256": sha256_of(source)}
    partial = destination.with_name(destination.name + ".partial")
    try:
        save_file(state, partial, metadata)
        partial.rename(destination)
    except Exception as error:
        raise CheckpointError(
            f"{destination} cannot be written ({error}). Check the folder and its free space."
        ) from error
    finally:  # also where the command is stopped
        partial.unlink(missing_ok=True)


def list_weights() -> None:
    """Print one line for each file of weights: name, where it is now, licence, source."""
    for found in catalogue().values():
        try:
            state = resolve(found, offline=True).origin
        except WeightsUnavailable as error:
            state = error.reason if error.reason != "offline" else "not downloaded"
        print(f"{found.name:41} {state:15} {found.license:45} {found.repo}/{found.filename}")
    for card in BUNDLED_MODELS.values():
        try:
            state = resolve_card(card).origin
        except WeightsUnavailable as error:
            state = error.reason
        metrics = ", ".join(f"{name} {value:.1f}" for name, value in card.metrics.items())
        print(f"{card.name:41} {state:15} {card.licence:45} trained by this project; {card.split}: {metrics}")


def pull(found: ModelRecord) -> None:
    """Download one file of weights, unless it is in the cache, and verify it."""

    def show(done_bytes: int, total_bytes: int | None) -> None:
        total = f" of {total_bytes / 1e6:.0f}" if total_bytes else ""
        print(f"\r{done_bytes / 1e6:.0f}{total} MB", end="", file=sys.stderr, flush=True)

    weights = resolve(found, progress=show)
    known_by = "as recorded" if found.sha256 else "none is recorded: the one of its first download counts"
    print(f"\n{weights.path}\nfrom: {weights.origin}\nsha256: {weights.sha256} ({known_by})")


def verify() -> bool:
    """Compare all downloaded and bundled weights with what is known of them; return whether all are as they were."""
    problems = 0
    for found in catalogue().values():
        try:
            weights = resolve(found, offline=True)
            print(f"{found.name}: good ({weights.origin}, sha256 {weights.sha256})")
        except WeightsUnavailable as error:
            absent = error.reason == "offline"
            problems += not absent
            print(f"{found.name}: {'not downloaded' if absent else error}")
    for card in BUNDLED_MODELS.values():
        try:
            print(f"{card.name}: good (bundled, sha256 {resolve_card(card).sha256})")
        except WeightsUnavailable as error:
            problems += 1
            print(f"{card.name}: {error}")
    return problems == 0


def registered(name: str) -> ModelRecord:
    """The record of a registered model, with or without its tag.

    Raises:
        argparse.ArgumentTypeError: no such model is registered.
    """
    try:
        return record(name)
    except UnknownModel as error:
        raise argparse.ArgumentTypeError(f"{error} The project compares {', '.join(catalogue())}.") from error


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m weights", description="Weights of the models.")
    commands = parser.add_subparsers(dest="command", required=True)
    converting = commands.add_parser("convert", help="write a .pth checkpoint as safetensors")
    converting.add_argument("source", type=Path, metavar="SRC", help="the released checkpoint, .pth")
    converting.add_argument("destination", type=Path, metavar="DST", help="the new file, .safetensors")
    commands.add_parser("list", help="which weights there are, and which have been downloaded")
    commands.add_parser("pull", help="download weights").add_argument(
        "name", type=registered, metavar="NAME", help="a name of the list, with or without its .tag"
    )
    commands.add_parser("verify", help="compare downloaded and bundled weights with what they have to be")
    options = parser.parse_args(arguments)
    try:
        if options.command == "convert":
            convert(options.source, options.destination)
        elif options.command == "pull":
            pull(options.name)
        elif options.command == "list":
            list_weights()
        else:
            return 0 if verify() else 1
    except UserError as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
