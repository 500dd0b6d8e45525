"""Trained models by their descriptions: JSON files as ``python -m weights.garments.bundle`` writes them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from timm.models import is_model

KINDS = ("classify", "detect", "video")
SOURCES = ("checkpoint", "pretrained")  # options of timm's that would take weights from elsewhere


class BadDescription(ValueError):
    """The file does not describe a model that can be run; the message is for the user."""


@dataclass(frozen=True)
class Description:
    """What is to be known of a trained model to run it.

    Attributes:
        name: of its files.
        model: registered name.
        options: arguments of the model.
        kind: one of ``KINDS``.
        classes: in the order of its outputs.
        input_size: the (shorter) side of its input, pixels.
        weights: where its weights are, if nobody says otherwise.
        frames, stride: of a clip model, frames of its input, and frames of the clip from one to the next; else 0.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    kind: str
    classes: tuple[str, ...]
    input_size: int
    weights: Path
    frames: int = 0
    stride: int = 0


def read_description(path: str | Path) -> Description:
    """Read ``NAME.json``; the weights are ``NAME.safetensors`` beside it. Further entries are left aside.

    Raises:
        BadDescription: it cannot be read, or an entry is missing or is not what it has to be.
    """
    path = Path(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        return _described(content, path)
    except (OSError, ValueError) as error:
        raise BadDescription(
            f"{path} does not describe a trained model: {error}. Give a file like those in weights/bundled."
        ) from error


def _described(content: dict[str, Any], path: Path) -> Description:
    model, options, kind, classes = (content.get(key) for key in ("model", "options", "task", "classes"))
    _require(isinstance(model, str) and is_model(model), f"model is {model!r}, which is not registered")
    _require(isinstance(options, dict), "options is no object of the model's arguments")
    _require(not any(key.startswith(SOURCES) for key in options), "options name weights: give them by --checkpoint")
    _require(kind in KINDS, f"task is {kind!r}, and those that can be run on clips are {', '.join(KINDS)}")
    _require(
        isinstance(classes, list) and classes and all(isinstance(name, str) for name in classes),
        "classes is no list of names",
    )
    of_clips = ("frames", "stride") if kind == "video" else ()
    counts = {key: content.get(key) for key in ("input_size", *of_clips)}
    for key, value in counts.items():
        _require(type(value) is int and value > 0, f"{key} is {value!r}, not a whole number above 0")
    weights = path.with_suffix(".safetensors")
    return Description(path.stem, model, options, kind, tuple(classes), weights=weights, **counts)


def _require(fulfilled: object, problem: str) -> None:
    if not fulfilled:
        raise ValueError(problem)
