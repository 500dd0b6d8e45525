"""``python -m stvit.export MODEL OUT``: a file that runs a model without this project, checked against eager.

MODEL is a registered name or the card (.json) of a trained model. OUT ends in .pt2 (PyTorch), .onnx or .xml (OpenVINO).
Of Cascade Mask R-CNN, backbone and feature pyramid are exported: how many proposals and objects follow depends on the
picture, so the rest of it is no graph.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any, get_args

from torch import nn

from stvit.errors import UserError
from stvit.factory import create_model
from stvit.pretrained.model_cards import load_card

from .export import CLIP_LENGTH, ExportReport, Precision, export_model
from .formats import FORMATS
from .graph import FeaturePyramid, exportable


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        model, known = build(options)
        if isinstance(exportable(model), FeaturePyramid):
            print(
                "Of the detector, backbone and feature pyramid are exported; its heads are no graph.", file=sys.stderr
            )
        report = export_model(
            model,
            options.out,
            options.format,
            batch=options.batch,
            precision=options.precision,
            regions=options.regions,
            calibrate=options.calibrate,
            **known | {key: value for key, value in given(options).items() if value is not None},
        )
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; nothing was written.", file=sys.stderr)
        return 130
    print(summary(report))
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.export", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", metavar="MODEL", help="registered name, or the card of a trained model")
    parser.add_argument("out", metavar="OUT", type=Path, help="the file")
    parser.add_argument("--format", choices=FORMATS, help="default: what OUT ends in; aot ends in .pt2 too")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--checkpoint", type=Path, metavar="FILE", help="weights of your own")
    weights.add_argument("--pretrained", action="store_true", help="the published weights, from cache or Hub")
    weights.add_argument("--random-weights", action="store_true", help="none: for measuring")
    parser.add_argument("--input-size", type=int, nargs=2, metavar=("H", "W"), help="pixels (default: the model's)")
    parser.add_argument("--frames", type=int, metavar="N", help=f"of a clip model's input (default: {CLIP_LENGTH})")
    parser.add_argument("--batch", type=batch, default="dynamic", metavar="dynamic|N", help="(default: dynamic)")
    parser.add_argument("--precision", choices=get_args(Precision), default="fp32", help="(default: fp32)")
    parser.add_argument("--calibrate", type=Path, metavar="FOLDER", help="of pictures, for int8")
    parser.add_argument("--regions", action="store_true", help="also return the token of each image token, by layer")
    options = parser.parse_args(arguments)
    chosen = options.checkpoint or options.pretrained or options.random_weights
    if options.model.endswith(".json") == bool(chosen):
        parser.error("a card brings its weights" if chosen else "choose --pretrained, --checkpoint or --random-weights")
    return options


def batch(text: str) -> int | str:
    """``dynamic``, or a whole number from 1 on."""
    if text != "dynamic" and (not text.isdecimal() or int(text) < 1):
        raise argparse.ArgumentTypeError(f"{text!r} is neither 'dynamic' nor a whole number from 1 on")
    return text if text == "dynamic" else int(text)


def build(options: argparse.Namespace) -> tuple[nn.Module, dict[str, Any]]:
    """The model, and what its card says of its input and classes.

    Raises:
        UserError: unknown, unreadable or missing.
    """
    if not options.model.endswith(".json"):
        return create_model(options.model, options.checkpoint, options.pretrained), {}
    model, card = load_card(options.model)
    known = {"class_names": card.classes, "input_size": (card.input_size, card.input_size), "frames": card.frames}
    return model, {key: value for key, value in known.items() if value is not None}


def given(options: argparse.Namespace) -> dict[str, Any]:
    return {"input_size": options.input_size and tuple(options.input_size), "frames": options.frames}


def summary(report: ExportReport) -> str:
    """What was written, in one or two lines."""
    against = "fp32" if report.precision == "int8" else "eager"
    text = (
        f"{report.path}: {report.format}, {report.precision}, {report.bytes / 2**20:.1f} MiB, {report.seconds:.1f} s, "
        f"largest difference from {against} {report.difference:.1e}"
    )
    if (gain := report.int8) is not None:
        same = "" if gain.same_class is None else f"best class that of fp32 in {gain.same_class:.1%}, "
        faster = {"fp32": gain.over_fp32, "bf16": gain.over_bf16}
        by = [
            f"{one.median:.2f}x ({one.q1:.2f} to {one.q3:.2f}) as fast as {name}" for name, one in faster.items() if one
        ]
        text += f"\non {gain.pictures} pictures one by one: {same}{', '.join(by)}"
    if report.agreement is not None:
        text += f"\nregions of {len(report.regions)} layers, {report.agreement:.2%} of the image tokens as in {against}"
    return text


if __name__ == "__main__":
    sys.exit(main())
