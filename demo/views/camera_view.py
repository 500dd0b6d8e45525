"""The picture of a live camera: the component that sends frames to the server and shows what comes back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gradio as gr

from demo.views.token_view import HERE, script


def camera_view(answer: Callable[[object], dict[str, Any]]) -> gr.HTML:
    """Make the component; ``answer`` turns each frame that it sends into a drawn one, or a reason why there is none."""

    def camera_frame(sent: dict) -> dict[str, Any]:
        return answer(sent)

    return gr.HTML(
        html_template=(HERE / "camera_view.html").read_text(encoding="utf-8"),
        css_template=(HERE / "camera_view.css").read_text(encoding="utf-8"),
        js_on_load=script("view_parts.js", "camera_view.js"),
        server_functions=[camera_frame],
        apply_default_css=False,
        elem_id="camera",
    )
