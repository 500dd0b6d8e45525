"""The frame that the interactive pictures of objects and of labelled pixels share."""

from __future__ import annotations

from string import Template

import gradio as gr

from demo.views.token_view import HERE, script

SCRIPTS = ("view_parts.js", "dense_view.js")
TOKEN_STRIDE = 16  # network pixels between image tokens of stage 3


def dense_view(elem_id: str, controls: str, own_script: str, **words: str) -> gr.HTML:
    """Make the component of one kind of picture.

    Args:
        controls: file of its own ones, which stand beside the picture while it shows no tokens.
        own_script: its own file of JavaScript, which comes after those that both share.
        words: ``shown``, what the picture is of; ``empty`` and ``hint``, sentences for before and after there is one.
    """
    frame = Template((HERE / "dense_view.html").read_text(encoding="utf-8"))
    return gr.HTML(
        html_template=frame.substitute(controls=(HERE / controls).read_text(encoding="utf-8"), **words),
        js_on_load=script(*SCRIPTS, own_script),
        apply_default_css=False,
        elem_id=elem_id,
    )
