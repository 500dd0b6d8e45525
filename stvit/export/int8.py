"""Weights and activations of eight bits for OpenVINO, by NNCF's post-training quantisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data import create_transform

from stvit.errors import UserError
from stvit.measure.timing import Quartiles, interleave, speed_up
from stvit.predict.device import cpu_has_bfloat16_units
from stvit.predict.media import FORMATS, MediaError, picture_suffixes, read_image

from .formats import Traced, convert_openvino, import_openvino, needed, openvino_core
from .graph import first_line

PICTURES = 128  # at most so many are used
LEAST_PICTURES = 8
ROUNDS = 30  # of timing


@dataclass(frozen=True)
class Int8Gain:
    """What int8 changes and gains under OpenVINO, on the pictures that it was calibrated on, one by one.

    Attributes:
        pictures: how many.
        same_class: share of them, or of the places of their maps, whose best class is that of fp32; ``None`` where the
            outputs are no class scores.
        over_fp32: how much faster, over interleaved rounds.
        over_bf16: likewise; ``None`` where the processor does not multiply bfloat16 itself.
    """

    pictures: int
    same_class: float | None
    over_fp32: Quartiles
    over_bf16: Quartiles | None


def write_int8(traced: Traced, path: Path, folder: Path, preprocessing: Mapping[str, Any]) -> Int8Gain:
    """Calibrate on pictures, which stand for those that the model will see, save, and compare with fp32.

    Raises:
        UserError: NNCF is missing or fails, the network is one for clips, or the folder has too few pictures.
    """
    if traced.images.ndim != 4:
        raise UserError("int8 calibrates on pictures, and this is a model for clips.")
    needed("nncf", "int8")  # said before the pictures are read
    images = calibration_images(folder, tuple(traced.images.shape[-2:]), preprocessing)
    model = convert_openvino(traced)
    quantised = quantise(model, images)
    import_openvino().save_model(quantised, path, compress_to_fp16=False)
    return compare_with_fp32(model, quantised, images, traced.output_names[0] == "logits")


def quantise(model: Any, images: Sequence[np.ndarray]) -> Any:
    """Give a model of OpenVINO weights and activations of eight bits, whose ranges are those on the images.

    Raises:
        UserError: NNCF is missing or fails.
    """
    nncf = needed("nncf", "int8")
    options = {"subset_size": len(images), "model_type": nncf.ModelType.TRANSFORMER}
    try:
        return nncf.quantize(model, nncf.Dataset(images), **options)
    except Exception as error:  # of many classes, those of OpenVINO among them
        raise UserError(f"NNCF cannot quantise this network: {first_line(error)}") from error


def compress_weights(model: Any) -> Any:
    """Give a copy of a model of OpenVINO weights of eight bits; activations and products stay as they are.

    Raises:
        UserError: NNCF is missing or fails.
    """
    nncf = needed("nncf", "int8")
    try:
        return nncf.compress_weights(model.clone())
    except Exception as error:  # as above
        raise UserError(f"NNCF cannot compress these weights: {first_line(error)}") from error


def compare_with_fp32(model: Any, quantised: Any, images: Sequence[np.ndarray], scores: bool) -> Int8Gain:
    """Run both on the pictures, and take their times in turns.

    Args:
        model, quantised: of OpenVINO.
        images: (1, 3, H, W) each.
        scores: whether the first output are class scores, (1, K, ...).
    """

    def compiled(one: Any, precision: str) -> Any:
        return openvino_core().compile_model(one, "CPU", {"INFERENCE_PRECISION_HINT": precision})

    widest = "bf16" if cpu_has_bfloat16_units() else "f32"  # of what is not quantised
    runs = {"int8": compiled(quantised, widest), "fp32": compiled(model, "f32")}
    if widest == "bf16":
        runs["bf16"] = compiled(model, "bf16")
    same = None
    if scores:
        best = [[run(one)[0].argmax(axis=1) for one in images] for run in (runs["int8"], runs["fp32"])]
        same = float(np.mean([own == other for own, other in zip(*best, strict=True)]))
    timed = {name: lambda images, run=run: run(images.numpy()) for name, run in runs.items()}
    times = [one.times_ms for one in interleave(timed, torch.from_numpy(images[0]), rounds=ROUNDS)]
    gains = {name: speed_up(*([one[which] for one in times] for which in ("int8", name))) for name in runs}
    return Int8Gain(len(images), same, gains["fp32"], gains.get("bf16"))


def calibration_images(folder: Path, size: tuple[int, int], preprocessing: Mapping[str, Any]) -> list[np.ndarray]:
    """Up to ``PICTURES`` of a folder, spread evenly over their names, each (1, 3, H, W) float32.

    Raises:
        UserError: there are fewer than ``LEAST_PICTURES``.
    """
    keys = ("mean", "std", "interpolation", "crop_pct")
    transform = create_transform((3, *size), **{key: preprocessing[key] for key in keys if key in preprocessing})
    suffixes = picture_suffixes(FORMATS)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix.lower() in suffixes)
    images = []
    for path in paths[:: max(len(paths) // PICTURES, 1)][:PICTURES]:
        try:
            images.append(transform(Image.fromarray(read_image(path).pixels))[None].numpy())
        except (MediaError, OSError):
            continue  # not a picture, or a damaged one: what is asked for is enough of them
    if len(images) < LEAST_PICTURES:
        raise UserError(
            f"{folder} has {len(images)} pictures that can be read; calibration needs {LEAST_PICTURES} at least.",
            "Name a folder of pictures like those that the model will see.",
        )
    return images
