"""The interactive picture of token regions: what is sent to the browser, and the component that draws it there."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np

from demo.export import jpeg_bytes
from stvit.draw.regions import region_colours
from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import TokenRegions

HERE = Path(__file__).resolve().parent


def cluster_view() -> gr.HTML:
    """Make the component; it draws in the browser, so that every choice acts at once, without a request."""
    return gr.HTML(
        html_template=(HERE / "token_view.html").read_text(encoding="utf-8"),
        js_on_load=script("view_parts.js", "token_view.js"),
        apply_default_css=False,
        elem_id="clusters",
    )


def script(*parts: str) -> str:
    """Join files of JavaScript beside this one to one script: a component takes a single text."""
    return "\n".join((HERE / part).read_text(encoding="utf-8") for part in parts)


def cluster_payload(
    pixels: np.ndarray,
    geometry: InputGeometry,
    maps: Sequence[TokenRegions],
    title: str,
    note: str = "",
) -> dict[str, Any] | None:
    """Collect all that the browser needs to draw every unit and layer; ``None`` when a model keeps all its tokens.

    The crop that the model saw is given by its edges in pixels of ``pixels``, as real numbers; the token grid divides
    it evenly. Maps are bytes in base64: for each token its attention, scaled to its own maximum, which goes along.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown.
        geometry: belonging to ``pixels``.
        title: the model's label.
        note: shown beneath the picture, e.g. that the weights are random.
    """
    if not maps:
        return None
    side_h, side_w = geometry.input_hw
    (left, top), (right, bottom) = geometry.to_source(np.array([[0.0, 0.0], [side_w, side_h]])).tolist()
    return {
        "image": f"data:image/jpeg;base64,{base64(jpeg_bytes(pixels))}",
        "size": list(pixels.shape[:2]),
        "crop": [left, top, right, bottom],
        "title": title,
        "note": note,
        "layers": [_reduction(entry) if entry.reduces else _layer(entry) for entry in maps],
    }


def _layer(clusters: TokenRegions) -> dict[str, Any]:
    strongest = clusters.attention.max(axis=(1, 2))
    scale = 255.0 / np.maximum(strongest, np.finfo(np.float32).tiny)
    return {
        **region_layer(clusters),
        "attention": base64(np.rint(clusters.attention * scale[:, None, None]).astype(np.uint8).tobytes()),
        "strongest": [round(float(value), 5) for value in strongest],
    }


def region_layer(regions: TokenRegions) -> dict[str, Any]:
    """The regions of one layer's tokens: one number for each image token, and the tokens' colours."""
    return {
        "unit": regions.unit,
        "name": regions.layer,
        "semanticGrid": list(regions.semantic_grid_hw),
        "imageGrid": list(regions.image_grid_hw),
        "assignment": base64(regions.assignment.astype("<i2").tobytes()),
        "colours": base64(region_colours(regions).tobytes()),
    }


def _reduction(reduction: TokenRegions) -> dict[str, Any]:
    """As for clusters, but for attention; the view's tokens are the image tokens, and -1 stands for the fate."""
    return {
        "reduction": reduction.kind,
        "fate": reduction.fate,
        "unit": reduction.unit,
        "name": reduction.layer,
        "semanticGrid": list(reduction.image_grid_hw),
        "imageGrid": list(reduction.image_grid_hw),
        "assignment": base64(reduction.assignment.astype("<i2").tobytes()),
        "attention": "",
        "strongest": [],
        "tokens": reduction.num_tokens,
        "colours": base64(region_colours(reduction).tobytes()),
    }


def base64(data: bytes) -> str:
    """Write bytes as text."""
    return b64encode(data).decode("ascii")
