"""The endpoints for segmentation, through a client of the whole page."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from demo.page.examples import garment_examples
from weights.garments.sources import CLASS_NAMES

OURS, FULL = "garments_segment_stvit_r", "garments_segment_swin"
SCENE = garment_examples("scene")[0].path


def test_the_endpoints_are_named_described_and_listed(offline: Client) -> None:
    endpoints = offline.view_api(return_format="dict", print_info=False)["named_endpoints"]
    for name in ("/segment", "/compare_segmenters"):
        assert len(endpoints[name]["description"]) > 40
        assert [entry["parameter_name"] for entry in endpoints[name]["parameters"]] == ["image", "segmenter", "engine"]
    offered = [entry for entry in offline.predict(api_name="/models") if entry["role"] == "segmenter"]
    assert [entry["name"] for entry in offered] == [OURS, FULL]
    assert offered[0]["weights"] == "bundled with this page" and offered[0]["measured"]["mIoU"] == 61.5


def test_segment_returns_class_names_areas_the_map_and_the_drawn_picture(offline: Client) -> None:
    answer, labels, picture = offline.predict(handle_file(SCENE), OURS, api_name="/segment")
    assert answer["classes"] == ["background", *CLASS_NAMES]
    with Image.open(labels) as indexed, Image.open(picture) as drawn:
        assert indexed.mode == "P" and list(indexed.size[::-1]) == answer["image"]["size_hw"] == [224, 224]
        assert drawn.size == indexed.size and drawn.format == "JPEG"
        values = np.array(indexed)
    assert {entry["label"]: entry["pixels"] for entry in answer["present"]} == {
        label: int((values == label).sum()) for label in np.unique(values).tolist()
    }
    assert [layer["layer"] for layer in answer["regions"]] == ["STGM 1", "STGM 2", "Recovery"]
    assert answer["times_ms"]["total_ms"] > 0 and answer["weights"].startswith("this project")
    json.dumps(answer)


def test_compare_segmenters_yields_measurements_until_it_is_complete(offline: Client) -> None:
    last = offline.submit(handle_file(SCENE), FULL, api_name="/compare_segmenters").result(timeout=240)
    assert last["stage"] == "Done" and last["speedup_batch_1"] > 0
    assert (last["model"]["name"], last["baseline"]["name"]) == (FULL, OURS)


@pytest.mark.parametrize("endpoint", ["/segment", "/compare_segmenters"])
@pytest.mark.parametrize(
    ("image", "segmenter", "message"),
    [
        (None, OURS, "Send a picture"),
        ("damaged", OURS, "not an image"),
        ("scene", "stvit_r_swin_small_224", "is not offered here"),
    ],
)
def test_a_fault_of_the_caller_gets_one_specific_message(
    offline: Client, tmp_path: Path, endpoint: str, image: str | None, segmenter: str, message: str
) -> None:
    (tmp_path / "words.jpg").write_text("these are words")
    files = {"damaged": handle_file(tmp_path / "words.jpg"), "scene": handle_file(SCENE)}
    with pytest.raises(AppError, match=message):
        offline.predict(files.get(image), segmenter, api_name=endpoint)
