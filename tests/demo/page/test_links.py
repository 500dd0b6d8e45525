"""Addresses that open a tab with a model and an example; what they cannot set is named and left alone."""

from __future__ import annotations

import gradio as gr
import pytest

from demo.page.examples import Gallery
from demo.page.links import LinkTarget, in_one_list, open_link
from demo.registry import Registry
from tests.narrow_models import DETECTOR

TABS = ("classify", "detect", "video")
MODELS, PICTURE = gr.Dropdown(render=False), gr.Image(render=False)


@pytest.fixture(scope="module")
def targets() -> dict[str, LinkTarget]:
    return {"detect": LinkTarget("detect", [MODELS], in_one_list, PICTURE, Gallery.load("scene"))}


def test_an_address_opens_a_tab_with_a_model_and_an_example(garments: Registry, targets: dict[str, LinkTarget]) -> None:
    query = {"tab": "detect", "model": "garments_detect_stvit_r", "example": "2", "__theme": "dark"}
    tab, updates, refused = open_link(garments, TABS, targets, query)
    assert tab == "detect" and updates[MODELS].value == "garments_detect_stvit_r" and not refused
    assert updates[PICTURE] == str(targets["detect"].gallery.garments[1].path)
    _, updates, _ = open_link(garments, TABS, targets, {"tab": "detect", "model": DETECTOR, "example": "1"})
    assert updates[PICTURE] == str(targets["detect"].gallery.photos[0].path)
    for nothing in ({}, {"tab": "", "model": "", "example": ""}):
        assert open_link(garments, TABS, targets, nothing) == (None, {}, [])


@pytest.mark.parametrize(
    ("query", "refused"),
    [
        ({"tab": "<b>"}, "no tab “<b>”"),
        ({"tab": "detect", "model": "resnet50"}, "no model “resnet50”"),
        ({"tab": "detect", "model": "swin_small_patch4_window7_224"}, "no model"),
        ({"tab": "detect", "example": "0"}, "no example “0”"),
        ({"tab": "detect", "example": "../app.py"}, "no example"),
        ({"tab": "detect", "example": "9" * 400}, "no example"),
        ({"tab": "video", "example": "1"}, "neither model nor example"),
    ],
)
def test_what_is_unknown_is_named_and_sets_nothing(
    garments: Registry, targets: dict[str, LinkTarget], query: dict[str, str], refused: str
) -> None:
    _, updates, words = open_link(garments, TABS, targets, query)
    assert updates == {} and len(words) == 1 and words[0].startswith(refused) and len(words[0]) < 120
