"""The examples of docs/api.md, run as they stand; what they return has the types that the API describes."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copy

import pytest
from gradio_client import Client
from pydantic import TypeAdapter

from demo.api import results
from demo.page.examples import garment_examples
from tests.demo.api.conftest import Served
from tests.stvit.video.clips import make_clip

DOCUMENT = (Path(__file__).resolve().parents[3] / "docs" / "api.md").read_text()
EXAMPLES = re.findall(r"^```python\n(.*?)^```$", DOCUMENT, re.MULTILINE | re.DOTALL)
KINDS = {
    "models": list[results.Model],
    "classification": results.Classification,
    "detection": results.Detection,
    "segmentation": results.Segmentation,
    "comparison": results.Comparison,
    "sparsified": results.Comparison,
    "progress": results.ClipProgress,
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def named(served_offline: Served, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What the examples leave behind, one after the other, in a folder with the files that they name."""
    folder = tmp_path_factory.mktemp("reader")
    copy(garment_examples("classify")[0].path, folder / "shirt.jpg")
    make_clip(folder / "clip.mp4", 6, (96, 128))
    found: dict[str, object] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for example in EXAMPLES:
            assert len(example.splitlines()) <= 3
            exec(example.replace("http://127.0.0.1:7860/", served_offline.client.src), found)
    return found


def test_every_endpoint_has_an_example(offline: Client) -> None:
    endpoints = offline.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {f"/{name}" for name in re.findall(r'api_name="/(\w+)"', DOCUMENT)} == set(endpoints)
    assert all(entry["parameter_has_default"] for value in endpoints.values() for entry in value["parameters"][1:])


@pytest.mark.parametrize("name", KINDS)
def test_a_result_has_its_documented_type(named: dict[str, object], name: str) -> None:
    value = named[name]
    assert TypeAdapter(KINDS[name]).validate_python(value) == value  # what is not documented would be missing


def test_the_types_are_in_the_description_of_the_api(offline: Client) -> None:
    endpoints = offline.view_api(return_format="dict", print_info=False)["named_endpoints"]
    (returned,) = endpoints["/classify"]["returns"]
    assert returned["label"] == "classification" and set(returned["type"]["properties"]) >= {"model", "baseline"}
    assert "predictions: list[dict(" in returned["python_type"]["type"]


def test_pictures_and_clips_are_files(named: dict[str, object]) -> None:
    for name in ("drawing", "label_map", "picture", "new_clip", "records"):
        assert Path(named[name]).stat().st_size > 0
