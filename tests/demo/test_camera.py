from __future__ import annotations

import copy
import gc
import io
from base64 import b64encode
from dataclasses import replace
from unittest.mock import Mock
from weakref import ref

import numpy as np
import pytest
from PIL import Image

import demo.camera
import stvit.video.annotate
from demo.camera import (
    MAX_BYTES,
    MAX_RUNS,
    READY_MODELS,
    FrameError,
    LiveModels,
    LiveRun,
    LiveRuns,
    TooManyCameras,
    camera_job,
    macs_on_frame,
    read_frame,
)
from demo.predictors import Predictors
from demo.video import CLASSIFY, CLUSTERS, DETECT, BadChoice
from stvit.pretrained.hub import WeightsUnavailable
from tests.demo.camera_frames import NARROW, encoded, job, scene
from tests.demo.conftest import BASELINE, MODEL, OFFERED
from tests.narrow_models import DETECTOR


@pytest.fixture
def models(no_weights: Mock) -> LiveModels:
    return LiveModels(Predictors())


def cut(text: str) -> str:
    return text[: len(text) // 8 * 4]


def header_that_claims(side: int) -> str:
    buffer = io.BytesIO()
    Image.new("L", (side, side)).save(buffer, "JPEG")
    return b64encode(buffer.getvalue()[:700]).decode("ascii")  # the header and hardly any pixels


def test_a_frame_is_read_as_it_was_sent() -> None:
    pixels = scene(96, 128)
    read = read_frame(encoded(pixels))
    assert read.shape == (96, 128, 3) and read.dtype == np.uint8
    assert np.abs(read.astype(int) - pixels).mean() < 12
    assert read_frame(encoded(pixels[..., 0])).shape == (96, 128, 3)


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (None, "sent no frame"),
        ("", "sent no frame"),
        (7, "sent no frame"),
        ("no base64!", "arrived damaged"),
        ("é" * 8, "arrived damaged"),
        (b64encode(b"these are words").decode(), "no whole JPEG"),
        (encoded(scene(), "PNG"), "no whole JPEG"),
        (cut(encoded(scene())), "no whole JPEG"),
        ("A" * (MAX_BYTES * 3 // 2), "more than 1 MB"),
        (header_that_claims(1200), "1200×1200 pixels; the limit is 1.2 megapixels"),
        (encoded(scene(8, 40)), "each side needs at least 16"),
    ],
)
def test_what_is_no_frame_gets_a_message_of_its_own(sent: object, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        read_frame(sent)


@pytest.mark.parametrize("task", [CLASSIFY, CLUSTERS, DETECT])
def test_a_model_predicts_on_a_frame_and_its_network_is_asked_for_once(models: LiveModels, task: str) -> None:
    first, second = (models.predict(job(task), scene(shift=shift)) for shift in (0, 4))
    assert first.caption == second.caption and first.caption.note.startswith("no weights")
    assert first.caption.label == "STViT-R-Swin-S" and first.caption.macs > 1e6
    assert (first.result.regions is not None) == (task != CLASSIFY)
    assert first.result.top1 is first.result.found is None and first.result.model_ms > 0
    assert [len(ready) for ready in models._ready.values()] == [1]


def test_few_models_are_kept_ready_however_many_sizes_of_frames_come(models: LiveModels) -> None:
    for height in range(32, 32 + 2 * READY_MODELS):
        models.predict(job(), scene(height))
    assert [len(ready) for ready in models._ready.values()] == [READY_MODELS]


def test_a_network_that_the_store_gives_up_is_not_held(models: LiveModels, no_weights: Mock) -> None:
    def resolve(*_: object, **__: object) -> None:  # one error for all calls would hold the frames of all
        raise WeightsUnavailable("hub down", "The Hub is out of order.", "Wait a minute.")

    no_weights.side_effect = resolve
    models.predict(job(), scene())
    cache = models._predictors.model_cache
    network = ref(cache.get(NARROW.find(MODEL)).network)
    cache.budget_bytes = 0
    cache.get(OFFERED.find(BASELINE))
    gc.collect()
    assert network() is None and len(models._ready) == 0
    models.predict(job(), scene())
    assert list(models._ready) == [cache.get(NARROW.find(MODEL))]


def test_a_network_that_came_anew_is_asked_from_then_on(models: LiveModels) -> None:
    models.predict(job(), scene())
    cache = models._predictors.model_cache
    cache._keep(replace(cache.get(NARROW.find(MODEL)), network=copy.deepcopy(cache.get(NARROW.find(MODEL)).network)))
    models.predict(job(), scene())
    assert cache.get(NARROW.find(MODEL)) in models._ready


@pytest.mark.parametrize("task", [CLUSTERS, DETECT])
def test_the_full_token_model_of_the_same_size_costs_more(models: LiveModels, task: str) -> None:
    macs = models.predict(job(task), scene()).caption.macs
    full = macs_on_frame(NARROW.counterpart(job(task).model), 320, (96, 128))
    assert 1.02 < full / macs < 3


def test_regions_keep_their_colours_from_frame_to_frame(models: LiveModels, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = Mock()
    monkeypatch.setattr(stvit.video.annotate, "draw_regions", drawn)
    predicted = models.predict(job(), scene())
    regions = predicted.result.regions
    renumbered = replace(regions, assignment=regions.num_tokens - 1 - regions.assignment)
    run = LiveRun("visitor", job())
    for own in (regions, renumbered):
        run.draw(scene(), replace(predicted, result=replace(predicted.result, regions=own)))
    first, second = (call.args[1] for call in drawn.call_args_list)
    np.testing.assert_array_equal(first, second)


def test_the_picture_tells_no_speed_beside_that_of_the_page(
    models: LiveModels, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, pixels, predicted = Mock(), scene(), models.predict(job(), scene())
    monkeypatch.setattr(stvit.video.annotate, "put_text", written)
    LiveRun("visitor", job()).draw(pixels, predicted)
    lines = written.call_args.args[1]
    assert "multiply-adds a frame" in lines[1] and "frames/s" not in " ".join(lines)
    assert (pixels != scene()).any()


def test_a_visitor_has_one_run_and_closing_it_leaves_nothing() -> None:
    runs = LiveRuns()
    first = runs.open("a", job())
    second, other = runs.open("a", job(CLASSIFY)), runs.open("b", job())
    assert runs.find(first) is None and runs.find(second).job.task == CLASSIFY and len(runs) == 2
    runs.close("a")
    assert runs.find(second) is None and runs.find(other) is not None and not runs.is_open("a")


@pytest.mark.parametrize("key", [None, "", 5, [], "guess"])
def test_a_run_is_found_by_its_key_alone(key: object) -> None:
    runs = LiveRuns()
    runs.open("a", job())
    assert runs.find(key) is None


def test_places_are_bounded_and_idle_runs_give_theirs_up(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = LiveRuns()
    keys = [runs.open(str(visitor), job()) for visitor in range(MAX_RUNS)]
    with pytest.raises(TooManyCameras, match="8 cameras are running"):
        runs.open("late", job())
    monkeypatch.setattr(demo.camera, "IDLE_S", 0.0)
    assert runs.find(runs.open("late", job())).owner == "late"
    assert [runs.find(key) for key in keys] == [None] * MAX_RUNS and len(runs) == 1


def test_whoever_sends_no_frames_gives_the_place_to_somebody_who_wants_one() -> None:
    runs = LiveRuns()
    first, second, third, *others = [runs.open(str(visitor), job()) for visitor in range(MAX_RUNS)]
    for key, seconds in ((first, 6), (second, 9), (third, 12)):
        runs.find(key).used_s -= seconds
    with runs.find(third).in_flight:  # a slow answer is under way
        runs._runs[third].used_s -= 12
        runs.open("late", job())
    assert runs.find(second) is None
    assert None not in [runs.find(key) for key in (first, third, *others)]


def test_only_tasks_on_frames_are_for_the_camera() -> None:
    with pytest.raises(BadChoice, match="no task 'Clip action' for the camera"):
        camera_job(OFFERED, "Clip action", MODEL, DETECTOR, 320)
