"""What eight bits gain under OpenVINO: ``python -m stvit.measure.int8 MODEL [BASELINE ...]``.

Every model in fp32, in bf16 where the processor multiplies that itself, with weights of eight bits (``int8 weights``),
and with weights and activations of eight bits (``int8``); all of them in turns, for single images and for batches.

MODEL is the card (.json) of a trained model, or a registered name. The weights of the latter are random here: its times
are those of trained ones, its classes mean nothing, and the cosine says how far rounding turns the outputs.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.data import resolve_model_data_config
from timm.models import is_model
from torch import Tensor, nn

from stvit.errors import UserError
from stvit.export.export import preprocessing
from stvit.export.formats import Traced, convert_openvino, needed, openvino_core
from stvit.export.graph import InferenceGraph, example_images
from stvit.export.int8 import calibration_images, compress_weights, quantise
from stvit.factory import create_model
from stvit.models.video_swin import ClipClassifier
from stvit.predict.device import available_cores, cpu_has_bfloat16_units
from stvit.pretrained.model_cards import load_card
from stvit.shell import positive, unknown_model, unwritable

from .timing import LatencySummary, Quartiles, interleave, speed_up, summarise

NOISE = 16  # images of it, where there are no pictures
INT8_WEIGHTS, INT8 = "int8 weights", "int8"


@dataclass(frozen=True)
class Int8Row:
    """One model in one precision, for one batch size.

    Attributes:
        model, precision: names.
        batch_size: images in a pass.
        latency: of a pass.
        over_fp32: how much faster than the same model in fp32; ``None`` of fp32 itself.
        over_baseline: how much faster than the last model in the same precision; ``None`` of that model itself.
        cosine: of the outputs with those of fp32, the mean over the images.
        same_class: share of the images whose best class is that of fp32; ``None`` for random weights.
    """

    model: str
    precision: str
    batch_size: int
    latency: LatencySummary
    over_fp32: Quartiles | None
    over_baseline: Quartiles | None
    cosine: float
    same_class: float | None


@dataclass(frozen=True)
class Candidate:
    """A model, and what it is asked about.

    Attributes:
        network: (B, 3, H, W) -> (B, classes), in float32.
        images: (1, 3, H, W) each: pictures that it is calibrated on, or noise.
        trained: whether its classes mean anything.
    """

    network: nn.Module
    images: Sequence[np.ndarray]
    trained: bool


def compare_precisions(
    models: Mapping[str, Candidate], batch_sizes: Sequence[int] = (1, 16), rounds: int = 20
) -> list[Int8Row]:
    """Measure every model in every precision, interleaved; the last model is the baseline of the others.

    Raises:
        UserError: OpenVINO or NNCF is missing, or cannot take a model.
    """
    needed("nncf", "int8")
    compiled: dict[tuple[str, str], Any] = {}
    for name, model in models.items():
        print(f"{name}: converting and quantising ...", file=sys.stderr, flush=True)
        compiled |= {(name, precision): one for precision, one in in_precisions(model).items()}
    apart = {key: differences(models[key[0]], compiled[key[0], "fp32"], one) for key, one in compiled.items()}
    *_, baseline = models
    rows = []
    for batch in batch_sizes:
        runs = {str(key): lambda images, one=one: one(images.numpy()) for key, one in compiled.items()}
        inputs = {str(key): batch_of(models[key[0]].images, batch) for key in compiled}
        passes = list(interleave(runs, inputs, rounds=rounds))
        times = {key: [one.times_ms[str(key)] for one in passes] for key in compiled}
        rows += [
            Int8Row(
                name,
                precision,
                batch,
                summarise(own),
                None if precision == "fp32" else speed_up(own, times[name, "fp32"]),
                None if name == baseline else speed_up(own, times[baseline, precision]),
                *apart[name, precision],
            )
            for (name, precision), own in times.items()
        ]
    return rows


def in_precisions(model: Candidate) -> dict[str, Any]:
    """The model by precision, compiled as the engine ``openvino`` does."""
    graph, shape = InferenceGraph(model.network), model.images[0].shape[1:]
    converted = convert_openvino(Traced(graph, example_images(shape), True, ["logits"], {}))
    halves = {"bf16": converted} if cpu_has_bfloat16_units() else {}
    rounded = {INT8_WEIGHTS: compress_weights(converted), INT8: quantise(converted, model.images)}
    settings = {"INFERENCE_NUM_THREADS": available_cores(), "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}

    def compiled(one: Any, hint: str) -> Any:
        return openvino_core().compile_model(one, "CPU", settings | {"INFERENCE_PRECISION_HINT": hint})

    wide = "bf16" if halves else "f32"  # for what is not of eight bits
    return {"fp32": compiled(converted, "f32")} | {
        name: compiled(one, wide) for name, one in (halves | rounded).items()
    }


def differences(model: Candidate, exact: Any, one: Any) -> tuple[float, float | None]:
    """See ``cosine`` and ``same_class`` of :class:`Int8Row`."""
    outputs, wanted = (np.concatenate([run(image)[0] for image in model.images]) for run in (one, exact))
    norms = np.linalg.norm(outputs, axis=1) * np.linalg.norm(wanted, axis=1)
    cosine = float(np.mean((outputs * wanted).sum(axis=1) / norms))
    same = float(np.mean(outputs.argmax(axis=1) == wanted.argmax(axis=1)))
    return cosine, same if model.trained else None


def batch_of(images: Sequence[np.ndarray], batch: int) -> Tensor:
    return torch.from_numpy(np.concatenate([images[i % len(images)] for i in range(batch)]))


def load(name: str, pictures: Path | None) -> Candidate:
    """A registered model with random weights, or a trained one.

    Raises:
        UserError: the card, its weights or the pictures cannot be used, or it is no classifier of pictures.
    """
    trained = name.endswith(".json")
    if trained:
        network, _ = load_card(name)
    else:
        network = create_model(name)
    about = preprocessing(network)
    if "crop_pct" not in about or isinstance(network, ClipClassifier):
        raise UserError(f"{name} is no classifier of pictures.", "Choose one that is.")
    size = tuple(resolve_model_data_config(network)["input_size"][-2:])
    if pictures:
        return Candidate(network, calibration_images(pictures, size, about), trained)
    return Candidate(network, [one[None].numpy() for one in example_images((3, *size), NOISE)], trained)


def table(rows: Sequence[Int8Row]) -> str:
    """The rows as text."""
    lines = [
        f"{'model':34} {'precision':13} {'batch':>5} {'ms (IQR)':>22} {'over fp32':>10} {'over baseline':>14} "
        f"{'cosine':>8} {'class of fp32':>14}"
    ]
    for row in rows:
        latency = f"{row.latency.median_ms:.1f} ({row.latency.q1_ms:.1f} to {row.latency.q3_ms:.1f})"
        gains = [f"{one.median:.2f}x" if one else "" for one in (row.over_fp32, row.over_baseline)]
        same = "" if row.same_class is None else f"{row.same_class:.1%}"
        lines.append(
            f"{row.model:34} {row.precision:13} {row.batch_size:5} {latency:>22} {gains[0]:>10} {gains[1]:>14} "
            f"{row.cosine:8.4f} {same:>14}"
        )
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m stvit.measure.int8", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("models", nargs="+", metavar="MODEL", help="the model, then its baselines")
    pictures = "to calibrate on and to compare classes on (default: noise)"
    parser.add_argument("--pictures", type=Path, metavar="FOLDER", help=pictures)
    parser.add_argument("--batch-size", type=positive, default=16, help="beside 1 (default: 16)")
    parser.add_argument("--rounds", type=positive, default=20, help="timed rounds (default: 20)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="also save the figures as JSON")
    options = parser.parse_args(arguments)
    if len(set(options.models)) < len(options.models):
        parser.error("name each model once")
    if unknown := [name for name in options.models if not (name.endswith(".json") or is_model(name))]:
        parser.error("; ".join(map(unknown_model, unknown)))
    if options.output and (problem := unwritable(options.output)):
        parser.error(f"--output {problem}")
    torch.manual_seed(0)
    try:
        models = {Path(name).stem: load(name, options.pictures) for name in options.models}
        rows = compare_precisions(models, sorted({1, options.batch_size}), options.rounds)
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return 130
    print(table(rows))
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
