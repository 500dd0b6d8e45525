"""Example pictures and clips: photographs, and for models that know garments, samples of their test split."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from filecmp import cmp
from functools import cache
from html import escape
from pathlib import Path
from typing import Literal

import av
import gradio as gr
from PIL import Image, ImageOps

from demo.page.gradio_private import sent_by_browser
from demo.runtime import AT_ONCE

EXAMPLES = Path(__file__).resolve().parents[2] / "assets" / "examples"
GARMENTS = EXAMPLES / "garments"
THUMBNAIL_SIDE = 160
HERE = Path(__file__).resolve().parent

Picture = Literal["classify", "scene"]
Kind = Literal[Picture, "clip"]


@dataclass(frozen=True)
class Known:
    """Something that an example is known to show: its class, and in scenes its box, XYXY in the example's pixels."""

    name: str
    box: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class Example:
    """A picture or clip that the project may hand on, under which licence, and what it shows; its title keeps that to
    itself."""

    path: Path
    title: str
    licence: str
    author: str
    truth: tuple[Known, ...]


def load_examples(folder: Path = EXAMPLES) -> tuple[Example, ...]:
    """Read the example photographs in the order of ``licences.json``."""
    return _listed(folder, None)


def garment_examples(kind: Kind, folder: Path = GARMENTS) -> tuple[Example, ...]:
    """Read examples of the garments' test split: pictures of one garment each, scenes, or clips."""
    return _listed(folder, kind)


def _listed(folder: Path, kind: Kind | None) -> tuple[Example, ...]:
    entries = json.loads((folder / "licences.json").read_text(encoding="utf-8"))
    return tuple(
        Example(
            folder / name,
            entry["title"],
            entry["licence"],
            entry["author"],
            tuple(Known(known["name"], tuple(known["box"]) if "box" in known else None) for known in entry["truth"]),
        )
        for name, entry in entries.items()
        if entry.get("kind") == kind
    )


@dataclass(frozen=True)
class Gallery:
    """The examples of one tab; those that fit the chosen models are shown."""

    photos: tuple[Example, ...]
    garments: tuple[Example, ...]

    @classmethod
    def load(cls, kind: Picture) -> Gallery:
        """Read the photographs, and one kind of garment examples."""
        return cls(load_examples(), garment_examples(kind))

    def component(self, elem_id: str, target: gr.Image | gr.Video, garments: bool = False) -> gr.HTML:
        """Make the thumbnails, of garments or photographs at first; the one that is clicked becomes the target's
        value."""
        thumbnails = gr.HTML(
            self.shown(garments),
            js_on_load=(HERE / "examples.js").read_text(encoding="utf-8"),
            apply_default_css=False,
            elem_id=elem_id,
            elem_classes="gallery",
        )
        thumbnails.pick(self.chosen, None, target, **AT_ONCE)
        return thumbnails

    def shown(self, garments: bool) -> str:
        """Write thumbnails with titles and licences, as HTML, of a clip's first frame. Photographs are numbered first,
        then garments."""
        if garments:
            return _thumbnails("Examples from the test split", self.garments, len(self.photos))
        return _thumbnails("Examples", self.photos, 0)

    def truth_of(self, path: str) -> tuple[Known, ...]:
        """Return what a picture is known to show: nothing, unless it is a copy of an example."""
        example = self._copied(path)
        return example.truth if example else ()

    def number_of(self, path: str, garments: bool) -> int | None:
        """Return the place of a copy of an example among those that are shown, from 1; ``None`` of other pictures."""
        example, shown = self._copied(path), self.fitting(garments)
        return shown.index(example) + 1 if example in shown else None

    def _copied(self, path: str) -> Example | None:
        named = (example for example in self.photos + self.garments if example.path.name == Path(path).name)
        return next((example for example in named if cmp(example.path, path, shallow=False)), None)

    def fitting(self, garments: bool) -> tuple[Example, ...]:
        """Return the examples that are shown, in their order."""
        return self.garments if garments else self.photos

    def chosen(self, event: gr.EventData) -> str:
        """Find the path of the example whose number the browser sent.

        Raises:
            gr.Error: there is no such example.
        """
        entries = self.photos + self.garments
        index = sent_by_browser(event).get("index")
        if not isinstance(index, int) or isinstance(index, bool) or not 0 <= index < len(entries):
            raise gr.Error("There is no such example.", print_exception=False)
        return str(entries[index].path)


def _thumbnails(heading: str, examples: Sequence[Example], first: int) -> str:
    if not examples:
        return ""
    items = "".join(
        f'<li><button type="button" data-index="{index}" title="{escape(_credit(example))}">'
        f'<img src="thumbnails/{example.path.stem}.jpg" alt="" width="80" height="80" loading="lazy">'
        f"<b>{escape(example.title)}</b></button></li>"
        for index, example in enumerate(examples, first)
    )
    return f'<h3>{escape(heading)}</h3><ul class="examples">{items}</ul>'


def _credit(example: Example) -> str:
    return f"{example.title}: {example.author}, {example.licence}"


def all_examples() -> tuple[Path, ...]:
    """List the files of all examples; the beginnings of their names differ."""
    return tuple(
        folder / name
        for folder in (EXAMPLES, GARMENTS)
        for name in json.loads((folder / "licences.json").read_text(encoding="utf-8"))
    )


@cache
def thumbnail(path: Path) -> bytes:
    """Return a small picture of an example, of a clip's first frame, as JPEG."""
    with _first_frame(path) if path.suffix == ".mp4" else Image.open(path) as image:
        small = ImageOps.fit(image.convert("RGB"), (THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


def _first_frame(path: Path) -> Image.Image:
    with av.open(str(path)) as container:
        return next(container.decode(video=0)).to_image()
