"""The endpoints for segmentation: the same runs as the Segment tab's, as plain values and files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from demo.export import classes_picture, indexed_png, race_json, segmentation_json
from demo.memory import OutOfMemory
from demo.registry import UnknownModel
from demo.runtime import DEVICE_QUEUE, Runtime
from demo.tabs.inputs import sent_picture
from stvit.draw.classes import class_colours
from stvit.predict.media import MediaError

SEGMENT = (
    "The class of every pixel of one picture: ten kinds of garments and background. Returns the names of the classes "
    "in the order of their numbers, the pixels and the share (0 to 1) of those present, the region of every semantic "
    "token and where the time went (ms); the map of classes at the picture's own size (PNG with a palette, its pixel "
    "values are the numbers); and the annotated picture (JPEG). Without weights there are no files, `present` is null, "
    "and `weights` says why."
)
COMPARE = (
    "Interleaved measurement of a segmenter and its counterpart (semantic tokens, all image tokens) as wholes on one "
    "picture: latency, multiply-adds, parameters, peak device memory. Yields what is known so far; the last is "
    "complete."
)
Answer = tuple[dict[str, Any], str | None, str | None]


class SegmentEndpoints:
    """The functions behind the endpoints; every fault of the caller becomes a ``gr.Error`` with the reason."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.registry = runtime.registry

    def segment(self, image: str | None, segmenter: str) -> Answer:
        """What a segmenter says about a picture, the map of classes, and the annotated picture."""
        try:
            spec = self.registry.find(segmenter, "segment")
            self.runtime.engine.store.get(spec)
            run = self.runtime.segment_file(sent_picture(image), spec)
        except (MediaError, UnknownModel, OutOfMemory) as error:
            raise gr.Error(str(error), print_exception=False) from error
        labels, classes = run.result.labels, run.result.classes
        if labels is None:
            return segmentation_json(run), None, None
        files = {
            "labels.png": indexed_png(labels, class_colours(len(classes))),
            "classes.jpg": classes_picture(run.source.pixels, labels, classes),
        }
        paths = (save_bytes_to_cache(content, name, get_upload_folder()) for name, content in files.items())
        return segmentation_json(run), *paths

    def compare_segmenters(self, image: str | None, segmenter: str) -> Iterator[dict[str, Any]]:
        """A segmenter and its peer, measured in turns."""
        try:
            pair = self.registry.pair(self.registry.find(segmenter, "segment"))
            for state in self.runtime.race_segmenters(sent_picture(image), *pair):
                yield race_json(state)
        except (MediaError, UnknownModel, OutOfMemory) as error:
            raise gr.Error(str(error), print_exception=False) from error


def build(runtime: Runtime, picture: gr.Image) -> None:
    """Register the endpoints, where there are segmenters; call inside ``gr.Blocks``."""
    names = [spec.name for spec in runtime.registry.of_task("segment")]
    if not names:
        return
    endpoints = SegmentEndpoints(runtime)
    inputs = [picture, gr.Dropdown(names, value=names[0], label="Segmenter", visible=False)]
    files = [gr.File(label=label, visible=False) for label in ("Map of classes", "Annotated picture")]
    answer = gr.JSON(label="Answer", visible=False)
    for name, description, outputs in (
        ("segment", SEGMENT, [answer, *files]),
        ("compare_segmenters", COMPARE, answer),
    ):
        run = getattr(endpoints, name)
        gr.Button(visible=False).click(run, inputs, outputs, api_name=name, api_description=description, **DEVICE_QUEUE)
