"""Measure how fast a clip is made, beside the model alone.

``python -m stvit.video.measure IN --task clusters --output FILE`` takes the clip, the models and the options of
``python -m stvit.video``; a baseline is measured like the model, not beside it in one picture. In every round each
model first runs alone on frames that are ready, then the whole pipeline runs, so that whatever else the machine does
falls on both. Their quotient is what decoding, drawing and encoding leave of the model's pace.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice, zip_longest
from pathlib import Path
from typing import Any

import torch

from stvit.errors import UserError
from stvit.measure.timing import quartiles
from stvit.predict.device import Compute, compute_in_one_place, device_name, keep_freed_memory
from stvit.shell import positive, unwritable

from .arguments import build_models, parse
from .decode import ClipReader
from .pipeline import process
from .probe import probe
from .tasks import AnnotateTask
from .types import STAGES, ClipInfo, Limits, Model

READY_BATCHES = 4  # of different frames, that the model alone runs on again and again
ALONE_S = 3.0  # at least, in every round


@dataclass
class Rates:
    """What was measured of one model; one value for each round.

    Attributes:
        alone: frames a second of the model on frames that are ready.
        end_to_end: frames a second from file to file.
        first_frame_s: from the start to the first new frame, in steps of the reports'.
        busy_ms: by stage, milliseconds of work for a frame; the stages overlap.
        engine: that ran the model.
    """

    alone: list[float] = field(default_factory=list)
    end_to_end: list[float] = field(default_factory=list)
    first_frame_s: list[float] = field(default_factory=list)
    busy_ms: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    engine: str = ""

    def as_json(self) -> dict[str, Any]:
        """Quartiles over the rounds: first, median, third."""
        shares = [whole / alone for whole, alone in zip(self.end_to_end, self.alone, strict=True)]
        rows = {
            "model_alone_fps": self.alone,
            "end_to_end_fps": self.end_to_end,
            "end_to_end_of_model_alone": shares,
            "first_frame_s": self.first_frame_s,
        }
        return {
            **{name: _rounded(values) for name, values in rows.items()},
            "engine": self.engine,
            "busy_ms_per_frame": {stage: _rounded(values) for stage, values in self.busy_ms.items()},
        }


def measure(info: ClipInfo, models: Sequence[Model], rounds: int, limits: Limits, target: Path) -> list[Rates]:
    """Measure every model alone and on the clip, in turns.

    Args:
        info: of the clip.
        rounds: number of rounds, after one for warming up.
        target: the new clip, overwritten each time.

    Raises:
        VideoError: the file cannot be used.
    """
    ready = [_ready(info, model, limits) for model in models]
    measured = [Rates() for _ in models]
    for counted in range(rounds + 1):
        if counted == 1:
            measured = [Rates() for _ in models]
        for model, frames, rates in zip(models, ready, measured, strict=True):
            rates.engine = model.infer(frames[0])[0].engine
            rates.alone.append(_alone(model, frames))
            _end_to_end(info.path, target, model, limits, rates)
    return measured


def _ready(info: ClipInfo, model: Model, limits: Limits) -> list[list[Any]]:
    """Prepare batches of the clip's first frames for the model."""
    task = AnnotateTask(model)
    reader = ClipReader(info, task.max_side, limits)
    task.begin(info, limits, reader.output_hw)
    prepared = [task.prepare(frame.picture.rgb()) for frame in islice(iter(reader), READY_BATCHES * task.batch_size)]
    return [prepared[i : i + task.batch_size] for i in range(0, len(prepared), task.batch_size)]


def _alone(model: Model, batches: list[list[Any]]) -> float:
    frames, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < ALONE_S:
        for batch in batches:
            model.infer(batch)
            frames += len(batch)
    return frames / elapsed


def _end_to_end(source: Path, target: Path, model: Model, limits: Limits, rates: Rates) -> None:
    first = None
    for progress in process(source, target, AnnotateTask(model), limits=limits):
        if first is None and progress.preview is not None:
            first = progress.elapsed_s
    rates.end_to_end.append(progress.frames_per_second)
    rates.first_frame_s.append(first)
    for stage, of_rounds in rates.busy_ms.items():
        of_rounds.append(1e3 * progress.busy_s.get(stage, 0.0) / progress.frames)


def _rounded(values: Sequence[float]) -> list[float]:
    return [round(value, 3) for value in quartiles(values)]


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.video.measure",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="All other options are those of python -m stvit.video.",
    )
    parser.add_argument("--rounds", type=positive, default=5, help="of measuring (default: 5)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="figures as JSON")
    aims = "frames a second from file to file that each model should reach: the median says whether it does"
    parser.add_argument("--at-least", type=float, nargs="+", metavar="N", help=aims)
    own, others = parser.parse_known_args(arguments)
    if own.output and (problem := unwritable(own.output)):
        parser.error(f"--output {problem}")
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "new.mp4"
        options = parse([*others, str(target)], __doc__, engine="eager")
        if own.at_least and len(own.at_least) != len(options.sides):
            parser.error(f"--at-least takes one number for each model: {len(options.sides)}")
        if options.device == "cpu":
            compute_in_one_place()
        try:
            limits = Limits(max_bytes=options.max_megabytes * 2**20, max_seconds=options.max_seconds)
            models, info = build_models(options), probe(options.source, limits)
            measured = measure(info, models, own.rounds, limits, target)
        except UserError as error:
            print(error, file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("\nStopped.", file=sys.stderr)
            return 130
    device = torch.device(options.device)
    figures = {
        "clip": {"size_hw": list(info.source_hw), "fps": info.fps, "codec": info.codec},
        "task": options.task,
        "device": device_name(device, Compute(device).lanes),
        "rounds": own.rounds,
        "models": {model.label: rates.as_json() for model, rates in zip(models, measured, strict=True)},
    }
    for (label, rates), aim in zip_longest(figures["models"].items(), own.at_least or ()):
        alone, whole, share = (rates[name][1] for name in list(rates)[:3])
        pace = f"{whole:.1f} frames/s from file to file, {alone:.1f} of the model alone, {share:.2f} of it"
        if aim is not None:
            rates["aim_fps"] = aim
            pace += f"; the aim of {aim:g} frames/s is {'met' if whole >= aim else 'missed'}"
        print(f"{label}, {rates['engine']}: {pace}")
    if own.output:
        own.output.parent.mkdir(parents=True, exist_ok=True)
        own.output.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
