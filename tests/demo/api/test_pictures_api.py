from __future__ import annotations

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import av
import pytest
import torch
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image
from pycocotools import mask as coco_mask

import demo.benchmark
import demo.model_cache
from demo.model_specs import build_registry
from demo.page import layout
from demo.predictors import Predictors
from demo.runtime import Runtime
from demo.video import ACTION, CLASSIFY, DETECT
from stvit.class_names import COCO_CLASSES
from stvit.pretrained.resolve import ResolvedWeights
from tests.demo.conftest import BASELINE, MODEL
from tests.narrow_models import CLIP_MODELS, DETECTOR, DETECTORS, narrowed
from tests.stvit.video.clips import make_clip

CLIP_MODEL = "stvit_video_swin_tiny"
EVIT = "evit_deit_tiny_patch16_224:keep_rate=0.7"
SEMANTIC = "stvit_deit_tiny_patch16_224:num_semantic_tokens=16"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def client(weight_files: dict[str, Path]) -> Iterator[Client]:
    """A client of the whole page, served from this process, with weights from files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            demo.model_cache,
            "resolve_tensors",
            lambda record, progress=None: ResolvedWeights(weight_files[record.architecture], "cache", ""),
        )
        for limits in ("benchmark.LATENCY", "benchmark.THROUGHPUT", "dense_benchmark.DENSE"):
            patch.setattr(f"demo.{limits}", demo.benchmark.Limits(1e-6, 1e-6))
        patch.setattr(demo.benchmark, "REPORT_EVERY_S", 0.0)
        registry = narrowed(build_registry({}), DETECTORS, CLIP_MODELS)
        page = layout.build(Runtime(Predictors(torch.device("cpu")), registry))
        _, url, _ = page.launch(prevent_thread_lock=True, quiet=True, run_history=False, share=False)
        yield Client(url, verbose=False)
        page.close()


def test_endpoints_are_named_and_described(client: Client) -> None:
    endpoints = client.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert set(endpoints) == {
        "/models",
        "/classify",
        "/annotate",
        "/compare",
        "/detect",
        "/compare_backbones",
        "/compare_architecture",
        "/video",
    }
    assert all(len(endpoint["description"]) > 40 for endpoint in endpoints.values())
    names = [parameter["parameter_name"] for parameter in endpoints["/classify"]["parameters"]]
    assert names == ["image", "model", "baseline", "engine"]
    names = [parameter["parameter_name"] for parameter in endpoints["/video"]["parameters"]]
    assert names == ["clip", "task", "model", "baseline", "short_side", "engine"]


def test_models_lists_what_is_on_offer(client: Client) -> None:
    models = client.predict(api_name="/models")
    assert [entry["label"] for entry in models][:2] == ["STViT-R-Swin-S", "STViT-R-Swin-B"]
    assert {entry["method"] for entry in models if entry["role"] == "baseline"} == {"Swin", "DeiT", "LV-ViT"}
    known = ("https://", "bundled with")
    assert all(entry["weights"].startswith(known) if entry["weights"] else entry["no_weights"] for entry in models)
    assert next(entry["name"] for entry in models if entry["role"] == "clip_model") == CLIP_MODEL
    published = {entry["name"]: entry["published"] for entry in models}
    assert published["stvit_deit_small_patch16_224:num_semantic_tokens=16"]["gmacs"] == 1.91


def test_classify_returns_predictions_clusters_and_times(client: Client, photo: Path) -> None:
    result = client.predict(handle_file(photo), MODEL, BASELINE, api_name="/classify")
    assert len(result["model"]["predictions"]) == len(result["baseline"]["predictions"]) == 5
    assert result["image"]["size_hw"] == [300, 420]
    assert len(result["model"]["clusters"]) == 9 and result["baseline"]["clusters"] == []
    assert set(result["model"]["times_ms"]) >= {"decode_ms", "preprocess_ms", "model_ms", "total_ms"}
    json.dumps(result)


def test_classify_takes_one_model_beside_its_full_token_counterpart(client: Client, photo: Path) -> None:
    result = client.predict(handle_file(photo), EVIT, engine="eager", api_name="/classify")
    assert len(result["model"]["predictions"]) == 5 and result["model"]["clusters"] == []
    assert [layer["tokens"] for layer in result["model"]["reductions"]] == [196] * 3 + [139] * 3 + [99] * 3 + [71] * 3
    assert result["baseline"]["name"] == BASELINE


def test_engines_are_asked_for_by_name_and_unknown_ones_answered_with_those_at_hand(
    client: Client, photo: Path, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.mp4", 2, (96, 128))
    pair = {"model": MODEL, "baseline": BASELINE}
    calls = {"classify": pair, "annotate": {}, "detect": {}, "compare": pair, "video": {}}
    for name, chosen in calls.items():
        sent = handle_file(clip if name == "video" else photo)
        with pytest.raises(AppError, match=r"no engine 'tensorrt' here.*Choose auto, eager"):
            client.predict(sent, **chosen, engine="tensorrt", api_name=f"/{name}")


def test_annotate_draws_models_without_units(client: Client, photo: Path) -> None:
    drawn = client.predict(handle_file(photo), EVIT, 0, "Layer 4", 0, api_name="/annotate")
    assert Path(drawn).name == "evit-deit-tiny-keep-0.7-classify-tokens.jpg"
    with Image.open(drawn) as picture:
        assert picture.size == (420, 300)


@pytest.mark.parametrize(("unit", "layer", "token"), [(0, "STGM 2", 0), (1, "stgm 1", 0), (2, "Recovery", 36)])
def test_annotate_draws_on_the_whole_picture(client: Client, photo: Path, unit: int, layer: str, token: int) -> None:
    drawn = client.predict(handle_file(photo), MODEL, unit, layer, token, api_name="/annotate")
    with Image.open(drawn) as picture:
        assert picture.size == (420, 300)


def test_compare_yields_measurements_until_it_is_complete(client: Client, photo: Path) -> None:
    job = client.submit(handle_file(photo), MODEL, BASELINE, 1, api_name="/compare")
    last = job.result(timeout=240)
    assert (last["stage"], last["progress"], last["batch_size"]) == ("Done", 1.0, 1)
    assert last["model"]["latency"]["median_ms"] > 0 and last["baseline"]["images_per_second"] > 0
    assert last["model"]["macs"] < last["model"]["macs_as_published"]
    assert len(job.outputs()) > 3


def test_detect_returns_objects_masks_regions_and_times(client: Client, photo: Path) -> None:
    result = client.predict(handle_file(photo), DETECTOR, 320, api_name="/detect")
    assert result["input"] == {
        "asked_short_side": 320,
        "short_side": 320,
        "network_hw": [320, 448],
        "padded_hw": [320, 448],
        "proposals": 300,
    }
    assert 0 < len(result["objects"]) <= 100
    for entry in result["objects"]:
        assert entry["segmentation"]["size"] == [300, 420] == result["image"]["size_hw"]
        assert coco_mask.area(entry["segmentation"]) == entry["mask_area"]
        assert 0.05 < entry["score"] <= 1 and entry["name"] in COCO_CLASSES
    assert [layer["layer"] for layer in result["regions"]] == ["STGM 1", "STGM 2", "Recovery"]
    assert result["times_ms"]["total_ms"] > 0
    json.dumps(result)


def test_compare_backbones_yields_measurements_until_it_is_complete(client: Client, photo: Path) -> None:
    last = client.submit(handle_file(photo), DETECTOR, 320, api_name="/compare_backbones").result(timeout=240)
    assert last["stage"] == "Done" and last["speedup_batch_1"] > 0
    assert last["baseline"]["name"] == "swin_small_cascade_mask_rcnn"


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "clip.mp4", 10, (96, 128), sound="aac")


@pytest.mark.parametrize(
    ("task", "model", "baseline"),
    [(CLASSIFY, MODEL, BASELINE), (DETECT, DETECTOR, "none")],
)
def test_video_yields_its_progress_then_the_clip_and_its_records(
    client: Client, clip: Path, task: str, model: str, baseline: str
) -> None:
    job = client.submit(handle_file(clip), task, model, baseline, 320, api_name="/video")
    told, new, records = job.result(timeout=240)
    with av.open(new) as container:
        assert container.streams.video[0].frames >= 10 and container.streams.audio
        assert container.streams.video[0].width == (128 if baseline == "none" else 256)
    text = Path(records).read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    assert [line["frame"] for line in lines if "frame" in line] == list(range(10))
    assert told["done"] and told["progress"] == 1.0 and told["frames"] == 10 and set(told["stages_s"]) >= {"model"}
    assert set(told["weights"]) == {model, baseline} - {"none"}
    assert ('"top1"' in text) == (task == CLASSIFY)


def test_a_bad_clip_leaves_no_folder(client: Client, tmp_path: Path) -> None:
    before = set(Path(get_upload_folder()).glob("clip-*"))
    with pytest.raises(AppError, match="holds text, not a clip"):
        client.predict(handle_file(damaged(tmp_path)), CLASSIFY, MODEL, "none", 320, api_name="/video")
    assert set(Path(get_upload_folder()).glob("clip-*")) == before


def damaged(folder: Path) -> Path:
    (folder / "notes.jpg").write_text("these are words")
    return folder / "notes.jpg"


@pytest.mark.parametrize(
    ("endpoint", "arguments", "message"),
    [
        ("/classify", ("damaged", MODEL, BASELINE), "not an image"),
        ("/classify", (None, MODEL, BASELINE), "Send a picture"),
        ("/classify", ("photo", "resnet50", BASELINE), "is not offered here"),
        ("/classify", ("photo", "evit_deit_tiny_patch16_224:keep_rate=0.71", ""), "is not offered here"),
        ("/classify", ("photo", SEMANTIC, ""), "predicts nothing. Its weights were never published"),
        ("/annotate", ("photo", SEMANTIC, 0, "STGM 1", 0), "predicts nothing"),
        ("/annotate", ("photo", BASELINE, 0, "STGM 2", 0), "keeps all its image tokens"),
        ("/annotate", ("photo", EVIT, 0, "Layer 4", 1), "has no semantic tokens"),
        ("/compare", ("photo", MODEL, MODEL, 1), "choose two different ones"),
        ("/annotate", ("photo", MODEL, 7, "STGM 2", 0), "There are: 1 'STGM 1'"),
        ("/annotate", ("photo", MODEL, 1, "<script>", 0), "There is no layer"),
        ("/annotate", ("photo", MODEL, 1, "STGM 1", 37), "give 1 to 36"),
        ("/compare", ("photo", MODEL, BASELINE, 3), "A batch of 3 is not offered here. Choose one of 1, 4"),
        ("/detect", (None, DETECTOR, 320), "Send a picture"),
        ("/detect", ("damaged", DETECTOR, 320), "not an image"),
        ("/detect", ("photo", MODEL, 320), "is not offered here"),
        ("/detect", ("photo", DETECTOR, 801), "Choose one of 800"),
        ("/compare_backbones", ("damaged", DETECTOR, 320), "not an image"),
        ("/video", (None, CLASSIFY, MODEL, "none", 320), "Send a clip"),
        ("/video", ("photo", "Fly", MODEL, "none", 320), "There is no task 'Fly'"),
        ("/video", ("photo", CLASSIFY, CLIP_MODEL, "none", 320), "is not offered here"),
        ("/video", ("photo", ACTION, CLIP_MODEL, "video_swin_small", 320), "is shown beside video_swin_tiny alone"),
        ("/video", ("photo", CLASSIFY, MODEL, MODEL, 320), "choose two different ones"),
        ("/video", ("photo", ACTION, CLIP_MODEL, "none", 320), "predicts nothing"),
    ],
)
def test_a_fault_of_the_caller_gets_one_specific_message_and_the_server_goes_on(
    client: Client, photo: Path, tmp_path: Path, endpoint: str, arguments: tuple, message: str
) -> None:
    files = {"damaged": handle_file(damaged(tmp_path)), "photo": handle_file(photo)}
    with pytest.raises(AppError, match=message):
        client.predict(*(files.get(value, value) for value in arguments), api_name=endpoint)
    assert client.predict(api_name="/models")


def post(url: str, data: object) -> str:
    request = urllib.request.Request(url, json.dumps(data).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return answer.read().decode()


@pytest.mark.parametrize("extra", [{}, {"meta": {"_type": "gradio.FileData"}}])
@pytest.mark.parametrize(
    ("endpoint", "more"), [("classify", [MODEL, BASELINE]), ("video", [CLASSIFY, MODEL, "none", 320])]
)
def test_a_path_on_the_server_is_no_upload(client: Client, photo: Path, endpoint: str, more: list, extra: dict) -> None:
    call = f"{client.src}gradio_api/call/{endpoint}"
    event = json.loads(post(call, {"data": [{"path": str(photo), **extra}, *more]}))["event_id"]
    with urllib.request.urlopen(f"{call}/{event}") as answer:
        told = answer.read().decode()
    assert "event: error" in told and "event: complete" not in told
