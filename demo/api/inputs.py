"""What goes into the endpoints: names and numbers as plain values, files as uploads, models with weights."""

from __future__ import annotations

from collections.abc import Sequence

import gradio as gr

from demo.registry import ModelSpec
from demo.runtime import Runtime
from stvit.errors import UserError


def text(label: str, value: str) -> gr.Textbox:
    """Make a parameter that takes a text, by default ``value``."""
    return gr.Textbox(value, label=label, visible=False)


def number(label: str, value: int) -> gr.Number:
    """Make a parameter that takes an integer, by default ``value``."""
    return gr.Number(value, label=label, precision=0, visible=False)


def engine_name(runtime: Runtime) -> gr.Textbox:
    """Make the parameter that takes the name of an engine, by default the server's own."""
    return text("Engine", runtime.predictors.engine)


def offered_batch(batch_size: int, offered: Sequence[int]) -> int:
    """Return a batch size.

    Raises:
        UserError: it is not offered.
    """
    if batch_size not in offered:
        raise UserError(f"A batch of {batch_size} is not offered here. Choose one of {', '.join(map(str, offered))}.")
    return batch_size


def uploaded(path: str | None, what: str, parameter: str) -> str:
    """Return the path of an uploaded file.

    Raises:
        UserError: none was sent.
    """
    if path is None:
        raise UserError(f"Send {what}: the parameter `{parameter}` is empty.")
    return path


def check_weights(runtime: Runtime, specs: Sequence[ModelSpec]) -> Sequence[ModelSpec]:
    """Load models, so that a first download is no part of a timed run; returns them.

    Raises:
        UserError: one of them has no weights, so that it would predict nothing.
    """
    for spec in specs:
        loaded = runtime.predictors.model_cache.get(spec, retry=True)
        if loaded.problem:
            next_step = loaded.next_step if spec.has_weights else "/models says which models have weights."
            raise UserError(f"{spec.label} predicts nothing. {loaded.problem}", next_step)
    return specs
