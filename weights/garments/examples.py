"""Examples for redistribution: a few samples, each on another photograph of free licence, with a list of sources."""

from __future__ import annotations

import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor

from stvit.video.encode import ClipWriter
from stvit.video.picture import Matrix, Picture
from stvit.video.types import ClipInfo

from .datasets import MOTIONS, Composites, GarmentClassification, GarmentClips, GarmentScenes
from .export import to_picture
from .sources import CLASS_NAMES, SourceError, Sources

SIDE = 224  # pixels
GARMENTS_IN_SCENES = (3, 4, 5, 6)
CLIP_MOTIONS = ("right", "clockwise")
CLIP_FRAMES, CLIP_FPS = 8, 4
LONG_FRAMES, LONG_FPS = 72, 24
LOOKED_AT = 1000  # scenes and clips at most
JPEG_QUALITY = 95
FREE = ("CC0-1.0", "Public Domain")
GARMENTS = "Zalando SE (garment: Fashion-MNIST, MIT)"

Photographs = Mapping[str, Mapping[str, Any]]


def read_licences(path: str | PathLike[str]) -> Photographs:
    """The photographs that may be handed on: those whose licence is CC0 or public domain, with a source.

    Args:
        path: a JSON object of ``licence``, ``author`` and ``source`` by file name.

    Raises:
        SourceError: no such list.
    """
    try:
        entries = json.loads(Path(path).read_text(encoding="utf-8"))
        return {name: entry for name, entry in entries.items() if entry["licence"] in FREE and entry.get("source")}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise SourceError(f"{path} is no list of photographs' licences ({error}). Name another file.") from error


def write_examples(
    sources: Sources,
    photographs: Photographs,
    out: str | PathLike[str],
    seed: int = 0,
    first_scene: int | None = None,
    long_clip: int | None = None,
    picture: int | None = None,
) -> None:
    """Write a picture of every class, some scenes and clips, and ``licences.json`` with what each shows and is made of.

    Args:
        first_scene: sample to begin the scenes with.
        long_clip: sample to begin the clips with, of ``LONG_FRAMES`` frames.
        picture: sample to show of its class, in place of the first.

    Raises:
        SourceError: too few photographs that may be handed on, or those of the chosen samples are none of them.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    writer = _Writer(out, photographs)
    pictures = GarmentClassification(sources, SIDE, seed=seed)
    scenes = GarmentScenes(sources, SIDE, seed=seed, length=LOOKED_AT)
    clips = GarmentClips(sources, SIDE, frames=CLIP_FRAMES, seed=seed, length=LOOKED_AT)
    for dataset, chosen in ((scenes, first_scene), (clips, long_clip)):
        if chosen is not None:
            writer.take(dataset, chosen)
    of_classes = writer.pick(pictures, lambda index: CLASS_NAMES[pictures[index][1]], CLASS_NAMES)
    if picture is not None:
        label = pictures[picture][1]
        if pictures.photograph(picture) != pictures.photograph(of_classes[label]):
            writer.take(pictures, picture)
        of_classes[label] = picture
    for number, index in enumerate(of_classes, start=1):
        pixels, label = pictures[index]
        name = CLASS_NAMES[label]
        path = f"{name.replace(' ', '_')}.jpg"
        writer.add(pictures, index, "classify", path, f"Garment {number}", [{"name": name}], pixels)
    counted = writer.pick(scenes, lambda index: len(scenes[index][1]["labels"]), GARMENTS_IN_SCENES)
    if first_scene is not None:
        counted.insert(0, first_scene)
    for number, index in enumerate(counted, start=1):
        picture, target = scenes[index]
        title = f"Scene {number}, {len(target['labels'])} garments"
        writer.add(scenes, index, "scene", f"scene_{number}.jpg", title, _objects(target), picture)
    if long_clip is not None:
        longer = GarmentClips(sources, SIDE, frames=LONG_FRAMES, seed=seed, length=LOOKED_AT)
        clip, target = longer[long_clip]
        writer.add(longer, long_clip, "clip", "long.mp4", "Moving garment", _item(target), clip, LONG_FPS)
    moving = writer.pick(clips, lambda index: MOTIONS[clips[index][1]["motion"]], CLIP_MOTIONS)
    for number, index in enumerate(moving, start=1):
        clip, target = clips[index]
        name, title = f"{MOTIONS[target['motion']]}.mp4", f"Short clip {number}"
        writer.add(clips, index, "clip", name, title, _item(target), clip, CLIP_FPS)
    (out / "licences.json").write_text(json.dumps(writer.entries, indent=1) + "\n", encoding="utf-8")


def _objects(target: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The garments of a scene: names of their classes, and boxes, XYXY in pixels."""
    return [
        {"name": CLASS_NAMES[label], "box": box}
        for label, box in zip(target["labels"].tolist(), target["boxes"].tolist(), strict=True)
    ]


def _item(target: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The garment of a clip."""
    return [{"name": CLASS_NAMES[target["item"]]}]


class _Writer:
    """Writes samples, and remembers what they are made of."""

    def __init__(self, out: Path, photographs: Photographs) -> None:
        self._out, self._photographs = out, photographs
        self._used: set[str] = set()
        self.entries: dict[str, dict[str, Any]] = {}

    def take(self, dataset: Composites, index: int) -> None:
        """Keep the photograph of a sample for it alone."""
        photograph = dataset.photograph(index)
        if photograph not in self._photographs:
            raise SourceError(f"sample {index} stands on {photograph}, which may not be handed on: name another one.")
        self._used.add(photograph)

    def pick(self, dataset: Composites, key_of: Callable[[int], Hashable], wanted: Sequence[Hashable]) -> list[int]:
        """For each of the wanted keys, the first sample that has it and stands on a photograph that may be handed on
        and was not used before."""
        chosen: dict[Hashable, int] = {}
        for index in range(len(dataset)):
            photograph = dataset.photograph(index)
            if photograph in self._used or photograph not in self._photographs:
                continue
            key = key_of(index)
            if key in wanted and key not in chosen:
                chosen[key] = index
                self._used.add(photograph)
            if len(chosen) == len(wanted):
                return [chosen[key] for key in wanted]
        raise SourceError(
            f"only {len(chosen)} of {len(wanted)} examples can be made: too few photographs of the "
            f"{dataset.sources.split} split have a free licence and a source. Add some to the folder and to the list."
        )

    def add(
        self,
        dataset: Composites,
        index: int,
        kind: str,
        name: str,
        title: str,
        truth: list[dict[str, Any]],
        pixels: Tensor,
        fps: int = 0,
    ) -> None:
        path = self._out / name
        if kind == "clip":
            _write_clip(path, pixels, fps)
        else:
            to_picture(pixels).save(path, quality=JPEG_QUALITY)
        photograph = dataset.photograph(index)
        entry = self._photographs[photograph]
        self.entries[name] = {
            "kind": kind,
            "title": title,
            "truth": truth,
            "licence": f"MIT, {entry['licence']}",
            "author": f"{GARMENTS}, {entry['author']} (photograph)",
            "source": entry["source"],
            "photograph": photograph,
            "split": dataset.sources.split,
            "seed": dataset.seed,
            "sample": index,
        }


def _write_clip(path: Path, clip: Tensor, fps: int) -> None:
    """(3, T, H, W) uint8 RGB as H.264."""
    frames = clip.permute(1, 2, 3, 0).contiguous().numpy()
    size_hw = frames.shape[1:3]
    info = ClipInfo(path, "", "", size_hw, 0, fps, None, None, 0.0, "")
    writer = ClipWriter(path, size_hw, info, Matrix.BT709)
    for number, frame in enumerate(frames):
        writer.write(Picture.from_rgb(frame), number / fps)
    writer.finish()
