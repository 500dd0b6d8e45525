"""``python -m stvit.measure.gpu`` (``make gpu``): what this project does on a CUDA card, in eight minutes at most.

As JSON: every family under every engine beside eager on the CPU, in fp32 and in the card's half precision; the paper's
suite at batch 1 and 128, each model beside its full-token counterpart under the same engine; dense backbones at
800x1333; a clip from file to file; peak memory of eager. The most important comes first; what no time is left for is
skipped and named.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stvit.errors import UserError, needs_extra
from stvit.export.graph import first_line
from stvit.predict.device import best_precision, device_name
from stvit.shell import unwritable

from .compare import versions
from .processes import OutOfTime

with needs_extra("video"):
    from .gpu_steps import NO_TIME, Plan, Step, steps

MINUTES = 8.0
LAST_S = 15.0  # a step that has less time left is not begun
NO_CARD = "There is no CUDA device here, and this measures one: run it on a machine with an NVIDIA card."


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.measure.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, default=Path("gpu.json"), help="the file (default: gpu.json)")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="at most (default: %(default)g)")
    options = parser.parse_args(arguments)
    if not 0 < options.minutes < float("inf"):
        parser.error("--minutes takes a number above 0")
    if problem := unwritable(options.output):
        parser.error(f"--output {problem}")
    if not torch.cuda.is_available():
        print(NO_CARD, file=sys.stderr)
        return 2
    until = time.monotonic() + 60 * options.minutes
    device = torch.device("cuda")
    try:
        figures = {"hardware": hardware(device), "versions": cuda_versions()}
        planned = steps(Plan(device, best_precision(device)))
    except RuntimeError as error:  # of the driver
        print(f"The CUDA device cannot be used: {first_line(error)}", file=sys.stderr)
        return 1
    try:
        figures = carry_out(planned, until, partial(save, options.output), figures)
    except KeyboardInterrupt:
        print(f"\nStopped; the figures of the steps before are in {options.output}.", file=sys.stderr)
        return 130
    print(summary(figures), f"The figures are in {options.output}.", sep="\n")
    return 0


def hardware(device: torch.device) -> dict[str, Any]:
    """The card and the processor beside it, by name."""
    card = torch.cuda.get_device_properties(device)
    return {
        "gpu": card.name,
        "gpu_memory_bytes": card.total_memory,
        "compute_capability": f"{card.major}.{card.minor}",
        "cpu": device_name(torch.device("cpu")),
        "cpu_cores": os.cpu_count(),
    }


def cuda_versions() -> dict[str, str]:
    return versions() | {"cuda": str(torch.version.cuda), "cudnn": str(torch.backends.cudnn.version())}


def carry_out(
    planned: Iterable[Step], until: float, keep: Callable[[dict[str, Any]], None], figures: dict[str, Any]
) -> dict[str, Any]:
    """Take step after step while there is time, and keep what there is after each.

    Args:
        until: when to stop, by ``time.monotonic()``.
        keep: takes all figures so far.
        figures: those known before.

    Returns:
        ``figures`` with ``steps`` by name, ``seconds`` of each, ``skipped`` with what there was no time for, and
        ``failed`` with a sentence for each step that could not be taken.
    """
    figures = figures | {"steps": {}, "seconds": {}, "skipped": [], "failed": {}}
    keep(figures)  # a file that cannot be written is known before the first step
    for step in planned:
        begun = time.monotonic()
        if until - begun < min(LAST_S, step.seconds):
            figures["skipped"].append(f"{step.name}: {NO_TIME}")
            keep(figures)
            continue
        skipped: list[str] = []
        print(f"{step.name} ...", file=sys.stderr, flush=True)
        try:
            figures["steps"][step.name] = step.work(min(until, begun + step.seconds), skipped)
        except OutOfTime:
            skipped.append(NO_TIME)
        except Exception as error:  # whatever it is, the other steps are worth their time
            problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {first_line(error)}"
            figures["failed"][step.name] = problem
        figures["skipped"] += [f"{step.name}: {what}" for what in skipped]
        figures["seconds"][step.name] = round(time.monotonic() - begun, 1)
        keep(figures)
    return figures


def save(output: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures aside and put them in place: a run that is ended leaves those of the steps before."""
    output.parent.mkdir(parents=True, exist_ok=True)
    draft = output.with_name(f".{output.name}.draft")
    draft.write_text(json.dumps(_finite(figures), indent=1) + "\n", encoding="utf-8")
    draft.replace(output)


def _finite(value: Any) -> Any:
    """Plain data with ``None`` for numbers that JSON does not have, such as the difference of an output that is NaN."""
    if isinstance(value, Mapping):
        return {key: _finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def summary(figures: Mapping[str, Any]) -> str:
    """What was found, in a few lines."""
    lines = [figures["hardware"]["gpu"]]
    for name, found in figures["steps"].items():
        if name.startswith("parity"):
            every = [(family, engine, one) for family, by in found.items() for engine, one in by.items()]
            apart = [
                f"{family} under {engine}" for family, engine, one in every if isinstance(one, str) or not one["agrees"]
            ]
            lines.append(f"{name}: {len(every) - len(apart)} of {len(every)} as on the CPU" + _listed("; not ", apart))
        elif "rows" in found:
            lines += [
                f"{name}: {row['model']}, {row['engine']}, batch {row['batch_size']}: {row['over_baseline'][1]:.2f}x "
                f"over {found['baseline']}, multiply-adds allow {row['allowed_by_macs']:.2f}x"
                for row in found["rows"]
                if row["over_baseline"]
            ]
            lines += [f"{name}: {note}" for note in found["notes"]]
        else:
            lines += [
                f"{name}: {label}, {one['end_to_end_fps'][1]:.0f} frames/s" for label, one in found["models"].items()
            ]
    lines += [f"failed: {name}: {why}" for name, why in figures["failed"].items()]
    return "\n".join([*lines, *(f"skipped: {what}" for what in figures["skipped"])])


def _listed(before: str, names: Sequence[str]) -> str:
    return before + ", ".join(names) if names else ""


if __name__ == "__main__":
    sys.exit(main())
