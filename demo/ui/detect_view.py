"""The interactive picture of detected objects: what is sent to the browser, and the component that draws it there."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np

from demo.drawing import object_colours
from demo.export import jpeg_bytes
from demo.overlay import token_colours
from demo.types import DetectionResult, RegionMap
from demo.ui.cluster_view import HERE, base64, script

DENSE_PARTS = ("view_parts.js", "dense_tokens.js", "dense_view.js")  # of the scripts of all views of dense models
TOKEN_STRIDE = 16  # network pixels between image tokens of stage 3


def detect_view() -> gr.HTML:
    """The component; threshold, classes and highlighting act in the browser, without a request."""
    return gr.HTML(
        html_template=(HERE / "detect_view.html").read_text(encoding="utf-8"),
        js_on_load=script(*DENSE_PARTS, "detect_drawing.js", "detect_view.js"),
        apply_default_css=False,
        elem_id="detections",
    )


def detect_payload(pixels: np.ndarray, result: DetectionResult, areas: Sequence[int], note: str = "") -> dict[str, Any]:
    """All that the browser needs; masks as 28 x 28 bytes each and token maps as one number for each image token, so
    that even a hundred objects and nine layers of 4200 tokens make less than 400 KB beside the picture.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown; it may be smaller than the source.
        result: boxes in source pixels.
        areas: of each object's mask, in source pixels.
        note: shown beneath the picture.
    """
    found = result.found
    some = found is not None
    return {
        "image": f"data:image/jpeg;base64,{base64(jpeg_bytes(pixels))}",
        "size": list(pixels.shape[:2]),
        "source": list(found.image_hw if some else pixels.shape[:2]),
        "note": note,
        "reason": "" if some else f"No weights, so nothing is detected: {result.weights}",
        "objects": _objects(result, areas) if some else [],
        "masks": base64(np.rint(found.mask_probabilities.numpy() * 255).astype(np.uint8).tobytes()) if some else "",
        "maskSide": found.mask_probabilities.shape[-1] if some else 0,
        "cells": [side / TOKEN_STRIDE for side in result.network_hw],
        "layers": [region_layer(regions) for regions in result.regions],
    }


def _objects(result: DetectionResult, areas: Sequence[int]) -> list[dict[str, Any]]:
    found = result.found
    colours = object_colours(found.labels.numpy())
    return [
        {
            "name": result.classes[label],
            "score": round(score, 4),
            "box": [round(side, 2) for side in box],
            "colour": colour,
            "covers": area / (found.image_hw[0] * found.image_hw[1]),
        }
        for label, score, box, colour, area in zip(
            found.labels.tolist(),
            found.scores.tolist(),
            found.boxes.tolist(),
            colours.tolist(),
            areas,
            strict=True,
        )
    ]


def region_layer(regions: RegionMap) -> dict[str, Any]:
    """The regions of one layer's tokens: one number for each image token, and the tokens' colours."""
    return {
        "unit": regions.unit,
        "name": regions.layer,
        "semanticGrid": list(regions.semantic_grid_hw),
        "imageGrid": list(regions.image_grid_hw),
        "assignment": base64(regions.assignment.astype("<i2").tobytes()),
        "colours": base64(token_colours(regions.num_tokens, regions.semantic_grid_hw[1]).tobytes()),
    }
