"""The interactive picture of labelled pixels: what is sent to the browser, and the component that draws it there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cv2
import gradio as gr
import numpy as np

from demo.answers import SegmentAnswer
from demo.export import jpeg_bytes
from demo.views.dense_view import TOKEN_STRIDE, dense_view
from demo.views.token_view import base64, region_layer
from stvit.draw.classes import class_colours, name_tags


def segment_view() -> gr.HTML:
    """Make the component; opacity and highlighting act in the browser, without a request."""
    return dense_view(
        "segmentation",
        "segment_view.html",
        "segment_view.js",
        shown="labelled pixels",
        empty="The picture appears here with a colour for the class of every pixel.",
        hint="Point at the picture or at a class, or focus the picture and use the arrow keys, to single a class out.",
    )


def segment_payload(pixels: np.ndarray, result: SegmentAnswer, note: str = "") -> dict[str, Any]:
    """Collect all that the browser needs; the map of classes as runs of equal pixels in raster order.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown; it may be smaller than the source.
        result: labels of source pixels.
        note: shown beneath the picture.
    """
    some = result.labels is not None
    return {
        "image": f"data:image/jpeg;base64,{base64(jpeg_bytes(pixels))}",
        "size": list(pixels.shape[:2]),
        "note": note,
        "reason": "" if some else f"No weights, so nothing is labelled: {result.weights}",
        "cells": [side / TOKEN_STRIDE for side in result.network_hw],
        "layers": [region_layer(regions) for regions in result.regions],
        **(_classes(result, pixels.shape[:2]) if some else {"classes": [], "starts": "", "labels": "", "tags": []}),
    }


def _classes(result: SegmentAnswer, shown_hw: tuple[int, int]) -> dict[str, Any]:
    colours = class_colours(len(result.classes)).tolist()
    shown = cv2.resize(result.labels, shown_hw[::-1], interpolation=cv2.INTER_NEAREST).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(shown)) + 1])
    return {
        "classes": [{**asdict(area), "colour": colours[area.label]} for area in result.areas()],
        "starts": base64(starts.astype("<i4").tobytes()),
        "labels": base64(shown[starts].tobytes()),
        "tags": [asdict(tag) for tag in name_tags(result.labels)],
    }
