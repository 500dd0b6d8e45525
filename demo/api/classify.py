"""Named endpoints for scripts (``gradio_client``), one for each action of the page. They share its components, because
those check that a picture is an uploaded file and that a model is one of the choices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from demo.answers import ClassifyAnswer, StageTimes
from demo.api import segment as segment_api
from demo.api import video as video_api
from demo.benchmark import BadBatchSize, SameModel, check_batch_size
from demo.engine import SHORT_SIDES, BadSize
from demo.export import annotated_picture, classification_json, detection_json, race_json
from demo.memory import OutOfMemory
from demo.registry import ModelSpec, UnknownModel
from demo.runtime import DEVICE_QUEUE, Runtime
from demo.tabs.inputs import sent_picture
from stvit.predict.media import MediaError
from stvit.predict.regions import TokenRegions, last_region_layer

DESCRIPTIONS = {
    "models": (
        "The models on offer: name, label, method, size, setting, weights (null where none were published), licence, "
        "the papers' published figures, and of models that this project trained, those measured here. Names of the "
        "roles 'model' and 'baseline' go in for either; those of the role 'detector' go in for `detector`, and into "
        "/video; those of the role 'clip_model' into /video alone, of the role 'segmenter' into /segment."
    ),
    "classify": (
        "Top-5 ImageNet classes of any two models on one picture, the region of every semantic token or where image "
        "tokens were dropped, fused or merged, and where the time went (ms). Predictions are empty, and `weights` says "
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
}


class Endpoints:
    """The functions behind the endpoints; every fault of the caller becomes a ``gr.Error`` with the reason."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.registry = runtime.registry

    def models(self) -> list[dict[str, Any]]:
        classifiers = self.registry.of_task("classify")
        groups = {
            "model": [spec for spec in classifiers if not spec.method.full_tokens],
            "baseline": [spec for spec in classifiers if spec.method.full_tokens],
            "detector": self.registry.of_task("detect"),
            "segmenter": self.registry.of_task("segment"),
            "clip_model": self.registry.of_task("video"),
        }
        return [_described(spec, role) for role, group in groups.items() for spec in group]

    def classify(self, image: str | None, model: str, baseline: str) -> dict[str, Any]:
        run = self._run(image, model, baseline)
        decoding = run.picture.decode_ms, run.picture.preprocess_ms
        times = tuple(StageTimes(*decoding, result.model_ms, 0.0) for result in (run.model, run.baseline))
        return classification_json(run, times)

    def annotate(self, image: str | None, model: str, unit: int, layer: str, token: int) -> str:
        try:
            spec = self.registry.find(model, "classify")
            self.runtime.engine.store.get(spec)
            picture, result = self.runtime.classify_one(sent_picture(image), spec)
        except (MediaError, UnknownModel) as error:
            raise _refusal(str(error)) from error
        regions = _layer(spec, result, unit, layer)
        content = annotated_picture(picture.source.pixels, picture.prepared.geometry, regions, _token(regions, token))
        return save_bytes_to_cache(content, "tokens.jpg", get_upload_folder())

    def compare(self, image: str | None, model: str, baseline: str, batch_size: int) -> Iterator[dict[str, Any]]:
        try:
            pair = self._pair(model, baseline)
            for state in self.runtime.race_file(sent_picture(image), *pair, check_batch_size(batch_size)):
                yield race_json(state)
        except (MediaError, UnknownModel, BadBatchSize, SameModel) as error:
            raise _refusal(str(error)) from error

    def detect(self, image: str | None, detector: str, short_side: int) -> dict[str, Any]:
        try:
            spec = self.registry.find(detector, "detect")
            self.runtime.engine.store.get(spec)
            return detection_json(self.runtime.detect_file(sent_picture(image), spec, short_side))
        except (MediaError, UnknownModel, BadSize, OutOfMemory) as error:
            raise _refusal(str(error)) from error

    def compare_backbones(self, image: str | None, detector: str, short_side: int) -> Iterator[dict[str, Any]]:
        try:
            pair = self.registry.pair(self.registry.find(detector, "detect"))
            for state in self.runtime.race_backbones(sent_picture(image), *pair, short_side):
                yield race_json(state)
        except (MediaError, UnknownModel, BadSize, OutOfMemory) as error:
            raise _refusal(str(error)) from error

    def _run(self, image: str | None, model: str, baseline: str):
        try:
            pair = self._pair(model, baseline)
            for spec in pair:
                self.runtime.engine.store.get(spec)  # a first download is no part of the timed run
            return self.runtime.classify_file(sent_picture(image), *pair)
        except (MediaError, UnknownModel) as error:
            raise _refusal(str(error)) from error

    def _pair(self, model: object, baseline: object) -> tuple[ModelSpec, ModelSpec]:
        return self.registry.find(model, "classify"), self.registry.find(baseline, "classify")


def build(runtime: Runtime, picture: gr.Image, batch_size: gr.Dropdown) -> None:
    """Register the endpoints; call inside ``gr.Blocks``."""
    endpoints, registry = Endpoints(runtime), runtime.registry
    offered = [(spec.label, spec.name) for spec in registry.of_task("classify")]
    baselines = [spec for spec in registry.of_task("classify") if spec.method.full_tokens]
    model, baseline = (
        gr.Dropdown(offered, value=first.name, label=label, visible=False)
        for label, first in (("Model", registry.first("classify")), ("Baseline", baselines[0]))
    )
    detectors = [spec.name for spec in registry.of_task("detect")]
    pair = [picture, model, baseline]
    detecting = [
        picture,
        gr.Dropdown(detectors, value=detectors[0], label="Detector", visible=False),
        gr.Dropdown(list(SHORT_SIDES), value=SHORT_SIDES[0], label="Short side", visible=False),
    ]
    unit = gr.Number(0, label="Dumbbell unit", precision=0, visible=False)
    layer = gr.Textbox("STGM 2", label="Layer", visible=False)
    token = gr.Number(0, label="Token", precision=0, visible=False)
    answer = gr.JSON(visible=False)
    drawing = gr.Image(type="filepath", label="Annotated picture", visible=False)
    for name, inputs, output, queue in (
        ("models", [], answer, {}),
        ("classify", pair, answer, DEVICE_QUEUE),
        ("annotate", [picture, model, unit, layer, token], drawing, DEVICE_QUEUE),
        ("compare", [*pair, batch_size], answer, DEVICE_QUEUE),
        ("detect", detecting, answer, DEVICE_QUEUE),
        ("compare_backbones", detecting, answer, DEVICE_QUEUE),
    ):
        gr.Button(visible=False).click(
            getattr(endpoints, name), inputs, output, api_name=name, api_description=DESCRIPTIONS[name], **queue
        )
    segment_api.build(runtime, picture)
    video_api.build(runtime)


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


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
            raise _refusal("This model has no semantic tokens: give token 0 for what became of its image tokens.")
        return None
    tokens = regions.num_tokens
    if not isinstance(number, int) or not 0 <= number <= tokens:
        raise _refusal(f"There is no token {str(number)[:10]}: give 1 to {tokens}, or 0 for the regions of all.")
    return number - 1 if number else None


def _layer(spec: ModelSpec, result: ClassifyAnswer, unit: int, layer: str) -> TokenRegions:
    if not result.regions:
        raise _refusal(f"{spec.label} keeps all its image tokens: there is nothing to draw.")
    for entry in result.regions:
        if entry.unit == unit and entry.layer.lower() == layer.strip().lower():
            return entry
    if unit == 0:
        return last_region_layer(result.regions)
    known = ", ".join(f"{entry.unit} {entry.layer!r}" for entry in result.regions)
    raise _refusal(f"There is no layer {layer[:40]!r} in unit {str(unit)[:10]}. There are: {known}.")
