"""Check what the browser sends to the Segment tab, run it, and turn the result into what the tab shows."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import gradio as gr
import numpy as np
from PIL import Image

from demo.benchmark import BenchmarkState
from demo.charts import dense as charts
from demo.charts.bars import notice
from demo.charts.found import found_classes
from demo.errors import told
from demo.export import classes_picture, for_display, indexed_png
from demo.file_names import file_stem
from demo.page.about import about
from demo.page.gradio_private import kept_file
from demo.predictors import SegmentRun
from demo.registry import ModelSpec
from demo.tabs.image_tab import RANDOM_WEIGHTS_NOTE, ImageHandlers
from demo.tabs.parts import Fields, weights_notice
from demo.views.dense_view import segment_payload
from stvit.draw.classes import label_colours
from stvit.predict.media import read_image


@dataclass(frozen=True)
class Kept:
    """What the downloads of one run are made of: the paths of the picture and of its map of classes (PNG), which is
    held as a file because it is as large as the picture, the names of the classes, and the beginning of the names of
    the files."""

    path: str
    labels_path: str
    classes: Sequence[str]
    file: str


class SegmentHandlers(ImageHandlers):
    """The event handlers of one page."""

    choose_first = "Choose a picture first: both segmenters are measured on it."

    def models(self, segmenter: str) -> tuple[ModelSpec, ...]:
        return self.with_twin(self.registry.find(segmenter, "segment"))

    def pair(self, segmenter: str) -> tuple[ModelSpec, ModelSpec]:
        return self.registry.pair(self.models(segmenter)[0])

    def run_file(self, engine: str | None, path: str, segmenter: str) -> list[SegmentRun]:
        return [self.runtime.segment_file(path, spec, engine) for spec in self.models(segmenter)]

    def measure(self, engine: str | None, path: str, segmenter: str) -> Iterator[BenchmarkState]:
        return self.runtime.benchmark_segmenters(path, *self.pair(segmenter), engine)

    def chart(self, state: BenchmarkState) -> str:
        return charts.segmenters(state)

    def weights_notice(self, specs: Sequence[ModelSpec]) -> str:
        return weights_notice(self.model_cache, specs, "classes", "")

    @told
    def introduce(self, segmenter: str) -> Fields:
        """The card of a segmenter."""
        return {"about": about(self.models(segmenter)[:1])}

    def cleared(self, message: str = "") -> Fields:
        return {
            "notice": message,
            "segmentation": None,
            "twin": None,
            "answers": "",
            "steps": "",
            "save_picture": gr.Button(interactive=False),
            "save_labels": gr.Button(interactive=False),
            "kept": None,
        }

    def shown(self, path: str, runs: Sequence[SegmentRun], specs: Sequence[ModelSpec]) -> Fields:
        start = time.perf_counter()
        run, titles = runs[0], [spec.label for spec in specs]
        files = [file_stem([spec], "segment") for spec in specs]
        result, labelled, pixels = run.result, run.result.labels is not None, for_display(run.source.pixels)
        payload = segment_payload(pixels, result, "" if labelled else RANDOM_WEIGHTS_NOTE, titles[0], files[0])
        kept = None
        if labelled:
            labels = indexed_png(result.labels, label_colours(len(result.classes)))
            kept = Kept(path, kept_file(f"{files[0]}-labels.png", labels), result.classes, files[0])
        draw_ms = (time.perf_counter() - start) * 1e3
        timed = replace(result, times=replace(result.times, draw_ms=draw_ms))
        twin = [
            segment_payload(pixels, other.result, "", titles[1], files[1])
            for other in runs[1:]
            if other.result.labels is not None
        ]
        results, truth = [each.result for each in runs], self.gallery.truth_of(path)
        return {
            "notice": self.weights_notice(specs) + _run_notices(run),
            "segmentation": payload,
            "twin": next(iter(twin), None),
            "answers": found_classes(specs, results, truth, "garment"),
            "steps": charts.segmentation_steps(specs[0], timed),
            "save_picture": gr.Button(interactive=labelled),
            "save_labels": gr.Button(interactive=labelled),
            "kept": kept,
        }

    @staticmethod
    @told
    def picture_file(kept: Kept) -> str:
        """The picture with its classes on it, as JPEG."""
        with Image.open(kept.labels_path) as labels:
            drawn = classes_picture(read_image(kept.path).pixels, np.array(labels), kept.classes)
        return kept_file(f"{kept.file}-classes.jpg", drawn)

    @staticmethod
    def labels_file(kept: Kept) -> str:
        """The map of classes as PNG with a palette."""
        return kept.labels_path


def _run_notices(run: SegmentRun) -> str:
    """What a visitor should know about how a picture was read and labelled."""
    notices, longest = notice(run.source.note), max(run.source.pixels.shape[:2])
    if run.result.labelled_side < longest:
        notices += notice(
            f"The device had not enough memory for a map of {longest} pixels: classes were found in one of "
            f"{run.result.labelled_side}, so their edges are coarser.",
            "warning",
        )
    return notices
