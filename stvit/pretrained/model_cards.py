"""Small models that this project trained and ships: weights in ``bundled/``, each with a description beside it.

A new one needs two files, ``NAME.safetensors`` and ``NAME.json``; the fields of the second are those of
:class:`BundledRecord`, with ``metrics_split`` as the name of the split and the number of its samples.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

FOLDER = Path(__file__).parents[2] / "weights" / "bundled"

BundledTask = Literal["classify", "detect", "segment", "video"]

TEXTS = ("name", "model", "task", "data", "recipe", "trained_on", "licence", "sha256")
COUNTS = ("input_size", "macs", "seed")
OPTIONAL_NUMBERS = ("epochs", "samples_seen", "frames", "stride")


class BundleError(RuntimeError):
    """The description of a bundled model is not as it has to be; the message is for the user."""


@dataclass(frozen=True)
class BundledRecord:
    """A model of this project's own.

    Attributes:
        name: of its files.
        model: registered name.
        options: arguments of the model.
        task: what it does.
        classes: what it knows, in the order of its outputs; of a segmenter, background first.
        input_size: side of the square input in pixels.
        metrics: measured by this project on ``split``, percent: e.g. ``top1``, or ``box_ap`` and ``mask_ap``.
        split: name of the split.
        num_samples: in the split.
        macs: multiply-adds for one input.
        data: what it was trained on, one sentence.
        seed: of the training.
        recipe: name of the training's recipe.
        command: what trained it, each entry a line for a shell.
        trained_on: the hardware, in words.
        licence: of the weights.
        sha256: of the file of weights.
        path: the file of weights.
        epochs, samples_seen: of the last run, and of all runs that led to it, where that is known.
        frames, stride: of a clip model, frames of its input, and frames of the clip from one to the next.
    """

    name: str
    model: str
    options: Mapping[str, Any]
    task: BundledTask
    classes: tuple[str, ...]
    input_size: int
    metrics: Mapping[str, float]
    split: str
    num_samples: int
    macs: int
    data: str
    seed: int
    recipe: str
    command: tuple[str, ...]
    trained_on: str
    licence: str
    sha256: str
    path: Path = field(repr=False)
    epochs: float | None = None
    samples_seen: int | None = None
    frames: int | None = None
    stride: int | None = None


class BundledModels(Mapping[str, BundledRecord]):
    """Records by name, in alphabetical order; the descriptions are read at the first use.

    Raises (from every use until they are mended):
        BundleError: a description is damaged or incomplete.
    """

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def __getitem__(self, name: str) -> BundledRecord:
        return self._records[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)

    def of_task(self, task: BundledTask) -> tuple[BundledRecord, ...]:
        """The models for one task."""
        return tuple(record for record in self.values() if record.task == task)

    @cached_property
    def _records(self) -> dict[str, BundledRecord]:
        return {path.stem: read_record(path) for path in sorted(self.folder.glob("*.json"))}


BUNDLED_MODELS = BundledModels()


def read_record(path: Path) -> BundledRecord:
    """Read a description; entries that the record has no field for are left aside.

    Raises:
        BundleError: it cannot be read, or an entry is missing or is not what it has to be.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it holds no JSON object")
        return _record(content, path)
    except (OSError, ValueError) as error:
        raise BundleError(
            f"{path} does not describe a bundled model: {error}. "
            "Write it again with `python -m weights.garments.bundle`, or delete it together with its weights."
        ) from error


def _record(content: dict[str, Any], path: Path) -> BundledRecord:
    """The record; ValueError names the entry that is wrong."""
    texts = {key: _checked(content, key, isinstance(content.get(key), str), "a text") for key in TEXTS}
    counts = {key: _checked(content, key, _is_count(content.get(key)), "a whole number from 0 on") for key in COUNTS}
    numbers = {
        key: _checked(content, key, _is_number(content[key]) and content[key] > 0, "a number above 0")
        for key in OPTIONAL_NUMBERS
        if content.get(key) is not None
    }
    classes, metrics, split = (content.get(key) for key in ("classes", "metrics", "metrics_split"))
    command = content.get("command")
    command = [command] if isinstance(command, str) else command
    _require(texts["name"] == path.stem, f"name is {texts['name']!r}, not that of the file")
    _require(texts["task"] in get_args(BundledTask), f"task is {texts['task']!r}, none of {get_args(BundledTask)}")
    _require(re.fullmatch("[0-9a-f]{64}", texts["sha256"]), "sha256 is no SHA-256 in hexadecimal")
    _require(counts["input_size"] > 0, "input_size is 0")
    _require(isinstance(content.get("options"), dict), "options is no object of the model's arguments")
    _require(_are_texts(classes), "classes is no list of names")
    _require(_are_texts(command), "command is no list of commands")
    _require(isinstance(metrics, dict) and all(map(_is_number, metrics.values())), "metrics is no object of numbers")
    _require(_is_split(split), "metrics_split is not the name of a split and the number of its samples")
    _require(texts["task"] != "video" or {"frames", "stride"} <= numbers.keys(), "frames or stride of clips is missing")
    return BundledRecord(
        **texts,
        **counts,
        **numbers,
        options=content["options"],
        classes=tuple(classes),
        metrics=metrics,
        split=split[0],
        num_samples=split[1],
        command=tuple(command),
        path=path.with_suffix(".safetensors"),
    )


def _checked(content: dict[str, Any], key: str, right: bool, kind: str) -> Any:
    _require(key in content, f"{key} is missing")
    _require(right, f"{key} is {content[key]!r}, not {kind}")
    return content[key]


def _require(condition: object, problem: str) -> None:
    if not condition:
        raise ValueError(problem)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(entry, str) for entry in value)


def _is_split(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and isinstance(value[0], str) and _is_count(value[1])
