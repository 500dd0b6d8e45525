"""Named endpoints for scripts (``gradio_client``) and tools for MCP, one for each action on pictures."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import gradio as gr

from demo.answers import ClassifyAnswer, StageTimes
from demo.api import architectures as architectures_api
from demo.api import video as video_api
from demo.api.inputs import check_weights, engine_name, number, offered_batch, text, uploaded
from demo.api.results import Classification, Comparison, Detection, Model, Segmentation, result
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
from demo.file_names import file_stem
from demo.page.gradio_private import PictureUpload, kept_file
from demo.predictors import SHORT_SIDES
from demo.registry import ModelSpec
from demo.runtime import API_QUEUE, COMPARISON_QUEUE, Runtime
from stvit.draw.classes import label_colours
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
        "Top-5 classes of any two models on one picture, the region of every semantic token or where image "
        "tokens were dropped, fused or merged (of those of number -1, `fate` says what became of them), and where the "
        "time went (ms). `in_scope` is false where the picture seems to show none of the classes that a garment model "
        "knows: its predictions are no answer then. `scope_score` is below 0 there; null of models that cannot tell."
    ),
    "annotate": (
        "The picture with what one layer did to its tokens drawn on it (JPEG): the regions of all semantic tokens, or "
        "where one of them looks."
    ),
    "compare": (
        "Interleaved measurement of any two models on one picture: latency at batch 1, throughput at the batch "
        "size, multiply-adds, parameters, peak device memory. Yields what is known so far; the last value is complete."
    ),
    "detect": (
        "Objects in one picture, of COCO's 80 classes or ten garments: name, score (0.05 and more), box (XYXY, source "
        "pixels), mask (COCO run lengths); the region of every semantic token; where the time went (ms)."
    ),
    "compare_backbones": (
        "Interleaved measurement of a detector's backbone and the full-token Swin backbone of its size on one picture: "
        "latency, multiply-adds, parameters, peak device memory. Yields what is known so far; the last is complete."
    ),
    "segment": (
        "The class of every pixel of one picture: ten kinds of garments and background. Returns the names of the "
        "classes in the order of their numbers, the pixels and the share (0 to 1) of those present, the region of "
        "every semantic token and where the time went (ms); the map of classes at the picture's own size (PNG with a "
        "palette, its pixel values are the numbers); and the annotated picture (JPEG)."
    ),
    "compare_segmenters": (
        "Interleaved measurement of a segmenter and its counterpart (semantic tokens, all image tokens) as wholes on "
        "one picture: latency, multiply-adds, parameters, peak device memory. Yields what is known so far; the last "
        "is complete."
    ),
}

Document = dict[str, Any]


class Endpoints:
    """The functions behind the endpoints.

    Args:
        batch_sizes: that a comparison may have.
    """

    def __init__(self, runtime: Runtime, batch_sizes: Sequence[int]) -> None:
        self.runtime, self.registry, self.batch_sizes = runtime, runtime.registry, batch_sizes

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
    def classify(self, image: str | None, model: str, baseline: str, engine: str) -> Document:
        """Classify a picture with two models.

        Args:
            image: The picture.
            model: Name of a model; /models lists them.
            baseline: Name of the model beside it; empty for its full-token counterpart.
            engine: What runs both models: auto (the fastest), eager, or another at hand, such as openvino.
        """
        run = self.runtime.classify_file(_sent(image), *self._answering(*self._pair(model, baseline)), engine)
        decoding = run.picture.decode_ms, run.picture.preprocess_ms
        times = tuple(StageTimes(*decoding, result.model_ms, 0.0) for result in (run.model, run.baseline))
        return classification_json(run, times)

    @told
    def annotate(self, image: str | None, model: str, unit: int, layer: str, token: int, engine: str) -> str:
        """Draw what a layer did to the tokens.

        Args:
            image: The picture.
            model: Name of a classifier; /models lists them.
            unit: Dumbbell unit of STViT-R, 1 to 3; 0 for models without units, and for the last layer.
            layer: For instance STGM 1, STGM 2, Recovery or Layer 7.
            token: Number of the semantic token whose attention is drawn, from 1; 0 for the regions of all.
            engine: What runs the model: auto (the fastest), eager, or another at hand, such as openvino.
        """
        (spec,) = self._answering(self.registry.find(model, "classify"))
        picture, result = self.runtime.classify_one(_sent(image), spec, engine)
        regions = _layer(spec, result, unit, layer)
        content = annotated_picture(picture.source.pixels, picture.prepared.geometry, regions, _token(regions, token))
        return kept_file(f"{file_stem([spec], 'classify tokens')}.jpg", content)

    @told
    def compare(self, image: str | None, model: str, baseline: str, batch_size: int, engine: str) -> Iterator[Document]:
        """Measure two models in turns.

        Args:
            image: The picture.
            model: Name of a model; /models lists them.
            baseline: Name of the model beside it; empty for its full-token counterpart.
            batch_size: Pictures of a batch where throughput is measured.
            engine: What runs both models: auto (the fastest), eager, or another at hand, such as openvino.
        """
        offered_batch(batch_size, self.batch_sizes)
        pair = self._pair(model, baseline)
        yield from map(benchmark_json, self.runtime.benchmark_classifiers(_sent(image), *pair, batch_size, engine))

    @told
    def detect(self, image: str | None, detector: str, short_side: int, engine: str) -> Document:
        """Find objects in a picture.

        Args:
            image: The picture.
            detector: Name of a detector; /models lists them.
            short_side: At most so many pixels has the shorter side of the network's input: 800, 640, 480 or 320.
            engine: What runs the model: auto (the fastest), eager, or another at hand, such as openvino.
        """
        (spec,) = self._answering(self.registry.find(detector, "detect"))
        return detection_json(self.runtime.detect_file(_sent(image), spec, short_side, engine))

    @told
    def compare_backbones(self, image: str | None, detector: str, short_side: int, engine: str) -> Iterator[Document]:
        """Measure a detector's backbone beside its full-token one.

        Args:
            image: The picture.
            detector: Name of a detector; /models lists them.
            short_side: At most so many pixels has the shorter side of the network's input: 800, 640, 480 or 320.
            engine: What runs both models: auto (the fastest), eager, or another at hand, such as openvino.
        """
        pair = self.registry.pair(self.registry.find(detector, "detect"))
        yield from map(benchmark_json, self.runtime.benchmark_backbones(_sent(image), *pair, short_side, engine))

    @told
    def segment(self, image: str | None, segmenter: str, engine: str) -> tuple[Document, str, str]:
        """Find the class of every pixel: the answer, the map of classes, and the annotated picture.

        Args:
            image: The picture.
            segmenter: Name of a segmenter; /models lists them.
            engine: What runs the model: auto (the fastest), eager, or another at hand, such as openvino.
        """
        (spec,) = self._answering(self.registry.find(segmenter, "segment"))
        run = self.runtime.segment_file(_sent(image), spec, engine)
        labels, classes = run.result.labels, run.result.classes
        indexed = indexed_png(labels, label_colours(len(classes)))
        drawn = classes_picture(run.source.pixels, labels, classes)
        stem = file_stem([spec], "segment")
        files = kept_file(f"{stem}-labels.png", indexed), kept_file(f"{stem}-classes.jpg", drawn)
        return segmentation_json(run), *files

    @told
    def compare_segmenters(self, image: str | None, segmenter: str, engine: str) -> Iterator[Document]:
        """Measure a segmenter and its full-token counterpart.

        Args:
            image: The picture.
            segmenter: Name of a segmenter; /models lists them.
            engine: What runs both models: auto (the fastest), eager, or another at hand, such as openvino.
        """
        pair = self.registry.pair(self.registry.find(segmenter, "segment"))
        yield from map(benchmark_json, self.runtime.benchmark_segmenters(_sent(image), *pair, engine))

    def _pair(self, model: str, baseline: str) -> tuple[ModelSpec, ModelSpec]:
        chosen = self.registry.find(model, "classify")
        return (chosen, self.registry.find(baseline, "classify")) if baseline else self.registry.pair(chosen)

    def _answering(self, *specs: ModelSpec) -> Sequence[ModelSpec]:
        return check_weights(self.runtime, specs)


def build(runtime: Runtime, batch_sizes: Sequence[int]) -> None:
    """Register the endpoints; call inside ``gr.Blocks``."""
    endpoints, registry = Endpoints(runtime, batch_sizes), runtime.registry
    picture = PictureUpload(type="filepath", label="Picture", visible=False)
    model = text("Model", registry.first("classify").name)
    pair, engine = [picture, model, text("Baseline", "")], engine_name(runtime)
    detecting = [picture, text("Detector", registry.first("detect").name), number("Short side", SHORT_SIDES[0]), engine]
    layer = [number("Dumbbell unit", 0), text("Layer", "STGM 2"), number("Token", 0)]
    comparison = result(Comparison, "comparison")
    drawing = gr.Image(type="filepath", label="picture", visible=False)
    _register(endpoints, "models", [], result(list[Model], "models"))
    _register(endpoints, "classify", [*pair, engine], result(Classification, "classification"), **API_QUEUE)
    _register(endpoints, "annotate", [picture, model, *layer, engine], drawing, **API_QUEUE)
    _register(
        endpoints, "compare", [*pair, number("Batch size", batch_sizes[0]), engine], comparison, **COMPARISON_QUEUE
    )
    _register(endpoints, "detect", detecting, result(Detection, "detection"), **API_QUEUE)
    _register(endpoints, "compare_backbones", detecting, comparison, **COMPARISON_QUEUE)
    if registry.of_task("segment"):
        segmenting = [picture, text("Segmenter", registry.first("segment").name), engine]
        files = [gr.File(label=label, visible=False) for label in ("label_map", "picture")]
        _register(endpoints, "segment", segmenting, [result(Segmentation, "segmentation"), *files], **API_QUEUE)
        _register(endpoints, "compare_segmenters", segmenting, comparison, **COMPARISON_QUEUE)
    architectures_api.build(runtime, batch_sizes)
    video_api.build(runtime)


def _register(endpoints: Endpoints, name: str, inputs: list, outputs: Any, **queue: Any) -> None:
    function = getattr(endpoints, name)
    if not inspect.isgeneratorfunction(function):  # long jobs wait for the device in no lane
        function = in_lane(SCRIPTS)(function)
    gr.Button(visible=False).click(
        function, inputs, outputs, api_name=name, api_description=DESCRIPTIONS[name], **queue
    )


def _sent(image: str | None) -> str:
    return uploaded(image, "a picture", "image")


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
        "weights": _source(spec),
        "no_weights": spec.no_weights,
        "licence": licence,
        "published": dict(spec.published),
        "measured": dict(bundled.metrics) if bundled else {},
    }


def _source(spec: ModelSpec) -> str | None:
    if spec.bundled:
        return "bundled with this page"
    if spec.folder and spec.has_weights:
        return "in a folder of this server"
    return spec.record and spec.record.source_url


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
