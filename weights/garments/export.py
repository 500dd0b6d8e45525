"""The data sets as files: image folders and COCO-format folders for any training code, and contact sheets."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .datasets import MOTIONS, Composites, GarmentClassification, GarmentClips, GarmentScenes
from .sources import CLASS_NAMES

Progress = Callable[[int, int], None]  # samples done, samples in all

CATEGORIES = [{"id": i + 1, "name": name, "supercategory": "garment"} for i, name in enumerate(CLASS_NAMES)]

GAP = 4  # pixels between pictures
CAPTION = 14  # pixels of a line of text
COLOURS = ((230, 60, 60), (60, 170, 70), (60, 110, 240), (240, 190, 40), (180, 70, 210), (40, 190, 200))


def to_picture(pixels: Tensor) -> Image.Image:
    """(3, H, W) uint8 RGB -> picture."""
    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def export_classification(dataset: GarmentClassification, out: str | PathLike[str], progress: Progress) -> None:
    """Write an image folder: ``out/split/class/index.png``."""
    root = Path(out) / dataset.sources.split
    for name in CLASS_NAMES:
        (root / name).mkdir(parents=True, exist_ok=True)
    for index in range(len(dataset)):
        picture, label = dataset[index]
        to_picture(picture).save(root / CLASS_NAMES[label] / file_name(index))
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
    """List the sources and licences of the pictures, for redistribution."""
    lines = [
        f"Split {dataset.sources.split}, seed {dataset.seed}.",
        "Garments: Fashion-MNIST, copyright 2017 Zalando SE, MIT licence.",
        "Photographs, under their own licences:",
        *dataset.sources.backgrounds.names,
    ]
    (out / f"SOURCES-{dataset.sources.split}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def file_name(index: int) -> str:
    """Name of a sample's picture."""
    return f"{index:06d}.png"


def run_lengths(mask: np.ndarray) -> list[int]:
    """COCO's uncompressed run-length code of an (H, W) bool mask: columns first, beginning with a run of zeros."""
    flat = np.concatenate([[False], mask.ravel(order="F")])
    edges = np.flatnonzero(flat[1:] != flat[:-1])
    return np.diff(np.concatenate([[0], edges, [mask.size]])).tolist()


def coco_annotations(
    scenes: GarmentScenes, visit: Callable[[int, Tensor, dict[str, Any]], None] | None = None
) -> dict[str, Any]:
    """Compose all scenes and describe them as COCO does.

    Args:
        scenes: the data set, without a transform.
        visit: called with index, picture and target of every scene, so that it is composed only once.

    Returns:
        A dict to be written as JSON: ``images`` (``id`` is the index), ``annotations`` (masks as uncompressed
        run-length codes, boxes as x, y, width, height) and ``categories`` (``id`` is the class plus 1).
    """
    images, annotations = [], []
    for index in range(len(scenes)):
        picture, target = scenes[index]
        if visit is not None:
            visit(index, picture, target)
        height, width = target["semantic"].shape
        images.append({"id": index, "file_name": file_name(index), "height": height, "width": width})
        for box, label, mask in zip(target["boxes"], target["labels"], target["masks"].numpy(), strict=True):
            left, top, right, bottom = box.tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": index,
                    "category_id": int(label) + 1,
                    "bbox": [left, top, right - left, bottom - top],
                    "area": int(mask.sum()),
                    "segmentation": {"size": [height, width], "counts": run_lengths(mask)},
                    "iscrowd": 0,
                }
            )
    info = {"description": f"Garments on photographs, {scenes.sources.split} split, seed {scenes.seed}"}
    return {"info": info, "images": images, "annotations": annotations, "categories": CATEGORIES}


def contact_sheet(pictures: Sequence[Image.Image], captions: Sequence[str], columns: int) -> Image.Image:
    """Pictures of one size in rows, each with its caption below."""
    width, height = pictures[0].size
    step_x, step_y = width + GAP, height + CAPTION + GAP
    sheet = Image.new("RGB", (columns * step_x, -(-len(pictures) // columns) * step_y), "white")
    draw = ImageDraw.Draw(sheet)
    for position, (picture, caption) in enumerate(zip(pictures, captions, strict=True)):
        x, y = position % columns * step_x, position // columns * step_y
        sheet.paste(picture, (x, y))
        draw.text((x, y + height), caption, fill="black")
    return sheet


def classification_sheet(dataset: GarmentClassification, rows: int = 8) -> Image.Image:
    """A column for every class."""
    by_class: list[list[int]] = [[] for _ in CLASS_NAMES]
    for index, label in enumerate(dataset.sources.items.labels[: len(dataset)]):
        by_class[label].append(index)
    shown = [indices[row] for row in range(rows) for indices in by_class if row < len(indices)]
    samples = [dataset[index] for index in shown]
    captions = [CLASS_NAMES[label] for _, label in samples]
    return contact_sheet([to_picture(picture) for picture, _ in samples], captions, len(CLASS_NAMES))


def scene_sheet(dataset: GarmentScenes, count: int = 8) -> Image.Image:
    """Scenes in pairs: as they are, and with masks, boxes and classes drawn in."""
    pictures, captions = [], []
    for index in range(min(count, len(dataset))):
        picture, target = dataset[index]
        pictures += [to_picture(picture), draw_targets(picture, target)]
        captions += [f"scene {index}", f"{len(target['labels'])} garments"]
    return contact_sheet(pictures, captions, 4)


def draw_targets(picture: Tensor, target: dict[str, Any]) -> Image.Image:
    """Masks tinted, boxes and class names on top."""
    tinted = picture.float()
    colours = [COLOURS[i % len(COLOURS)] for i in range(len(target["labels"]))]
    for mask, colour in zip(target["masks"], colours, strict=True):
        tinted[:, mask] = 0.4 * tinted[:, mask] + 0.6 * torch.tensor(colour, dtype=torch.float32)[:, None]
    drawn = to_picture(tinted.byte())
    draw = ImageDraw.Draw(drawn)
    for box, label, colour in zip(target["boxes"].tolist(), target["labels"].tolist(), colours, strict=True):
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), outline=colour)
        draw.text((left + 2, top + 1), CLASS_NAMES[label], fill="white", stroke_width=1, stroke_fill="black")
    return drawn


def clip_sheet(dataset: GarmentClips, count: int = 8, shown: int = 8) -> Image.Image:
    """A row for every clip, some of its frames."""
    pictures, captions = [], []
    for index in range(min(count, len(dataset))):
        clip, target = dataset[index]
        frames = torch.linspace(0, clip.shape[1] - 1, shown).round().int().tolist()
        pictures += [to_picture(clip[:, frame]) for frame in frames]
        captions += [f"{CLASS_NAMES[target['item']]}, {MOTIONS[target['motion']]}", *[""] * (shown - 1)]
    return contact_sheet(pictures, captions, shown)
