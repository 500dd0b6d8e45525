from __future__ import annotations

import json
import re
import time
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gradio as gr
import numpy as np
import pytest
from gradio.data_classes import ImageData
from gradio.utils import get_upload_folder
from PIL import Image, ImageDraw
from starlette.requests import Request

import demo.model_cache
from demo.benchmark import BenchmarkEntry, BenchmarkState, Turns
from demo.charts import classify as charts
from demo.charts.classify import short_label
from demo.export import display_copy
from demo.page.examples import Gallery
from demo.page.gradio_private import uploaded_path
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.tabs import image_tab
from demo.tabs.classify.handlers import ClassifyHandlers
from demo.tabs.pickers import follow, set_twin
from demo.views.token_view import cluster_payload
from stvit.measure.timing import LatencySummary, Quartiles
from stvit.predict.regions import coherence
from stvit.predict.results import Prediction
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.resolve import ResolvedWeights
from tests.demo.conftest import BASELINE, MODEL, OFFERED

OWN, OWN_BASELINE = "garments_stvit_r_swin", "garments_swin"
GALLERY = Gallery.load("classify")


def answer(entry: Prediction, in_scope: bool = True) -> SimpleNamespace:
    """What the chart of predictions reads of a model's answer."""
    return SimpleNamespace(predictions=(entry,), in_scope=in_scope)


@pytest.fixture
def handlers(predictors: Predictors, garments: Registry) -> ClassifyHandlers:
    return ClassifyHandlers(Runtime(predictors, garments), GALLERY)


@pytest.mark.slow
def test_loading_reports_the_download_and_ends_without_a_notice(
    handlers: ClassifyHandlers, photo: Path, weight_files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []

    def resolve(record: ModelRecord, progress: Any) -> ResolvedWeights:
        progress(50_000_000, 200_000_000)
        while not any("50 of 200 MB" in notice for notice in notices):
            time.sleep(0.01)  # until the page has asked how far it is
        return ResolvedWeights(weight_files[record.architecture], "Hub", "")

    monkeypatch.setattr(demo.model_cache, "resolve_tensors", resolve)
    for fields in handlers.load(str(photo), MODEL, BASELINE):
        notices.append(fields["notice"])
    assert re.search(r"Downloading the weights of STViT-R-Swin-S: 50 of 200 MB.*value=\"0.250\"", "".join(notices))
    assert notices[-1] == ""


@pytest.mark.parametrize("sent", [None, {}, [], "1", {"index": -1}, {"index": 10**9}, {"index": "0"}, {"index": True}])
def test_an_example_that_does_not_exist_is_refused(handlers: ClassifyHandlers, sent: Any) -> None:
    with pytest.raises(gr.Error, match="no such example"):
        GALLERY.chosen(gr.EventData(None, sent))


def test_an_example_is_chosen_by_its_index(handlers: ClassifyHandlers) -> None:
    assert GALLERY.chosen(gr.EventData(None, {"index": 1})) == str(GALLERY.photos[1].path)


@pytest.mark.parametrize("pair", [("resnet50", BASELINE), (None, BASELINE), (MODEL, ["x"])])
def test_a_model_that_is_not_on_offer_is_refused(handlers: ClassifyHandlers, photo: Path, pair: tuple) -> None:
    with pytest.raises(gr.Error, match="is not offered here"):
        handlers.run(None, str(photo), *pair)


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.png", None, f"{get_upload_folder()}/../other.png"])
def test_only_files_of_the_upload_folder_count_as_pictures(path: str | None) -> None:
    with pytest.raises(gr.Error, match="uploaded file"):
        uploaded_path(ImageData(path=path, url="data:image/png;base64,AAAA"))


def test_the_browser_gets_maps_that_equal_the_models(predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, OFFERED.find(MODEL), OFFERED.find(BASELINE))
    pixels, geometry = display_copy(run)
    payload = cluster_payload(pixels, geometry, run.model.regions, "STViT")
    assert [(layer["unit"], layer["name"]) for layer in payload["layers"]] == [
        (unit, name) for unit in (1, 2, 3) for name in ("STGM 1", "STGM 2", "Recovery")
    ]
    for layer, clusters in zip(payload["layers"], run.model.regions, strict=True):
        assignment = np.frombuffer(b64decode(layer["assignment"]), "<i2").reshape(clusters.image_grid_hw)
        levels = np.frombuffer(b64decode(layer["attention"]), np.uint8).reshape(clusters.attention.shape)
        weakest, strongest = (np.array(layer[name])[:, None, None] for name in ("weakest", "strongest"))
        np.testing.assert_array_equal(assignment, clusters.assignment)
        attention = weakest + levels / 255 * (strongest - weakest)
        np.testing.assert_allclose(attention, clusters.attention, atol=(strongest - weakest).max() / 500)
        assert len(b64decode(layer["colours"])) == layer["tokens"] * 3 == 36 * 3
        assert layer["stage"] == clusters.layer.replace("STGM", "Grouping") and "in the paper" in layer["term"]
    assert cluster_payload(pixels, geometry, run.baseline.regions, "Swin") is None
    coherences = [coherence(clusters.assignment) for clusters in run.model.regions]
    assert payload["start"] == coherences.index(max(coherences)) and payload["untrained"] is False
    json.dumps(payload)  # plain JSON, so that it can be stored
    without_picture = {name: value for name, value in payload.items() if name != "image"}
    assert len(json.dumps(without_picture)) < 110_000


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "fate"), [("evo_vit_deit_tiny_patch16_224", "waiting"), ("dynamicswin_tiny_224:keep_rate=0.7", "fast")]
)
def test_the_browser_is_told_what_became_of_tokens_that_a_layer_leaves_out(
    predictors: Predictors, photo: Path, name: str, fate: str
) -> None:
    run = predictors.classify_file(photo, OFFERED.find(name), OFFERED.find(BASELINE))
    assert run.model.predictions == () and "share its weights on" in run.model.weights
    layer = cluster_payload(*display_copy(run), run.model.regions, name)["layers"][-1]
    assignment = np.frombuffer(b64decode(layer["assignment"]), "<i2")
    assert layer["fate"] == fate and 50 < (assignment < 0).sum() < 150


def test_a_large_picture_is_shown_smaller_with_the_crop_in_its_place(predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, OFFERED.find(MODEL), OFFERED.find(BASELINE))
    large = np.zeros((3000, 4200, 3), np.uint8)
    geometry = replace(run.picture.prepared.geometry, source_hw=(3000, 4200))
    prepared = replace(run.picture.prepared, geometry=geometry)
    source = replace(run.picture.source, pixels=large)
    pixels, shown = display_copy(replace(run, picture=replace(run.picture, source=source, prepared=prepared)))
    assert pixels.shape == (914, 1280, 3)
    corners = np.array([[0.0, 0.0], [224.0, 224.0]])
    np.testing.assert_allclose(shown.to_source(corners) / (1280, 914), geometry.to_source(corners) / (4200, 3000))


EVIT = "evit_deit_tiny_patch16_224:keep_rate=0.7"
SEMANTIC = "stvit_deit_tiny_patch16_224:num_semantic_tokens=16"


def test_the_browser_gets_what_became_of_every_image_token(predictors: Predictors, photo: Path) -> None:
    run = predictors.classify_file(photo, OFFERED.find(EVIT), OFFERED.find(BASELINE))
    payload = cluster_payload(*display_copy(run), run.model.regions, "EViT")
    assert [layer["tokens"] for layer in payload["layers"]] == [196] * 3 + [139] * 3 + [99] * 3 + [71] * 3
    for layer, reduction in zip(payload["layers"], run.model.regions, strict=True):
        assignment = np.frombuffer(b64decode(layer["assignment"]), "<i2").reshape(14, 14)
        np.testing.assert_array_equal(assignment, reduction.assignment)
        assert (layer["kind"], len(b64decode(layer["colours"]))) == ("fused", 3 * layer["tokens"])
    assert payload["start"] == 11 and "attention" not in payload["layers"][0]


def test_a_model_without_published_weights_is_said_to_have_none_and_not_offered_to_try_again(
    handlers: ClassifyHandlers, photo: Path
) -> None:
    notice = list(handlers.load(str(photo), SEMANTIC, BASELINE))[-1]["notice"]
    assert "No predictions from STViT-DeiT-T, 16 tokens: Its weights were never published." in notice
    assert "Retry" not in notice
    shown = handlers.run(None, str(photo), SEMANTIC, BASELINE)
    assert shown["notice"] == notice
    assert shown["predictions"].count("<ol") == 1 and "Its weights were never published." in shown["predictions"]
    assert [layer["name"] for layer in shown["clusters"]["layers"]] == ["STGM 1", "STGM 2"]
    assert "Random weights" in shown["clusters"]["note"] and shown["clusters"]["untrained"]


def test_the_other_side_is_drawn_where_the_model_keeps_all_tokens(handlers: ClassifyHandlers, photo: Path) -> None:
    assert handlers.run(None, str(photo), BASELINE, EVIT)["clusters"]["title"] == "EViT-DeiT-T, keep 0.7"
    shown = handlers.run(None, str(photo), BASELINE, BASELINE)
    assert shown["clusters"] is None and not shown["save_picture"]["interactive"]


def test_the_files_are_made_when_they_are_asked_for(handlers: ClassifyHandlers, photo: Path) -> None:
    before = set(Path(get_upload_folder()).rglob("*"))
    shown = handlers.run(None, str(photo), MODEL, BASELINE)
    assert set(Path(get_upload_folder()).rglob("*")) == before
    assert shown["save_picture"]["interactive"] and shown["save_json"]["interactive"]
    first = shown["clusters"]["layers"][shown["clusters"]["start"]]
    assert shown["kept"].regions.layer == first["name"] and shown["kept"].regions.unit == first["unit"]
    picture, result = Path(handlers.picture_file(shown["kept"])), Path(handlers.json_file(shown["kept"]))
    assert picture.name == "stvit-r-swin-small-classify-tokens.jpg"
    assert result.name == "stvit-r-swin-small-beside-deit-tiny-classify.json"
    assert (
        picture.read_bytes().startswith(b"\xff\xd8") and len(json.loads(result.read_text())["model"]["clusters"]) == 9
    )


def asked_at(host: str) -> SimpleNamespace:
    """What a handler gets to know of a request."""
    scope = {
        "type": "http",
        "method": "POST",
        "scheme": "http",
        "root_path": "",
        "query_string": b"",
        "path": "/gradio_api/run/predict",
        "server": (host, 80),
        "headers": [(b"host", host.encode())],
    }
    return SimpleNamespace(request=Request(scope))


def test_a_card_is_drawn_when_it_is_asked_for_from_what_is_known(
    handlers: ClassifyHandlers, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept, written = handlers.run(None, str(photo), MODEL, BASELINE)["kept"], []
    write = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda draw, at, words, *more, **named: (written.append(words), write(draw, at, words, *more, **named)),
    )
    entries = [BenchmarkEntry(OFFERED.find(name), 1, 1, 1) for name in (MODEL, BASELINE)]
    latency = LatencySummary(1.0, 1.0, 1.0, 10)
    turns = Turns(latency, latency, Quartiles(1.5, 1.6, 1.7), "openvino")
    state = BenchmarkState("Done", 1.0, *entries, None, "a CPU, float32", single=turns)
    monkeypatch.setattr(handlers.runtime, "classify_file", None)
    path = Path(handlers.card_file(asked_at("stvit.example"), kept, state))
    assert path.name == "stvit-r-swin-small-classify-card.png"
    with Image.open(path) as image:
        assert (image.format, image.size) == ("PNG", (1200, 630))
    assert any(re.fullmatch(r"\d+ tokens instead of .*x more arithmetic, 1\.6x faster", words) for words in written)
    assert "Measured one picture at a time: a CPU, float32, OpenVINO." in written
    assert f"http://stvit.example/?tab=classify&model={MODEL}" in written
    assert {"STViT-R-Swin-S", "DeiT-T", short_label(kept.answers[0].predictions[0].label)} <= set(written)
    written.clear()
    handlers.card_file(asked_at("stvit.example"), kept, replace(state, baseline=entries[0]))
    assert not [words for words in written if "faster" in words], "the comparison was of other models"


def test_a_picture_that_has_gone_meanwhile_is_told(handlers: ClassifyHandlers, photo: Path) -> None:
    kept = handlers.run(None, str(photo), MODEL, BASELINE)["kept"]
    photo.unlink()
    with pytest.raises(gr.Error, match="no longer there"):
        handlers.picture_file(kept)


def test_a_model_against_itself_is_no_comparison(handlers: ClassifyHandlers, photo: Path) -> None:
    last = list(handlers.compare(None, str(photo), BASELINE, BASELINE, 1))[-1]
    assert "choose two different ones" in last["benchmark"] and last["benchmark_state"] is None


def test_choosing_a_model_of_this_project_moves_the_other_side_to_its_peer(garments: Registry) -> None:
    for chosen, peer in (
        ("garments_stvit_deit", "garments_deit"),
        ("garments_evit_05", "garments_deit"),
        ("garments_deit", "garments_stvit_deit"),
        ("garments_swin", "garments_stvit_r_swin"),
    ):
        assert follow(garments, chosen, BASELINE)[2].value == peer


def test_the_other_side_stays_where_both_know_garments_or_a_published_model_is_chosen(garments: Registry) -> None:
    for chosen, other in ((OWN, "garments_deit"), (MODEL, OWN_BASELINE), (MODEL, BASELINE)):
        assert all("value" not in update for update in follow(garments, chosen, other))
    with pytest.raises(gr.Error, match="is not offered here"):
        follow(garments, "resnet50", BASELINE)


def test_garment_models_come_with_words_and_examples_of_their_own(handlers: ClassifyHandlers) -> None:
    words, examples, _ = handlers.introduce(OWN, OWN_BASELINE).values()
    assert words.count("<details") == 2 and "91.2 % top-1" in words and "measured here" in words
    assert "test split" in examples and "Garment 10" in examples
    words, examples, _ = handlers.introduce(MODEL, BASELINE).values()
    assert words == "" and "Photo 8" in examples


def test_models_of_different_classes_are_said_to_be_no_match(handlers: ClassifyHandlers, photo: Path) -> None:
    words = handlers.introduce(OWN, BASELINE)["about"]
    assert "knows ten kinds of garments, DeiT-T knows the 1000 classes of ImageNet" in words
    predictions = handlers.run(None, str(photo), OWN, BASELINE)["predictions"]
    assert predictions.count("<ol") == 2 and "agreement" not in predictions
    assert "agreement" in handlers.run(None, str(photo), OWN, OWN_BASELINE)["predictions"]


def test_the_costs_are_those_of_the_models_own_input(handlers: ClassifyHandlers) -> None:
    millions = handlers.registry.find("garments_stvit_deit").bundled.macs / 1e9
    assert f"{millions:.2f} G" in handlers.break_down("garments_stvit_deit", "garments_deit")["breakdown"]


def test_an_answer_to_an_example_is_marked_right_or_wrong(garments: Registry) -> None:
    entry = Prediction(9, "ankle boot", 0.9)
    specs = [garments.find(OWN), garments.find(OWN_BASELINE)]
    answers = [answer(entry), answer(replace(entry, label="bag"))]
    marked = charts.predictions(specs, answers, "bag")
    first, second = marked.split("</section>")[:2]
    assert "Wrong: this example shows “bag”" in first and "Right" in second
    for unknown in ("", "macaw"):  # no example, or of a class that these models do not have
        assert "Wrong" not in charts.predictions(specs, answers, unknown)


def test_a_picture_of_nothing_that_a_model_knows_gets_no_answer_but_its_guesses_folded(garments: Registry) -> None:
    entry = Prediction(5, "sandal", 0.655)
    specs = [garments.find(OWN), garments.find(OWN_BASELINE)]
    told = charts.predictions(specs, [answer(entry, in_scope=False), answer(entry)])
    first, second = told.split("</section>")[:2]
    words, folded = first.split("<details>")
    assert "Not one of the ten kinds of garments that this model knows" in words and "sandal" not in words
    assert "sandal" in folded and "sandal" in second and "<details>" not in second
    assert "agreement" not in told and "agreement" in charts.predictions(specs, [answer(entry)] * 2)


def test_the_empty_input_says_what_to_drop(handlers: ClassifyHandlers) -> None:
    of_garments = handlers.introduce(OWN, OWN_BASELINE)["picture"]["placeholder"]
    assert of_garments.startswith("Drop a picture of one garment (t-shirt, trouser,")
    assert handlers.introduce(MODEL, BASELINE)["picture"]["placeholder"].startswith("Drop a photo here")


def test_the_baseline_becomes_the_full_token_twin_of_a_model_of_another_method_or_size() -> None:
    chosen, twin, other = "evit_deit_tiny_patch16_224:keep_rate=0.7", BASELINE, "swin_small_patch4_window7_224"
    assert set_twin(OFFERED, chosen, other)[2].value == twin
    assert all("value" not in update for update in set_twin(OFFERED, chosen, twin))
    assert all("value" not in update for update in set_twin(OFFERED, twin, other))


def test_a_short_comparison_follows_an_answer_and_ends_as_soon_as_somebody_else_waits(
    handlers: ClassifyHandlers, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    others = iter([False, False, False, True])

    def measured(*wanted: Any) -> Iterator[BenchmarkState]:
        asked.append(wanted[3])
        entry = BenchmarkEntry(handlers.registry.find(MODEL), 1, 2, 2), BenchmarkEntry(wanted[2], 1, 4, 4)
        for number in range(20):
            yield BenchmarkState(f"Step {number}", number / 20, *entry, None, "a device")
        asked.append("ended by itself")

    monkeypatch.setattr(handlers.runtime, "benchmark_classifiers", measured)
    monkeypatch.setattr(handlers, "_others", lambda: next(others))
    shown = [fields["benchmark"] for fields in handlers.compare_by_itself(None, str(photo), MODEL, BASELINE)]
    assert asked == [None] and len(shown) == 4  # batches are measured on demand alone
    assert shown[0] == gr.skip() and "Step 1" in shown[2] and "somebody else is waiting" in shown[3]
    monkeypatch.setattr(image_tab, "PAUSE_S", 0.0)
    monkeypatch.setattr(handlers, "_others", lambda: True)
    for path, pair in ((str(photo), (MODEL, BASELINE)), (None, (MODEL, BASELINE)), (str(photo), (MODEL, MODEL))):
        assert all(fields["benchmark"] == gr.skip() for fields in handlers.compare_by_itself(None, path, *pair))
    assert asked == [None]


def test_the_comparison_after_an_answer_waits_for_its_turn(
    handlers: ClassifyHandlers, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_tab, "PAUSE_S", 0.0)
    others = iter([True, True, False])
    monkeypatch.setattr(handlers, "_others", lambda: next(others, False))
    *_, last = handlers.compare_by_itself(None, str(photo), MODEL, BASELINE)
    assert last["benchmark_state"].done
