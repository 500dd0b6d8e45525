"""Named endpoints for scripts (``gradio_client``), one for each action on pictures. They share the page's components,
because those check that a picture is an uploaded file and that a model is one of the choices."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from demo.answers import ClassifyAnswer, StageTimes
from demo.api import video as video_api
from demo.errors import told
from demo.export import (
    annotated_picture,
    benchmark_json,
    classes_picture,
    classification_json,
    detection_json,
    indexed_png,
    segmentation_json,
)
from demo.page.gradio_private import kept_file
from demo.predictors import SHORT_SIDES
from demo.registry import ModelSpec, Task
from demo.runtime import API_QUEUE, COMPARISON_QUEUE, Runtime
from stvit.draw.classes import class_colours
from stvit.errors import UserError
from stvit.predict.regions import TokenRegions, last_region_layer
from stvit.predict.turns import SCRIPTS, in_lane

DESCRIPTIONS = {
    "models": (
        "The models on offer: name, label, method, size, setting, weights (null where none were published), licence, "
        "the papers' published figures, and of models that this project trained, those measured here. Names of the "
        "roles 'model' and 'baseline' go in for either; those of the role 'detector' go in for `detector`, and into "
        "/video; those of the role 'clip_model' into /video alone, of the role 'segmenter' into /segment."
    ),
    "classify": (
        "Top-5 ImageNet classes of any two models on one picture, the region of every semantic token or where image "
        "tokens were dropped, fused or merged (of those of number -1, `fate` says what became of them), and where the "
        "time went (ms). Predictions are empty, and `weights` says "
        "why, when weights cannot be had."
    ),
    "annotate": (
        "The picture with what one layer did to its tokens drawn on it (JPEG). STViT-R: a dumbbell unit (1 to 3) and "
        "layer ('STGM 1', 'STGM 2', 'Recovery'). Models without units: unit 0 and a layer ('STGM 1', 'Layer 7'). Unit "
        "0 without such a layer stands for the last. A token number (from 1, in raster order) draws where that "
        "semantic token looks instead; 0 draws the regions."
    ),
    "compare": (
        "Interleaved measurement of any two models on one picture: latency at batch 1, throughput at the batch "
        "size, multiply-adds, parameters, peak device memory. Yields what is known so far; the last value is complete."
    ),
    "detect": (
        "Objects of COCO's 80 classes in one picture: name, score (0.05 and more), box (XYXY, source pixels), mask "
        "(COCO run lengths); the region of every semantic token; where the time went (ms). `short_side` bounds the "
        "shorter side of the network's input. `objects` is null, and `weights` says why, when weights cannot be had."
    ),
    "compare_backbones": (
        "Interleaved measurement of a detector's backbone and the full-token Swin backbone of its size on one picture: "
        "latency, multiply-adds, parameters, peak device memory. Yields what is known so far; the last is complete."
    ),
    "segment": (
        "The class of every pixel of one picture: ten kinds of garments and background. Returns the names of the "
        "classes in the order of their numbers, the pixels and the share (0 to 1) of those present, the region of "
        "every semantic token and where the time went (ms); the map of classes at the picture's own size (PNG with a "
        "palette, its pixel values are the numbers); and the annotated picture (JPEG). Without weights there are no "
        "files, `present` is null, and `weights` says why."
    ),
    "compare_segmenters": (
        "Interleaved measurement of a segmenter and its counterpart (semantic tokens, all image tokens) as wholes on "
        "one picture: latency, multiply-adds, parameters, peak device memory. Yields what is known so far; the last "
        "is complete."
    ),
}

Document = dict[str, Any]


class Endpoints:
    """The functions behind the endpoints."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime, self.registry = runtime, runtime.registry

    def models(self) -> list[Document]:
        classifiers = self.registry.of_task("classify")
        groups = {
            "model": [spec for spec in classifiers if not spec.method.full_tokens],
            "baseline": [spec for spec in classifiers if spec.method.full_tokens],
            "detector": self.registry.of_task("detect"),
            "segmenter": self.registry.of_task("segment"),
            "clip_model": self.registry.of_task("video"),
        }
        return [_described(spec, role) for role, group in groups.items() for spec in group]

    @told
    def classify(self, image: str | None, model: str, baseline: str) -> Document:
        run = self.runtime.classify_file(_sent(image), *self._loaded("classify", model, baseline))
        decoding = run.picture.decode_ms, run.picture.preprocess_ms
        times = tuple(StageTimes(*decoding, result.model_ms, 0.0) for result in (run.model, run.baseline))
        return classification_json(run, times)

    @told
    def annotate(self, image: str | None, model: str, unit: int, layer: str, token: int) -> str:
        (spec,) = self._loaded("classify", model)
        picture, result = self.runtime.classify_one(_sent(image), spec)
        regions = _layer(spec, result, unit, layer)
        content = annotated_picture(picture.source.pixels, picture.prepared.geometry, regions, _token(regions, token))
        return kept_file("tokens.jpg", content)

    @told
    def compare(self, image: str | None, model: str, baseline: str, batch_size: int) -> Iterator[Document]:
        pair = (self.registry.find(name, "classify") for name in (model, baseline))
        yield from map(benchmark_json, self.runtime.benchmark_classifiers(_sent(image), *pair, batch_size))

    @told
    def detect(self, image: str | None, detector: str, short_side: int) -> Document:
        return detection_json(self.runtime.detect_file(_sent(image), *self._loaded("detect", detector), short_side))

    @told
    def compare_backbones(self, image: str | None, detector: str, short_side: int) -> Iterator[Document]:
        pair = self.registry.pair(self.registry.find(detector, "detect"))
        yield from map(benchmark_json, self.runtime.benchmark_backbones(_sent(image), *pair, short_side))

    @told
    def segment(self, image: str | None, segmenter: str) -> tuple[Document, str | None, str | None]:
        """Return the answer of a segmenter, the map of classes, and the annotated picture."""
        run = self.runtime.segment_file(_sent(image), *self._loaded("segment", segmenter))
        labels, classes = run.result.labels, run.result.classes
        if labels is None:
            return segmentation_json(run), None, None
        indexed = indexed_png(labels, class_colours(len(classes)))
        drawn = classes_picture(run.source.pixels, labels, classes)
        return segmentation_json(run), kept_file("labels.png", indexed), kept_file("classes.jpg", drawn)

    @told
    def compare_segmenters(self, image: str | None, segmenter: str) -> Iterator[Document]:
        pair = self.registry.pair(self.registry.find(segmenter, "segment"))
        yield from map(benchmark_json, self.runtime.benchmark_segmenters(_sent(image), *pair))

    def _loaded(self, task: Task, *names: object) -> list[ModelSpec]:
        """Load models by name: a first download is no part of a timed run."""
        specs = [self.registry.find(name, task) for name in names]
        for spec in specs:
            self.runtime.predictors.model_cache.get(spec)
        return specs


def build(runtime: Runtime, picture: gr.Image, batch_size: gr.Dropdown) -> None:
    """Register the endpoints; call inside ``gr.Blocks``."""
    endpoints, registry = Endpoints(runtime), runtime.registry
    classifiers = [(spec.label, spec.name) for spec in registry.of_task("classify")]
    first = registry.first("classify").name
    baseline = next(spec.name for spec in registry.of_task("classify") if spec.method.full_tokens)
    model = _choice(classifiers, "Model", first)
    pair = [picture, model, _choice(classifiers, "Baseline", baseline)]
    detecting = [
        picture,
        _choice([spec.name for spec in registry.of_task("detect")], "Detector"),
        _choice(SHORT_SIDES, "Short side"),
    ]
    layer = [
        gr.Number(0, label="Dumbbell unit", precision=0, visible=False),
        gr.Textbox("STGM 2", label="Layer", visible=False),
        gr.Number(0, label="Token", precision=0, visible=False),
    ]
    answer = gr.JSON(visible=False)
    drawing = gr.Image(type="filepath", label="Annotated picture", visible=False)
    _register(endpoints, "models", [], answer)
    _register(endpoints, "classify", pair, answer, **API_QUEUE)
    _register(endpoints, "annotate", [picture, model, *layer], drawing, **API_QUEUE)
    _register(endpoints, "compare", [*pair, batch_size], answer, **COMPARISON_QUEUE)
    _register(endpoints, "detect", detecting, answer, **API_QUEUE)
    _register(endpoints, "compare_backbones", detecting, answer, **COMPARISON_QUEUE)
    if segmenters := [spec.name for spec in registry.of_task("segment")]:
        segmenting = [picture, _choice(segmenters, "Segmenter")]
        files = [gr.File(label=label, visible=False) for label in ("Map of classes", "Annotated picture")]
        _register(endpoints, "segment", segmenting, [gr.JSON(label="Answer", visible=False), *files], **API_QUEUE)
        _register(endpoints, "compare_segmenters", segmenting, answer, **COMPARISON_QUEUE)
    video_api.build(runtime)


def _choice(choices: Sequence[Any], label: str, value: str | None = None) -> gr.Dropdown:
    return gr.Dropdown(list(choices), value=value or choices[0], label=label, visible=False)


def _register(endpoints: Endpoints, name: str, inputs: list, outputs: Any, **queue: Any) -> None:
    function = getattr(endpoints, name)
    if not inspect.isgeneratorfunction(function):  # long jobs wait for the device in no lane
        function = in_lane(SCRIPTS)(function)
    gr.Button(visible=False).click(
        function, inputs, outputs, api_name=name, api_description=DESCRIPTIONS[name], **queue
    )


def _sent(image: str | None) -> str:
    if image is None:
        raise UserError("Send a picture: the parameter `image` is empty.")
    return image


def _described(spec: ModelSpec, role: str) -> dict[str, Any]:
    published, bundled = spec.record, spec.bundled
    licence = bundled.licence if bundled else published and published.license
    return {
        "name": spec.name,
        "label": spec.label,
        "about": spec.about,
        "role": role,
        "method": spec.method.name,
        "size": spec.size,
        "setting": spec.setting,
        "weights": "bundled with this page" if bundled else published and published.source_url,
        "no_weights": spec.no_weights,
        "licence": licence,
        "published": dict(spec.published),
        "measured": dict(bundled.metrics) if bundled else {},
    }


def _token(regions: TokenRegions, number: int) -> int | None:
    if regions.reduces:
        if number != 0:
            raise UserError("This model has no semantic tokens: give token 0 for what became of its image tokens.")
        return None
    tokens = regions.num_tokens
    if not isinstance(number, int) or not 0 <= number <= tokens:
        raise UserError(f"There is no token {str(number)[:10]}: give 1 to {tokens}, or 0 for the regions of all.")
    return number - 1 if number else None


def _layer(spec: ModelSpec, result: ClassifyAnswer, unit: int, layer: str) -> TokenRegions:
    if not result.regions:
        raise UserError(f"{spec.label} keeps all its image tokens: there is nothing to draw.")
    for entry in result.regions:
        if entry.unit == unit and entry.layer.lower() == layer.strip().lower():
            return entry
    if unit == 0:
        return last_region_layer(result.regions)
    known = ", ".join(f"{entry.unit} {entry.layer!r}" for entry in result.regions)
    raise UserError(f"There is no layer {layer[:40]!r} in unit {str(unit)[:10]}. There are: {known}.")
