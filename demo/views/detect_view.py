"""The interactive picture of detected objects: what is sent to the browser, and the component that draws it there."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np

from demo.answers import DetectAnswer
from demo.export import jpeg_bytes
from demo.views.dense_view import TOKEN_STRIDE, dense_view
from demo.views.token_view import base64, region_layer
from stvit.detection.detections import mask_in_image
from stvit.draw.objects import object_colours


def detect_view() -> gr.HTML:
    """Make the component; threshold, classes and highlighting act in the browser, without a request."""
    return dense_view(
        "detections",
        "detect_view.html",
        "detect_view.js",
        shown="detected objects",
        empty="The objects that the detector finds appear here, with their boxes and masks.",
        hint="Point at an object, or focus the picture and use the arrow keys, to single it out.",
    )


def detect_payload(pixels: np.ndarray, result: DetectAnswer, note: str = "") -> dict[str, Any]:
    """Collect all that the browser needs; masks as 28 x 28 bytes each and token maps as one number for each image
    token, so that even a hundred objects and nine layers of 4200 tokens make less than 400 KB beside the picture.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown; it may be smaller than the source.
        result: boxes in source pixels.
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
        "objects": _objects(result) if some else [],
        "masks": base64(np.rint(found.mask_probabilities.numpy() * 255).astype(np.uint8).tobytes()) if some else "",
        "maskSide": found.mask_probabilities.shape[-1] if some else 0,
        "cells": [side / TOKEN_STRIDE for side in result.network_hw],
        "layers": [region_layer(regions) for regions in result.regions],
    }


def _objects(result: DetectAnswer) -> list[dict[str, Any]]:
    found = result.found
    masks = (
        mask_in_image(*mask_and_box, found.image_hw)[0]
        for mask_and_box in zip(found.mask_probabilities, found.boxes, strict=True)
    )
    colours = object_colours(found.labels.numpy())
    return [
        {
            "name": result.classes[label],
            "score": round(score, 4),
            "box": [round(side, 2) for side in box],
            "colour": colour,
            "covers": int(mask.sum()) / (found.image_hw[0] * found.image_hw[1]),
        }
        for label, score, box, colour, mask in zip(
            found.labels.tolist(),
            found.scores.tolist(),
            found.boxes.tolist(),
            colours.tolist(),
            masks,
            strict=True,
        )
    ]
