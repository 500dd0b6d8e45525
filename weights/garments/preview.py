"""Contact sheets: what the data sets look like, with their labels drawn in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image, ImageDraw
from torch import Tensor

from .datasets import MOTIONS, GarmentClassification, GarmentClips, GarmentScenes
from .export import to_picture
from .items import CLASS_NAMES

GAP = 4  # pixels between pictures
CAPTION = 14  # pixels of a line of text
COLOURS = ((230, 60, 60), (60, 170, 70), (60, 110, 240), (240, 190, 40), (180, 70, 210), (40, 190, 200))


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
