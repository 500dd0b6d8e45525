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

import demo.benchmark
import demo.dense_benchmark
from demo.model_cache import OutOfMemory
from demo.page.examples import Gallery
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.tabs.detect.handlers import DetectHandlers
from tests.demo.conftest import MODEL, OFFERED
from tests.narrow_models import DETECTOR
from tests.sure_detector import PHOTO
from weights.garments.sources import CLASS_NAMES

GALLERY = Gallery.load("scene")
OWN, OWN_PEER = "garments_detect_stvit_r", "garments_detect_swin"


@pytest.fixture
def handlers(predictors: Predictors, garments: Registry) -> DetectHandlers:
    return DetectHandlers(Runtime(predictors, garments), GALLERY)


@pytest.fixture
def without_weights(no_weights: Mock, garments: Registry) -> DetectHandlers:
    return DetectHandlers(Runtime(Predictors(), garments), GALLERY)


def test_the_browser_gets_boxes_masks_and_token_maps_that_equal_the_results(handlers: DetectHandlers) -> None:
    run = handlers.runtime.detect_file(PHOTO, handlers.registry.find(DETECTOR), 320)
    shown = handlers.run(None, str(PHOTO), DETECTOR, 320)
    notice, payload = shown["notice"], shown["detections"]
    found, side = run.result.found, payload["maskSide"]
    assert notice == "" and payload["reason"] == payload["note"] == ""
    assert len(payload["objects"]) == len(found) and payload["source"] == [675, 900]
    np.testing.assert_allclose([entry["box"] for entry in payload["objects"]], found.boxes, atol=0.01)
    masks = np.frombuffer(b64decode(payload["masks"]), np.uint8).reshape(-1, side, side)
    np.testing.assert_allclose(masks / 255, found.mask_probabilities, atol=0.5 / 255 + 1e-6)
    shares = found.masks().float().mean(dim=(1, 2))
    np.testing.assert_allclose([entry["covers"] for entry in payload["objects"]], shares, atol=1e-6)
    for layer, regions in zip(payload["layers"], run.result.regions, strict=True):
        assignment = np.frombuffer(b64decode(layer["assignment"]), "<i2").reshape(regions.image_grid_hw)
        np.testing.assert_array_equal(assignment, regions.assignment)
        assert len(b64decode(layer["colours"])) == 3 * regions.num_tokens
    assert payload["cells"] == [20, 427 / 16]
    coco, picture = Path(handlers.coco_file(shown["kept"])), Path(handlers.picture_file(shown["kept"]))
    stem = "stvit-r-swin-small-detect"
    assert (coco.name, picture.name) == (f"{stem}-coco.json", f"{stem}-objects.jpg") and payload["file"] == stem
    assert len(json.loads(coco.read_text())) == 3
    assert picture.read_bytes().startswith(b"\xff\xd8") and "backbone + FPN" in shown["steps"]
    assert shown["save_picture"].interactive and shown["save_coco"].interactive


def test_what_is_sent_beside_the_picture_stays_small(handlers: DetectHandlers) -> None:
    payload = handlers.run(None, str(PHOTO), DETECTOR, 800)["detections"]
    assert len(payload["objects"]) > 50
    assert len(json.dumps({key: value for key, value in payload.items() if key != "image"})) < 400_000


def test_a_large_picture_is_shown_smaller_with_boxes_in_source_pixels(handlers: DetectHandlers, tmp_path: Path) -> None:
    large = cv2.resize(cv2.imread(str(PHOTO)), (2700, 2025))
    cv2.imwrite(str(tmp_path / "large.jpg"), large)
    payload = handlers.run(None, str(tmp_path / "large.jpg"), DETECTOR, 320)["detections"]
    assert (payload["size"], payload["source"]) == ([960, 1280], [2025, 2700])
    assert max(entry["box"][2] for entry in payload["objects"]) > 1280


def test_without_weights_random_objects_are_never_shown(without_weights: DetectHandlers) -> None:
    notice = list(without_weights.load(str(PHOTO), DETECTOR, 320))[-1]["notice"]
    assert "No detections from STViT-R-Swin-S: The Hugging Face Hub cannot be reached." in notice
    assert notice.count("<button") == 1 and ">Retry<" in notice
    shown = without_weights.run(None, str(PHOTO), DETECTOR, 320)
    assert shown["notice"] == notice
    assert shown["detections"]["objects"] == [] and shown["detections"]["masks"] == ""
    assert shown["detections"]["reason"].endswith("The Hugging Face Hub cannot be reached.")
    assert len(shown["detections"]["layers"]) == 3 and "Random weights" in shown["detections"]["note"]
    assert "Random heads" in shown["steps"]
    assert not shown["save_picture"].interactive and not shown["save_coco"].interactive


def test_a_smaller_size_than_asked_for_is_said(handlers: DetectHandlers) -> None:
    detector = handlers.model_cache.get(handlers.registry.find(DETECTOR)).network
    backbone = detector.backbone.forward

    def fail_if_large(images: Any, **options: Any) -> Any:
        if max(images.shape) > 600:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 byte.")
        return backbone(images, **options)

    detector.backbone.forward = fail_if_large
    notice = handlers.run(None, str(PHOTO), DETECTOR, 480)["notice"]
    assert "not enough memory for a short side of 480: this was found at 320" in notice


def test_no_memory_at_all_is_a_message_and_no_crash(handlers: DetectHandlers) -> None:
    handlers.runtime.detect_file = Mock(side_effect=OutOfMemory("The device is full."))
    handlers.runtime.benchmark_backbones = Mock(side_effect=OutOfMemory("The device is full."))
    shown = handlers.run(None, str(PHOTO), DETECTOR, 480)
    assert "The device is full." in shown["notice"] and shown["detections"] is None
    assert "The device is full." in next(handlers.compare(None, str(PHOTO), DETECTOR, 480))["benchmark"]


@pytest.mark.parametrize(("detector", "size"), [(MODEL, 320), (None, 320), (DETECTOR, 333), (DETECTOR, "320")])
def test_what_is_not_on_offer_is_refused(handlers: DetectHandlers, detector: Any, size: Any) -> None:
    with pytest.raises(gr.Error, match="is not offered"):
        handlers.run(None, str(PHOTO), detector, size)


def test_without_a_picture_there_is_nothing_to_show_or_compare(handlers: DetectHandlers) -> None:
    assert list(handlers.load(None, DETECTOR, 320)) == [{"notice": ""}]
    assert handlers.run(None, None, DETECTOR, 320)["detections"] is None
    (fields,) = handlers.compare(None, None, DETECTOR, 320)
    assert "Choose a picture first" in fields["benchmark"] and fields["benchmark_state"] is None


def test_a_comparison_shows_published_figures_apart_from_measured_ones(
    handlers: DetectHandlers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo.dense_benchmark, "DENSE", demo.benchmark.Limits(1e-6, 1e-6))
    chart, state = list(handlers.compare(None, str(PHOTO), DETECTOR, 320))[-1].values()
    assert state.done
    measured, _, published = chart.partition("Published (paper, Table 5), not measured here")
    assert "Fewer multiply-adds" in measured
    assert all(f"<td>{value}</td>" in published for value in (51.8, 44.7, 134, 194))


def test_both_sizes_of_the_published_detector_are_known() -> None:
    assert [spec.label for spec in OFFERED.of_task("detect") if not spec.bundled] == [
        "STViT-R-Swin-S",
        "STViT-R-Swin-B",
    ]


def test_a_detector_of_this_project_names_garments_at_the_size_that_it_was_trained_on(handlers: DetectHandlers) -> None:
    shown = handlers.run(None, str(GALLERY.garments[0].path), OWN, 800)
    payload = shown["detections"]
    assert {entry["name"] for entry in payload["objects"]} <= set(CLASS_NAMES) and payload["objects"]
    assert "The network saw the picture at 224 × 224" in shown["steps"] and shown["save_picture"].interactive
    written = json.loads(Path(handlers.coco_file(shown["kept"])).read_text())
    named = {category["id"]: category["name"] for category in written["categories"]}
    assert all(CLASS_NAMES[number - 1] == name for number, name in named.items())


def test_a_detector_of_this_project_comes_with_words_examples_and_no_choice_of_size(handlers: DetectHandlers) -> None:
    words, examples, size, picture = handlers.introduce(OWN).values()
    assert picture["placeholder"].startswith("Drop a picture of garments here")
    assert "41.5 % box AP, 72.2 % box AP50, 38.0 % mask AP" in words and "test split" in examples and not size.visible
    words, examples, size, picture = handlers.introduce(DETECTOR).values()
    assert picture["placeholder"].startswith("Drop a photo here")
    assert words == "" and "Photo 1" in examples and size.visible


@pytest.mark.parametrize(("detector", "peer"), [(OWN, OWN_PEER), (OWN_PEER, OWN)])
def test_backbones_of_this_project_are_measured_against_each_other(
    handlers: DetectHandlers, monkeypatch: pytest.MonkeyPatch, detector: str, peer: str
) -> None:
    monkeypatch.setattr(demo.dense_benchmark, "DENSE", demo.benchmark.Limits(1e-6, 1e-6))
    scene = str(GALLERY.garments[0].path)
    assert list(handlers.load_pair(scene, detector, 800))[-1] == {"notice": ""}
    chart, state = list(handlers.compare(None, scene, detector, 800))[-1].values()
    assert (state.model.spec.name, state.baseline.spec.name) == (detector, peer)
    assert "no public weights" not in chart and "Published" not in chart
