"""Weights and activations of eight bits for OpenVINO, by NNCF's post-training quantisation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from timm.data import create_transform

from stvit.errors import UserError
from stvit.predict.media import FORMATS, MediaError, picture_suffixes, read_image

from .formats import Traced, convert_openvino, import_openvino, needed
from .graph import first_line

PICTURES = 128  # at most so many are used
LEAST_PICTURES = 8


def write_int8(traced: Traced, path: Path, folder: Path, preprocessing: Mapping[str, Any]) -> None:
    """Calibrate on pictures, which stand for those that the model will see, and save.

    Raises:
        UserError: NNCF is missing or fails, the network is one for clips, or the folder has too few pictures.
    """
    if traced.images.ndim != 4:
        raise UserError("int8 calibrates on pictures, and this is a model for clips.")
    nncf = needed("nncf", "int8")
    images = calibration_images(folder, tuple(traced.images.shape[-2:]), preprocessing)
    model = convert_openvino(traced)
    try:
        quantised = nncf.quantize(
            model,
            nncf.Dataset(images),
            subset_size=len(images),
            model_type=nncf.ModelType.TRANSFORMER,
        )
    except Exception as error:  # of many classes, those of OpenVINO among them
        raise UserError(f"NNCF cannot quantise this network: {first_line(error)}") from error
    import_openvino().save_model(quantised, path, compress_to_fp16=False)


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
