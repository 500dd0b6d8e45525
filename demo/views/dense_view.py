"""Show detected objects and labelled pixels: what is sent to the browser, and the components that draw it there."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import cv2
import gradio as gr
import numpy as np

from demo.answers import DetectAnswer, SegmentAnswer
from demo.export import jpeg_bytes
from demo.views.token_view import HERE, base64, region_layer, script, start_of, template
from stvit.detection.detections import mask_in_image
from stvit.draw.classes import label_colours, name_tags
from stvit.draw.objects import object_colours

SCRIPTS = ("view_parts.js", "dense_view.js")
TOKEN_STRIDE = 16  # network pixels between image tokens of stage 3


def dense_view(elem_id: str, controls: str, own_script: str, twin: bool, **words: str) -> gr.HTML:
    """Make the component of one kind of picture.

    Args:
        twin: whether it stands beside another one, without controls, and only while it shows something.
        controls: file of its own ones, which stand beside the picture while it shows no tokens.
        own_script: its own file of JavaScript, which comes after those that both share.
        words: ``shown``, what the picture is of; ``empty`` and ``hint``, sentences for before and after there is one.
    """
    return gr.HTML(
        html_template=template("dense_view.html", controls=(HERE / controls).read_text(encoding="utf-8"), **words),
        js_on_load=script(*SCRIPTS, own_script),
        apply_default_css=False,
        elem_id=f"{elem_id}-twin" if twin else elem_id,
        elem_classes="dense-twin" if twin else None,
    )


def detect_view(twin: bool = False) -> gr.HTML:
    """Make the component; threshold, classes and highlighting act in the browser, without a request."""
    return dense_view(
        "detections",
        "detect_view.html",
        "detect_view.js",
        twin,
        shown="detected objects",
        empty="The objects that the detector finds appear here, with their boxes and masks.",
        hint="Point at an object, or focus the picture and use the arrow keys, to single it out.",
    )


def detect_payload(
    pixels: np.ndarray,
    result: DetectAnswer,
    note: str = "",
    title: str = "",
    file: str = "picture",
) -> dict[str, Any]:
    """Collect all that the browser needs; masks as 28 x 28 bytes each and token maps as one number for each image
    token, so that even a hundred objects and nine layers of 4200 tokens make less than 400 KB beside the picture.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown; it may be smaller than the source.
        result: boxes in source pixels.
        note: shown beneath the picture.
        title: of the picture, for who hears it: the model's name.
        file: beginning of the names of files that a visitor makes of it.
    """
    found = result.found
    some = found is not None
    return {
        "image": f"data:image/jpeg;base64,{base64(jpeg_bytes(pixels))}",
        "size": list(pixels.shape[:2]),
        "source": list(found.image_hw if some else pixels.shape[:2]),
        "note": note,
        "title": title,
        "file": file,
        "reason": "" if some else f"No weights, so nothing is detected: {result.weights}",
        "objects": _objects(result) if some else [],
        "masks": base64(np.rint(found.mask_probabilities.numpy() * 255).astype(np.uint8).tobytes()) if some else "",
        "maskSide": found.mask_probabilities.shape[-1] if some else 0,
        "cells": [side / TOKEN_STRIDE for side in result.network_hw],
        "untrained": not some,
        "start": start_of(result.regions),
        "layers": [region_layer(regions) for regions in result.regions],
    }


def _objects(result: DetectAnswer) -> list[dict[str, Any]]:
    found = result.found
    masks = (
        mask_in_image(*mask_and_box, found.image_hw)[0]
        for mask_and_box in zip(found.mask_probabilities, found.boxes, strict=True)
    )
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
            object_colours(found.labels.numpy()).tolist(),
            masks,
            strict=True,
        )
    ]


def segment_view(twin: bool = False) -> gr.HTML:
    """Make the component; opacity and highlighting act in the browser, without a request."""
    return dense_view(
        "segmentation",
        "segment_view.html",
        "segment_view.js",
        twin,
        shown="labelled pixels",
        empty="The picture appears here with a colour for the class of every pixel.",
        hint="Point at the picture or at a class, or focus the picture and use the arrow keys, to single a class out.",
    )


def segment_payload(
    pixels: np.ndarray, result: SegmentAnswer, note: str = "", title: str = "", file: str = "picture"
) -> dict[str, Any]:
    """Collect all that the browser needs; the map of classes as runs of equal pixels in raster order.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown; it may be smaller than the source.
        result: labels of source pixels.
        note, title, file: as of ``detect_payload``.
    """
    some = result.labels is not None
    return {
        "image": f"data:image/jpeg;base64,{base64(jpeg_bytes(pixels))}",
        "size": list(pixels.shape[:2]),
        "note": note,
        "title": title,
        "file": file,
        "reason": "" if some else f"No weights, so nothing is labelled: {result.weights}",
        "cells": [side / TOKEN_STRIDE for side in result.network_hw],
        "untrained": not some,
        "start": start_of(result.regions),
        "layers": [region_layer(regions) for regions in result.regions],
        **(_classes(result, pixels.shape[:2]) if some else {"classes": [], "starts": "", "labels": "", "tags": []}),
    }


def _classes(result: SegmentAnswer, shown_hw: tuple[int, int]) -> dict[str, Any]:
    colours = label_colours(len(result.classes)).tolist()
    shown = cv2.resize(result.labels, shown_hw[::-1], interpolation=cv2.INTER_NEAREST).ravel()
    starts = np.concatenate([[0], np.flatnonzero(np.diff(shown)) + 1])
    return {
        "classes": [{**asdict(area), "colour": colours[area.label]} for area in result.areas()],
        "starts": base64(starts.astype("<i4").tobytes()),
        "labels": base64(shown[starts].tobytes()),
        "tags": [asdict(tag) for tag in name_tags(result.labels)],
    }
