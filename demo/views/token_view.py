"""The interactive picture of tokens: what is sent to the browser, and the component that draws it there."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Sequence
from pathlib import Path
from string import Template
from typing import Any

import gradio as gr
import numpy as np

from demo.export import jpeg_bytes
from stvit.draw.palette import GLOW, OPACITY
from stvit.draw.regions import region_colours
from stvit.predict.preprocess import InputGeometry
from stvit.predict.regions import DROPPED, TokenRegions, most_coherent

HERE = Path(__file__).resolve().parent
SCRIPTS = (
    "view_parts.js",
    "token_surfaces.js",
    "token_drawing.js",
    "token_crops.js",
    "token_merging.js",
    "token_view.js",
)
TALLEST = "clamp(260px, 75vh, 620px)"  # as in view_parts.js
CROP = (
    '<li aria-hidden="true"><div class="tv-crop"><canvas width="132" height="132"></canvas>'
    "<span>&nbsp;</span></div></li>"
)
TERMS = {
    "stgm": "{} in the paper, semantic token generation module: each token gathers squares of the picture by attention",
    "recovery": "Recovery module in the paper: every square takes back what the tokens have worked out",
}


def cluster_view(payload: dict[str, Any] | None = None) -> gr.HTML:
    """Make the component; it draws in the browser, so that every choice acts at once, without a request.

    Args:
        payload: shown at first, see :func:`cluster_payload`; it may come from a file.
    """
    return gr.HTML(
        payload,
        html_template=template("token_view.html", **_room(payload)),
        js_on_load=f"const GLOW = {list(GLOW)};\n{script(*SCRIPTS)}",
        apply_default_css=False,
        elem_id="clusters",
    )


def _room(payload: dict[str, Any] | None) -> dict[str, str]:
    """What stands in the component before its script runs, as large as what comes: nothing moves then."""
    if payload is None:
        return {"state": "", "shape": "", "crops": "", "unseen": "hidden"}
    height, width = payload["size"]
    layer = payload["layers"][payload["start"]]
    assignment = np.frombuffer(b64decode(layer["assignment"]), "<i2")
    squares = np.bincount(assignment[assignment != DROPPED], minlength=layer["tokens"])
    semantic = "attention" in layer
    return {
        "state": "filled",
        "shape": f"aspect-ratio: {width} / {height}; width: min(100%, {width / height:.4f} * {TALLEST})",
        "crops": CROP * int((squares >= (1 if semantic else 2)).sum()),
        "unseen": "" if semantic and not squares.all() else "hidden",
    }


def template(name: str, **values: str) -> str:
    """Read a file of HTML beside this one; ``$opacity`` becomes the opacity of everything drawn, in percent."""
    frame = Template((HERE / name).read_text(encoding="utf-8"))
    return frame.substitute(opacity=round(100 * OPACITY), **values)


def script(*parts: str) -> str:
    """Join files of JavaScript beside this one to one script: a component takes a single text."""
    return "\n".join((HERE / part).read_text(encoding="utf-8") for part in parts)


def cluster_payload(
    pixels: np.ndarray,
    geometry: InputGeometry,
    maps: Sequence[TokenRegions],
    title: str,
    note: str = "",
    untrained: bool = False,
    file: str = "tokens",
) -> dict[str, Any] | None:
    """Collect all that the browser needs to draw every unit and layer; ``None`` when a model keeps all its tokens.

    The result is plain JSON, so it can be stored and shown later:

    - ``image``: address of the picture, here a ``data:`` URL; ``size``: its height and width in pixels.
    - ``crop``: left, top, right, bottom of what the model saw, in pixels of the picture, as real numbers; the grid of
      image tokens divides it evenly.
    - ``title``, ``note``, ``untrained``, ``file``: as given.
    - ``start``: index of the layer that is shown first, the most coherent one.
    - ``layers``, in order of execution. Of each:

      - ``unit``: 1-based, 0 where the network has none; ``name``: in the paper; ``stage``: in words; ``term``: explains
        the paper's name, or is empty; ``kind``: as of :class:`TokenRegions`.
      - ``imageGrid``, ``semanticGrid``: rows and columns; ``tokens``: that the layer puts out.
      - ``assignment``: base64 of int16, little-endian, one for each image token in raster order: the number of the
        token that stands for it, or -1 where ``fate`` says what became of it.
      - ``colours``: base64 of three bytes, RGB, for each token.
      - ``attention``: base64 of one byte for each token and image token, from 0 for the token's ``weakest`` attention
        to 255 for its ``strongest``. Only of layers that make semantic tokens.
      - ``fate``, only of layers that reduce image tokens; the view's tokens are the image tokens then.

    Args:
        pixels: (H, W, 3) uint8 RGB, the picture as it is shown.
        geometry: belonging to ``pixels``.
        title: the model's label.
        note: shown beneath the picture, e.g. that the weights are random.
        untrained: whether the weights are random; the regions are greyed and labelled then.
        file: beginning of the names of files that a visitor makes of it.
    """
    if not maps:
        return None
    return {
        "image": f"data:image/jpeg;base64,{base64(jpeg_bytes(pixels))}",
        "size": list(pixels.shape[:2]),
        "crop": list(geometry.input_xyxy),
        "title": title,
        "note": note,
        "untrained": untrained,
        "file": file,
        "start": start_of(maps),
        "layers": [_reduction(entry) if entry.reduces else _semantic(entry) for entry in maps],
    }


def start_of(maps: Sequence[TokenRegions]) -> int:
    """Index of the layer that is shown first; 0 of none."""
    shown = most_coherent(maps)
    return next((index for index, regions in enumerate(maps) if regions is shown), 0)


def region_layer(regions: TokenRegions) -> dict[str, Any]:
    """Collect the regions of one layer, without attention: fields as in :func:`cluster_payload`."""
    return {
        "unit": regions.unit,
        "name": regions.layer,
        "stage": regions.layer.replace("STGM", "Grouping"),
        "term": TERMS.get(regions.kind, "").format(regions.layer),
        "kind": regions.kind,
        "semanticGrid": list(regions.semantic_grid_hw or regions.image_grid_hw),
        "imageGrid": list(regions.image_grid_hw),
        "tokens": regions.num_tokens,
        "assignment": base64(regions.assignment.astype("<i2").tobytes()),
        "colours": base64(region_colours(regions).tobytes()),
    }


def _semantic(clusters: TokenRegions) -> dict[str, Any]:
    weakest, strongest = (pick(clusters.attention, axis=(1, 2)) for pick in (np.min, np.max))
    spread = np.where(strongest > weakest, strongest - weakest, 1)
    levels = np.rint((clusters.attention - weakest[:, None, None]) * 255 / spread[:, None, None])
    return {
        **region_layer(clusters),
        "attention": base64(levels.astype(np.uint8).tobytes()),
        "weakest": [float(f"{value:.8g}") for value in weakest],
        "strongest": [float(f"{value:.8g}") for value in strongest],
    }


def _reduction(reduction: TokenRegions) -> dict[str, Any]:
    return {**region_layer(reduction), "fate": reduction.fate}


def base64(data: bytes) -> str:
    """Write bytes as text."""
    return b64encode(data).decode("ascii")
