"""Named endpoints for scripts (``gradio_client``), one for each action of the page. They share its components, because
those check that a picture is an uploaded file and that a model is one of the choices."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import gradio as gr
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder

from demo.export import annotated_picture, classification_json, final_regions, race_json
from demo.media import MediaError
from demo.race import BadBatchSize, check_batch_size
from demo.roster import BASELINES, MODELS, UnknownModel, find, published_figures
from demo.types import ClusterMap, StageTimes
from demo.ui.runtime import DEVICE_QUEUE, Runtime
from weights import CATALOGUE

DESCRIPTIONS = {
    "models": "The models and baselines on offer: name, label, weights, licence, and the paper's published figures.",
    "classify": (
        "Top-5 ImageNet classes of a model and a baseline on one picture, the region of every semantic token, and "
        "where the time went (ms). Predictions are empty, and `weights` says why, when weights cannot be had."
    ),
    "annotate": (
        "The picture with the regions of the semantic tokens drawn on it (JPEG), for one dumbbell unit (1 to 3) and "
        "layer ('STGM 1', 'STGM 2', 'Recovery'); unit 0 stands for the last STGM layer. A token number (from 1, in "
        "raster order) draws where that token looks instead; 0 draws the regions."
    ),
    "compare": (
        "Interleaved measurement of a model and a baseline on one picture: latency at batch 1, throughput at the batch "
        "size, multiply-adds, parameters, peak device memory. Yields what is known so far; the last value is complete."
    ),
}


class Endpoints:
    """The functions behind the endpoints; every fault of the caller becomes a ``gr.Error`` with the reason."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime

    @staticmethod
    def models() -> list[dict[str, Any]]:
        return [
            _described(choice, role) for role, group in (("model", MODELS), ("baseline", BASELINES)) for choice in group
        ]

    def classify(self, image: str | None, model: str, baseline: str) -> dict[str, Any]:
        run = self._run(image, model, baseline)
        decoding = run.picture.decode_ms, run.picture.preprocess_ms
        times = tuple(StageTimes(*decoding, result.model_ms, 0.0) for result in (run.model, run.baseline))
        return classification_json(run, times)

    def annotate(self, image: str | None, model: str, unit: int, layer: str, token: int) -> str:
        try:
            find(model, MODELS)
            self.runtime.engine.store.get(model)
            picture, result = self.runtime.classify_one(_given(image), model)
        except (MediaError, UnknownModel) as error:
            raise _refusal(str(error)) from error
        regions = _layer(result.clusters, unit, layer)
        content = annotated_picture(picture.source.pixels, picture.geometry, regions, _token(regions, token))
        return save_bytes_to_cache(content, "tokens.jpg", get_upload_folder())

    def compare(self, image: str | None, model: str, baseline: str, batch_size: int) -> Iterator[dict[str, Any]]:
        try:
            names = find(model, MODELS).name, find(baseline, BASELINES).name
            for state in self.runtime.race_file(_given(image), *names, check_batch_size(batch_size)):
                yield race_json(state)
        except (MediaError, UnknownModel, BadBatchSize) as error:
            raise _refusal(str(error)) from error

    def _run(self, image: str | None, model: str, baseline: str):
        try:
            names = find(model, MODELS).name, find(baseline, BASELINES).name
            for name in names:
                self.runtime.engine.store.get(name)  # a first download is no part of the timed run
            return self.runtime.classify_file(_given(image), *names)
        except (MediaError, UnknownModel) as error:
            raise _refusal(str(error)) from error


def build(
    runtime: Runtime, picture: gr.Image, model: gr.Dropdown, baseline: gr.Dropdown, batch_size: gr.Dropdown
) -> None:
    """Register the endpoints; call inside ``gr.Blocks``."""
    endpoints = Endpoints(runtime)
    pair = [picture, model, baseline]
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
    ):
        gr.Button(visible=False).click(
            getattr(endpoints, name), inputs, output, api_name=name, api_description=DESCRIPTIONS[name], **queue
        )


def _refusal(message: str) -> gr.Error:
    return gr.Error(message, print_exception=False)


def _described(choice, role: str) -> dict[str, Any]:
    record = CATALOGUE[choice.name]
    return {
        "name": choice.name,
        "label": choice.label,
        "about": choice.about,
        "role": role,
        "weights": record.source_url,
        "licence": record.licence,
        "published": published_figures(choice.name),
    }


def _given(image: str | None) -> str:
    if image is None:
        raise _refusal("Send a picture: the parameter `image` is empty.")
    return image


def _token(regions: ClusterMap, number: int) -> int | None:
    tokens = len(regions.attention)
    if not isinstance(number, int) or not 0 <= number <= tokens:
        raise _refusal(f"There is no token {str(number)[:10]}: give 1 to {tokens}, or 0 for the regions of all.")
    return number - 1 if number else None


def _layer(clusters: tuple[ClusterMap, ...], unit: int, layer: str) -> ClusterMap:
    if unit == 0:
        return final_regions(clusters)
    for entry in clusters:
        if entry.unit == unit and entry.layer.lower() == layer.strip().lower():
            return entry
    known = ", ".join(f"{entry.unit} {entry.layer!r}" for entry in clusters)
    raise _refusal(f"There is no layer {layer[:40]!r} in unit {str(unit)[:10]}. There are: {known}.")
