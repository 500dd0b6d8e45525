"""Writing the data sets as plain files, for any training code: an image folder, and a COCO-format folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from .datasets import Composites, GarmentClassification, GarmentScenes
from .items import CLASS_NAMES
from .scene_annotations import coco_annotations, file_name

Progress = Callable[[int, int], None]  # samples done, samples in all


def to_picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) uint8 RGB -> picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def class_folder(label: int) -> str:
    """Folder of a class; their alphabetical order is that of the labels, which image-folder readers rely on."""
    return f"{label}_{CLASS_NAMES[label].replace(' ', '-')}"


def export_classification(dataset: GarmentClassification, out: str | PathLike[str], progress: Progress) -> None:
    """Write an image folder: ``out/split/class/index.png``."""
    root = Path(out) / dataset.sources.split
    for label in range(len(CLASS_NAMES)):
        (root / class_folder(label)).mkdir(parents=True, exist_ok=True)
    for index in range(len(dataset)):
        picture, label = dataset[index]
        to_picture(picture).save(root / class_folder(label) / file_name(index))
        progress(index + 1, len(dataset))
    _write_sources(dataset, Path(out))


def export_scenes(dataset: GarmentScenes, out: str | PathLike[str], progress: Progress) -> None:
    """Write a COCO-format folder: pictures in ``out/split``, ``out/annotations/split.json``, and label maps (0 for
    background, else the class plus 1) in ``out/semantic/split``."""
    pictures, semantic = Path(out) / dataset.sources.split, Path(out) / "semantic" / dataset.sources.split
    annotations = Path(out) / "annotations"
    for folder in (pictures, semantic, annotations):
        folder.mkdir(parents=True, exist_ok=True)

    def save(index: int, picture: Tensor, target: dict[str, Any]) -> None:
        to_picture(picture).save(pictures / file_name(index))
        Image.fromarray(target["semantic"].byte().numpy()).save(semantic / file_name(index))
        progress(index + 1, len(dataset))

    described = coco_annotations(dataset, save)
    (annotations / f"{dataset.sources.split}.json").write_text(json.dumps(described), encoding="utf-8")
    _write_sources(dataset, Path(out))


def _write_sources(dataset: Composites, out: Path) -> None:
    """What the pictures are made of, for whoever passes them on."""
    lines = [
        f"Split {dataset.sources.split}, seed {dataset.seed}.",
        "Garments: Fashion-MNIST, copyright 2017 Zalando SE, MIT licence.",
        "Photographs, under their own licences:",
        *dataset.sources.backgrounds.names,
    ]
    (out / f"SOURCES-{dataset.sources.split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
