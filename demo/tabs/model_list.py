"""A list that leads to a model."""

from __future__ import annotations

import gradio as gr


class RosterList(gr.Dropdown):
    """A list whose value the handlers check against the roster.

    Gradio would check it against the choices of the moment. Where one list follows another, or a run had to wait its
    turn, those are no longer the choices that the value was taken from.
    """

    is_template = True  # to the browser, the dropdown that it is

    def preprocess(self, payload: str | None) -> str | None:
        """The value as the browser sent it."""
        return payload
