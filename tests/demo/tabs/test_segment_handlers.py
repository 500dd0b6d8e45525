"""What the Segment tab shows, and how it answers what it cannot do."""

from __future__ import annotations

import json
from base64 import b64decode
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import cv2
import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image

import demo.benchmark
import demo.dense_benchmark
import demo.model_cache
import stvit.predict.segmenter
from demo.model_cache import OutOfMemory
from demo.model_specs import build_registry
from demo.page import layout
from demo.page.examples import Gallery
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.tabs.segment.handlers import SegmentHandlers
from stvit.draw.classes import label_colours
from stvit.pretrained.hub import WeightsUnavailable
from tests.demo.conftest import MODEL
from tests.sure_detector import PHOTO

GALLERY = Gallery.load("scene")
SCENE = str(GALLERY.garments[0].path)
OURS, FULL = "garments_segment_stvit_r", "garments_segment_swin"


@pytest.fixture
def handlers(garments: Registry) -> SegmentHandlers:
    return SegmentHandlers(Runtime(Predictors(torch.device("cpu")), garments), GALLERY)


def map_of(payload: dict[str, Any]) -> np.ndarray:
    """The map of classes as the browser unpacks it."""
    starts, labels = np.frombuffer(b64decode(payload["starts"]), "<i4"), b64decode(payload["labels"])
    height, width = payload["size"]
    runs = np.diff([*starts, height * width])
    return np.repeat(np.frombuffer(labels, np.uint8), runs).reshape(height, width)


@pytest.mark.parametrize("path", [SCENE, str(PHOTO)])
def test_the_browser_gets_the_map_the_classes_and_the_regions_of_the_result(
    handlers: SegmentHandlers, path: str
) -> None:
    run = handlers.runtime.segment_file(path, handlers.registry.find(OURS))
    shown = handlers.run(None, path, OURS)
    notice, payload, steps = shown["notice"], shown["segmentation"], shown["steps"]
    assert notice == "" and payload["reason"] == payload["note"] == ""
    np.testing.assert_array_equal(map_of(payload), run.result.labels)
    shares = {entry["name"]: entry["share"] for entry in payload["classes"]}
    assert sum(shares.values()) == pytest.approx(1)
    colours = label_colours(11)
    for entry in payload["classes"]:
        assert entry["share"] == pytest.approx((run.result.labels == entry["label"]).mean())
        assert entry["colour"] == colours[entry["label"]].tolist()
    assert len(payload["layers"]) == 3 and payload["cells"] == [side / 16 for side in run.result.network_hw]
    assert {tag["label"] for tag in payload["tags"]} <= {entry["label"] for entry in payload["classes"]} - {0}
    for step in ("decode", "prepare", "backbone + head", "labels", "drawing"):
        assert f"<span>{step}</span>" in steps
    assert run.result.device in steps


def test_both_files_have_the_pictures_own_size(handlers: SegmentHandlers) -> None:
    kept = handlers.run(None, str(PHOTO), FULL)["kept"]
    with Image.open(handlers.picture_file(kept)) as drawn, Image.open(handlers.labels_file(kept)) as indexed:
        assert drawn.size == indexed.size == (900, 675)
        assert (drawn.format, indexed.format, indexed.mode) == ("JPEG", "PNG", "P")
        expected = handlers.runtime.segment_file(str(PHOTO), handlers.registry.find(FULL)).result.labels
        np.testing.assert_array_equal(np.array(indexed), expected)
        names = [Path(file.filename).name for file in (drawn, indexed)]
    assert names == [f"swin-narrow-segment-{what}" for what in ("classes.jpg", "labels.png")]


def test_a_large_picture_is_shown_smaller_and_little_is_sent(handlers: SegmentHandlers, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "large.jpg"), cv2.resize(cv2.imread(str(PHOTO)), (2700, 2025)))
    shown = handlers.run(None, str(tmp_path / "large.jpg"), OURS)
    payload = shown["segmentation"]
    assert payload["size"] == [960, 1280] and map_of(payload).shape == (960, 1280)
    assert len(json.dumps({key: value for key, value in payload.items() if key != "image"})) < 400_000
    with Image.open(handlers.labels_file(shown["kept"])) as indexed:
        assert indexed.size == (2700, 2025)


def test_of_a_model_with_all_tokens_there_are_no_layers_to_show(handlers: SegmentHandlers) -> None:
    shown = handlers.run(None, SCENE, FULL)
    payload, steps = shown["segmentation"], shown["steps"]
    assert payload["layers"] == [] and payload["classes"] and "once more" not in steps


def test_without_weights_random_classes_are_never_shown(
    handlers: SegmentHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    unavailable = Mock(side_effect=WeightsUnavailable("damaged", "Its file is damaged.", "Install the page anew."))
    monkeypatch.setattr(demo.model_cache, "resolve_card", unavailable)
    notice = list(handlers.load(SCENE, OURS))[-1]["notice"]
    assert "No classes from STViT-R-Swin, narrow and Swin, narrow: Its file is damaged." in notice
    shown = handlers.run(None, SCENE, OURS)
    assert (
        shown["notice"] == notice and shown["segmentation"]["classes"] == [] and shown["segmentation"]["starts"] == ""
    )
    assert shown["segmentation"]["reason"].endswith("Its file is damaged.")
    assert len(shown["segmentation"]["layers"]) == 3 and "Random weights" in shown["segmentation"]["note"]
    assert not shown["save_picture"].interactive and not shown["save_labels"].interactive


def test_a_coarser_map_than_the_picture_is_said(handlers: SegmentHandlers, monkeypatch: pytest.MonkeyPatch) -> None:
    make = stvit.predict.segmenter.label_map

    def make_if_it_fits(scores: torch.Tensor, hw: tuple[int, int]) -> torch.Tensor:
        if max(hw) > 600:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte.")
        return make(scores, hw)

    monkeypatch.setattr(stvit.predict.segmenter, "label_map", make_if_it_fits)
    notice = handlers.run(None, str(PHOTO), OURS)["notice"]
    assert "not enough memory for a map of 900 pixels: classes were found in one of 512" in notice


def test_no_memory_at_all_is_a_message_and_no_crash(handlers: SegmentHandlers) -> None:
    handlers.runtime.segment_file = Mock(side_effect=OutOfMemory("The device is full."))
    handlers.runtime.benchmark_segmenters = Mock(side_effect=OutOfMemory("The device is full."))
    shown = handlers.run(None, SCENE, OURS)
    assert "The device is full." in shown["notice"] and shown["segmentation"] is None
    assert "The device is full." in next(handlers.compare(None, SCENE, OURS))["benchmark"]


def test_a_file_that_is_no_picture_gets_its_message(handlers: SegmentHandlers, tmp_path: Path) -> None:
    (tmp_path / "words.jpg").write_text("these are words")
    shown = handlers.run(None, str(tmp_path / "words.jpg"), OURS)
    assert "not an image" in shown["notice"] and shown["segmentation"] is None
    assert not shown["save_picture"].interactive


@pytest.mark.parametrize("segmenter", [MODEL, "garments_detect_stvit_r", None, ["x"]])
def test_what_is_not_on_offer_is_refused(handlers: SegmentHandlers, segmenter: Any) -> None:
    for handler in (handlers.run, lambda *given: list(handlers.compare(*given))):
        with pytest.raises(gr.Error, match="is not offered"):
            handler(None, SCENE, segmenter)


def test_without_a_picture_there_is_nothing_to_show_or_compare(handlers: SegmentHandlers) -> None:
    assert list(handlers.load(None, OURS)) == list(handlers.load_pair(None, OURS)) == [{"notice": ""}]
    assert handlers.run(None, None, OURS)["segmentation"] is None
    (fields,) = handlers.compare(None, None, OURS)
    assert "Choose a picture first" in fields["benchmark"] and fields["benchmark_state"] is None


@pytest.mark.parametrize(("segmenter", "peer"), [(OURS, FULL), (FULL, OURS)])
def test_segmenters_are_measured_against_each_other(
    handlers: SegmentHandlers, monkeypatch: pytest.MonkeyPatch, segmenter: str, peer: str
) -> None:
    monkeypatch.setattr(demo.dense_benchmark, "DENSE", demo.benchmark.Limits(1e-6, 1e-6))
    assert list(handlers.load_pair(SCENE, segmenter))[-1] == {"notice": ""}
    chart, state = list(handlers.compare(None, SCENE, segmenter))[-1].values()
    assert (state.model.spec.name, state.baseline.spec.name) == (segmenter, peer) and state.done
    assert "Segmenter multiply-adds" in chart
    assert ("Fewer multiply-adds" if segmenter == OURS else "More multiply-adds") in chart


def test_a_segmenter_without_its_counterpart_cannot_be_compared(handlers: SegmentHandlers) -> None:
    handlers.registry = Registry([handlers.registry.find(OURS)])
    with pytest.raises(gr.Error, match="nothing to compare"):
        list(handlers.load_pair(SCENE, OURS))


def test_a_segmenter_is_introduced_with_data_metrics_and_command(handlers: SegmentHandlers) -> None:
    words = handlers.introduce(OURS)["about"]
    for expected in (
        "61.5 % mIoU, 93.2 % pixel accuracy",
        "On the test split",
        "background, t-shirt",
        "seed 0",
        "python -m stvit.training segment --recipe garments_segment_stvit_r",
    ):
        assert expected in words


def labels_of_tabs(page: gr.Blocks) -> list[str]:
    return [block.label for block in page.blocks.values() if isinstance(block, gr.Tab)]


def test_the_tab_is_there_where_there_is_a_segmenter_and_tells_what_it_knows(garments: Registry) -> None:
    page = layout.build(Runtime(Predictors(torch.device("cpu")), garments))
    assert "Segment" in labels_of_tabs(page)
    words = " ".join(str(block.value) for block in page.blocks.values() if isinstance(block, gr.HTML))
    assert "ten kinds of garments and background" in words
    assert "released no weights for segmentation" in words


def test_without_segmenters_there_is_no_tab() -> None:
    page = layout.build(Runtime(Predictors(torch.device("cpu")), build_registry({})))
    assert labels_of_tabs(page) == ["Classify", "Detect", "Video", "Camera", "Benchmarks"]
