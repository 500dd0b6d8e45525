"""What the interactive pictures of objects and of labelled pixels share: their frame, and the token regions."""

from __future__ import annotations

from collections.abc import Sequence
from string import Template
from typing import Any

import gradio as gr

from demo.overlay import token_colours
from demo.types import RegionMap
from demo.ui.cluster_view import HERE, base64, script

SCRIPTS = ("view_parts.js", "dense_tokens.js", "dense_view.js")
TOKEN_STRIDE = 16  # network pixels between image tokens of stage 3


def dense_view(elem_id: str, controls: str, scripts: Sequence[str], **words: str) -> gr.HTML:
    """The component of one kind of picture.

    Args:
        controls: file of its own ones, which stand beside the picture while it shows no tokens.
        scripts: its own files of JavaScript, which come after those that both share.
        words: ``shown``, what the picture is of; ``empty`` and ``hint``, sentences for before and after there is one.
    """
    frame = Template((HERE / "dense_view.html").read_text(encoding="utf-8"))
    return gr.HTML(
        html_template=frame.substitute(controls=(HERE / controls).read_text(encoding="utf-8"), **words),
        js_on_load=script(*SCRIPTS, *scripts),
        apply_default_css=False,
        elem_id=elem_id,
    )


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
