"""A clip in, an annotated clip out: ``python -m stvit.video IN OUT --task classify|clusters|detect|action``

Weights are the published ones, or a file's; without any (``--random-weights``) the model predicts nothing, but the
regions of its tokens, its speed and its cost are shown. With ``--baseline`` both models run side by side, each at its
real pace. A clip model (``action``) also answers for the whole clip: the mean over its windows, or with ``--views`` the
papers' views.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from threading import Event
from typing import Any

import torch
from timm.models import is_model
from torch import nn

from ..allocator import keep_freed_memory
from ..attention import wake_layer_scale
from ..checkpoint import CheckpointError
from ..factory import create_model
from ..kinetics import KINETICS400_CLASSES
from ..measure.timing import best_precision
from .act import ActionClassifier, Sampling
from .classify import Classifier
from .detect import Detector
from .pipeline import STAGES, Progress, process
from .race import Race
from .single import Single
from .types import Limits, Model, VideoError

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MODELS = {
    "classify": "stvit_r_swin_small_224",
    "clusters": "stvit_r_swin_small_224",
    "detect": "stvit_r_swin_small_cascade_mask_rcnn",
    "action": "stvit_video_swin_tiny",
}
VIEWS = {"1x1": (1, 1), "4x3": (4, 3)}


class NoWeights(ValueError):
    """The weights of a model cannot be had; the message is for the user."""


class BadClasses(ValueError):
    """The names do not fit the model; the message is for the user."""


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    stop = Event()
    try:
        limits = Limits(max_bytes=options.max_megabytes * 2**20, max_seconds=options.max_seconds)
        models = build_models(options)
        task = Single(models[0]) if len(models) == 1 else Race(*models)
        for progress in process(
            options.source, options.target, task, records=options.records, limits=limits, cancel=stop
        ):
            report(progress)
        if options.views:
            report_views(models, progress, options.views, limits)
    except (VideoError, NoWeights, BadClasses, CheckpointError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        stop.set()
        print("\nStopped; nothing is left of the new clip.", file=sys.stderr)
        return 130
    print(f"\nSaved {options.target}.", file=sys.stderr)
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.video", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, metavar="IN", help="the clip")
    parser.add_argument("target", type=Path, metavar="OUT", help="the new clip, an .mp4")
    parser.add_argument("--task", choices=MODELS, default="classify")
    parser.add_argument("--model", metavar="NAME", help="a registered model (default: STViT-R-Swin-S)")
    parser.add_argument("--checkpoint", type=Path, metavar="FILE", help="its weights (default: the published ones)")
    parser.add_argument("--baseline", metavar="NAME", help="a model beside it, each at its real pace")
    parser.add_argument("--baseline-checkpoint", type=Path, metavar="FILE")
    parser.add_argument("--random-weights", action="store_true", help="no weights, so no predictions")
    parser.add_argument("--records", type=Path, metavar="FILE", help="what is known of each frame, as JSON lines")
    parser.add_argument(
        "--scale", type=int, nargs=2, default=[1333, 800], metavar=("LONG", "SHORT"), help="of a detector"
    )
    parser.add_argument(
        "--window",
        type=int,
        nargs=3,
        default=[32, 2, 224],
        metavar=("FRAMES", "INTERVAL", "SIZE"),
        help="of a clip model: frames, frames of the clip from one to the next, side in pixels (%(default)s)",
    )
    parser.add_argument(
        "--classes", type=Path, metavar="FILE", help="a clip model's (default: Kinetics-400), one a line"
    )
    parser.add_argument("--views", choices=VIEWS, help="judge the whole clip by clips x crops, too (action only)")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=["cpu", "cuda"])
    parser.add_argument("--precision", choices=PRECISIONS, help="(default: the device's fastest)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="of a classifier (default: what suits the device)")
    parser.add_argument("--max-seconds", type=float, default=3600.0, help="longest clip (%(default)s)")
    parser.add_argument("--max-megabytes", type=int, default=4096, help="largest file (%(default)s)")
    options = parser.parse_args(arguments)
    options.model = options.model or MODELS[options.task]
    for name in filter(None, (options.model, options.baseline)):
        if not is_model(name):
            parser.error(f"unknown model: {name}")
    if options.target.suffix.lower() != ".mp4":
        parser.error(f"the new clip is an MP4: give it a name that ends in .mp4, not {options.target.name}")
    if min(options.window) < 1:
        parser.error("--window takes three numbers from 1 on")
    if options.views and (options.task != "action" or options.random_weights):
        parser.error("--views is for clip models with weights: add --task action")
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("no CUDA device is available")
    return options


def build_models(options: argparse.Namespace) -> list[Model]:
    """The model, and the baseline if there is one.

    Raises:
        NoWeights, CheckpointError: there are no weights, or they are no safe file or do not fit.
        BadClasses: the names do not fit the model.
    """
    models = [build(options, options.model, options.checkpoint)]
    if options.baseline:
        models.append(build(options, options.baseline, options.baseline_checkpoint))
    return models


def build(options: argparse.Namespace, name: str, checkpoint: Path | None) -> Model:
    """One model, on its device and in its precision."""
    network = load(name, checkpoint, random=options.random_weights)
    device = torch.device(options.device)
    precision = PRECISIONS[options.precision] if options.precision else best_precision(device)
    network = network.to(device, precision).requires_grad_(False)
    common: dict[str, Any] = {"predicts": not options.random_weights}
    if options.task == "detect":
        return Detector(network, name, scale=tuple(options.scale), **common)
    if options.task == "action":
        return ActionClassifier(
            network, name, sampling=Sampling(*options.window), classes=class_names(options.classes, network), **common
        )
    return Classifier(network, name, regions=options.task == "clusters", batch_size=options.batch_size, **common)


def load(name: str, checkpoint: Path | None, random: bool) -> nn.Module:
    """The network with its weights."""
    try:
        network = create_model(name, checkpoint, pretrained=not random and checkpoint is None)
    except CheckpointError:
        raise
    except (RuntimeError, ValueError, OSError) as error:  # what timm and the Hub's client raise
        raise NoWeights(
            f"The published weights of {name} cannot be had ({error}). Name a file with --checkpoint, or give "
            "--random-weights to see regions, speed and cost alone."
        ) from error
    if random:
        wake_layer_scale(network)
    return network


def class_names(file: Path | None, network: nn.Module) -> tuple[str, ...]:
    """The names of a clip model's classes.

    Raises:
        BadClasses: there is no such file, or not as many names as classes.
    """
    try:
        names = tuple(file.read_text(encoding="utf-8").splitlines()) if file else KINETICS400_CLASSES
    except (OSError, UnicodeDecodeError) as error:
        raise BadClasses(
            f"The names in {file} cannot be read ({error}). Give a text file with one name a line."
        ) from error
    if len(names) != network.num_classes:
        raise BadClasses(
            f"The model has {network.num_classes} classes, but there are {len(names)} names. Name a file with "
            "--classes that has one on each line."
        )
    return names


def report_views(models: list[Model], progress: Progress, views: str, limits: Limits) -> None:
    """What each model says about the whole clip."""
    clips, crops = VIEWS[views]
    for model in models:
        print(f"{model.label}, {clips} x {crops} views of the whole clip:")
        for name, probability in model.judge_views(progress.info, progress.frames, clips, crops, limits).ranking():
            print(f"  {100 * probability:5.1f} %  {name}")


def report(progress: Progress) -> None:
    """One line on the terminal, written over and over; at the end what each stage took."""
    part = "" if progress.part is None else f" of {100 * progress.part:.0f} %"
    left = "" if progress.eta_s is None or progress.done else f", {progress.eta_s:.0f} s left"
    line = f"{progress.frames} frames{part}, {progress.frames_per_second:.1f} frames/s{left}"
    print(f"\r{line:<70}", end="", file=sys.stderr, flush=True)
    if progress.done:
        busy = ", ".join(f"{stage} {progress.busy_s.get(stage, 0.0):.1f}" for stage in STAGES)
        print(f"\nSeconds at work, in parallel: {busy}. {progress.note}", file=sys.stderr)


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
