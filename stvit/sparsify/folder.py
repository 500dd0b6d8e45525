"""A model folder: what timm loads (``config.json``, ``model.safetensors``), and the card that this project reads."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from timm.models._hub import save_for_hf
from timm.models._input import get_model_args
from torch import nn

from stvit.errors import UserError
from stvit.measure.macs import count_macs
from stvit.predict.preprocess import Preprocessing
from stvit.pretrained.model_cards import write_card

from .architectures import input_shape
from .convert import REGISTERED
from .fit import CannotSparsify

WEIGHTS = "model.safetensors"  # the name that timm expects


def write_folder(sparse: nn.Module, folder: Path, *, classes: Sequence[str], weights_of: str) -> None:
    """Write a sparsified classifier, whole or not at all; ``timm.create_model("local-dir:FOLDER", pretrained=True)``
    loads it after ``import stvit``, and ``FOLDER/model.json`` is its card. A network without a head has no card, and
    neither has one of other input than square colour pictures.

    Args:
        sparse: what :func:`stvit.sparsify.convert.sparsify` returned.
        folder: does not exist, or is empty.
        classes: names in the order of its outputs.
        weights_of: what the original's weights are, for the card.

    Raises:
        CannotSparsify: the original is not registered with timm, so that nothing could build the model again.
        UserError: the folder is not empty or cannot be written.
    """
    if "of" not in getattr(sparse, "_model_args", {}):
        problem = "The original is not registered with timm, so no folder can say how to build it."
        raise CannotSparsify(problem, "Save the state_dict(), and call stvit.sparsify on your network to load it.")
    check_folder(folder)
    folder = folder.resolve()
    channels, height, width = input_shape(sparse)
    try:
        partial = Path(mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}).", "Choose another --output.") from error
    try:
        save_for_hf(sparse, str(partial), model_config={"label_names": list(classes)}, safe_serialization=True)
        if sparse.num_classes and channels == 3 and height == width:
            write_card(partial / WEIGHTS, card_entries(sparse, classes, weights_of))
        partial.chmod(0o755)  # as mkdir makes it, not for this user alone
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def check_folder(folder: Path) -> None:
    """Refuse a folder that holds something, and make those around it.

    Raises:
        UserError: see above.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        taken = folder.exists() and (not folder.is_dir() or any(folder.iterdir()))
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}).", "Choose another --output.") from error
    if taken:
        raise UserError(f"{folder} is there already.", "Choose another --output, or remove it.")


def card_entries(sparse: nn.Module, classes: Sequence[str], weights_of: str) -> dict[str, Any]:
    """The entries of the card: how to build the model, prepare its input, and what it was made from."""
    seen, side = Preprocessing.of(sparse.pretrained_cfg), input_shape(sparse)[-1]
    return {
        "model": REGISTERED,
        "options": get_model_args(sparse),
        "task": "classify",
        "classes": list(classes),
        "input_size": side,
        "crop_pct": seen.crop_pct,
        "interpolation": seen.interpolation,
        "mean": list(seen.mean),
        "std": list(seen.std),
        "weights_of": weights_of,
        "macs": count_macs(sparse, (3, side, side)),
    }
