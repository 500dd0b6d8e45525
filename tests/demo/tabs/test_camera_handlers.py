from __future__ import annotations

from base64 import b64decode
from collections.abc import Callable
from io import BytesIO
from threading import Event, Thread
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import gradio as gr
import numpy as np
import pytest
from PIL import Image

from demo.camera import MAX_RUNS, MAX_SIDE
from demo.model_cache import NO_ROOM, OutOfMemory
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.tabs.camera.handlers import BUSY, GONE, CameraHandlers
from demo.video import CLASSIFY, CLUSTERS, DETECT
from tests.demo.camera_frames import encoded, scene
from tests.demo.conftest import MODEL
from tests.narrow_models import CLASSIFIERS, DETECTOR, narrowed

REQUEST = SimpleNamespace(session_hash="visitor")


@pytest.fixture
def handlers(no_weights: Mock, garments: Registry) -> CameraHandlers:
    """Narrow models without weights."""
    return CameraHandlers(Runtime(Predictors(), narrowed(garments, CLASSIFIERS)))


def opened(handlers: CameraHandlers, task: str = CLUSTERS, request: Any = REQUEST) -> tuple[str, dict[str, Any]]:
    """The notice and what the browser gets."""
    *_, last = handlers.open(request, task, MODEL, DETECTOR, 320)
    return last["notice"], last["view"]


def frame(key: str, pixels: np.ndarray | None = None) -> dict[str, str]:
    return {"run": key, "jpeg": encoded(scene() if pixels is None else pixels)}


@pytest.mark.parametrize("task", [CLASSIFY, CLUSTERS, DETECT])
def test_a_frame_is_answered_with_a_drawn_one_its_times_and_its_cost(handlers: CameraHandlers, task: str) -> None:
    words, value = opened(handlers, task)
    assert (
        "No predictions from STViT-R-Swin-S: The Hugging Face Hub cannot be reached." in words
        and value["maxSide"] == MAX_SIDE
    )
    pixels = scene(90, 121)
    answer = handlers.answer(frame(value["run"], pixels))
    drawn = np.asarray(Image.open(BytesIO(b64decode(answer["jpeg"]))))
    assert drawn.shape == pixels.shape and np.abs(drawn.astype(int) - pixels).mean() > 15
    assert 0 < answer["modelMs"] < answer["serverMs"]
    assert 0 < answer["macs"] < answer["fullTokenMacs"] and answer["ofBackbone"] == (task == DETECT)
    assert (answer["label"], answer["engine"]) == ("STViT-R-Swin-S", "eager PyTorch")


def test_frames_go_on_after_one_that_is_damaged(handlers: CameraHandlers) -> None:
    key = opened(handlers)[1]["run"]
    assert "no whole JPEG" in handlers.answer({"run": key, "jpeg": "AAAA"})["error"]
    assert "jpeg" in handlers.answer(frame(key))


@pytest.mark.parametrize("sent", [None, 5, [], {}, {"run": "guess"}, {"run": ["a"], "jpeg": "AAAA"}])
def test_frames_without_a_run_are_not_decoded(handlers: CameraHandlers, sent: object) -> None:
    opened(handlers)
    assert handlers.answer(sent) == GONE


def test_after_a_stop_frames_find_no_run(handlers: CameraHandlers) -> None:
    key = opened(handlers)[1]["run"]
    handlers.close(REQUEST)
    assert handlers.answer(frame(key)) == GONE and len(handlers.runs) == 0


def held_up(handlers: CameraHandlers) -> tuple[Event, Event]:
    """Let the model wait: events that it was asked, and that it may go on."""
    asked, go_on, predict = Event(), Event(), handlers.runtime.predict_frame

    def slow(*arguments: Any) -> Any:
        asked.set()
        assert go_on.wait(60)
        return predict(*arguments)

    handlers.runtime.predict_frame = slow
    return asked, go_on


def in_background(work: Callable[[], Any]) -> tuple[Thread, list[Any]]:
    results: list[Any] = []
    thread = Thread(target=lambda: results.append(work()))
    thread.start()
    return thread, results


def test_a_run_has_one_frame_in_flight(handlers: CameraHandlers) -> None:
    key = opened(handlers)[1]["run"]
    asked, go_on = held_up(handlers)
    thread, results = in_background(lambda: handlers.answer(frame(key)))
    assert asked.wait(60)
    assert handlers.answer(frame(key)) == BUSY
    go_on.set()
    thread.join(60)
    assert "jpeg" in results[0] and "jpeg" in handlers.answer(frame(key))


def test_cameras_take_turns_and_nobody_waits_for_the_device_meanwhile(handlers: CameraHandlers) -> None:
    keys = [opened(handlers, request=SimpleNamespace(session_hash=name))[1]["run"] for name in "ab"]
    asked, go_on = held_up(handlers)
    threads = [in_background(lambda key=key: handlers.answer(frame(key)))[0] for key in keys]
    assert asked.wait(60)
    asked.clear()
    assert not asked.wait(0.2)  # the second camera has not reached the model
    handlers.runtime.predictors.compute.run(len, ())  # another tab gets the device at once
    go_on.set()
    for thread in threads:
        thread.join(60)


def test_visitors_do_not_share_what_is_remembered(handlers: CameraHandlers) -> None:
    keys = [opened(handlers, request=SimpleNamespace(session_hash=name))[1]["run"] for name in "ab"]
    for key in keys:
        handlers.answer(frame(key))
    annotators = [handlers.runs.find(key)._annotator for key in keys]
    assert annotators[0] is not annotators[1]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemory("The device is full."), "The device is full."),
        (RuntimeError("not enough memory: you tried to allocate 1 byte"), "not enough memory for this model"),
        (gr.Error("You have used up your GPU quota."), "used up your GPU quota"),
    ],
)
def test_what_goes_wrong_in_the_model_is_told_and_the_run_is_free_again(
    handlers: CameraHandlers, error: Exception, message: str
) -> None:
    key = opened(handlers)[1]["run"]
    handlers.runtime.predict_frame = Mock(side_effect=error)
    for _ in range(2):
        assert message in handlers.answer(frame(key))["error"]


def test_a_defect_is_not_swallowed(handlers: CameraHandlers) -> None:
    key = opened(handlers)[1]["run"]
    handlers.runtime.predict_frame = Mock(side_effect=RuntimeError("a defect"))
    with pytest.raises(RuntimeError, match="a defect"):
        handlers.answer(frame(key))


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (("Fly", MODEL, DETECTOR, 320), "no task 'Fly'"),
        ((CLUSTERS, "resnet50", DETECTOR, 320), "not offered"),
        ((DETECT, MODEL, MODEL, 320), "not offered"),
        ((DETECT, MODEL, DETECTOR, 321), "not offered"),
        ((["a"], {}, None, None), "no task"),
    ],
)
def test_what_is_not_on_offer_is_refused_and_the_browser_learns_of_it(
    handlers: CameraHandlers, choice: tuple[Any, ...], words: str
) -> None:
    (fields,) = handlers.open(REQUEST, *choice)
    told, value = fields["notice"], fields["view"]
    assert 'role="alert"' in told and words in value["refused"] and len(handlers.runs) == 0


@pytest.mark.parametrize("where", ["load_models", "job_notice"])
def test_no_memory_for_a_model_is_told_to_the_browser_that_waits_for_it(
    handlers: CameraHandlers, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    monkeypatch.setattr(f"demo.tabs.camera.handlers.{where}", Mock(side_effect=OutOfMemory(NO_ROOM)))
    told, value = opened(handlers)
    assert 'role="alert"' in told and value["refused"] == NO_ROOM and len(handlers.runs) == 0


def test_the_browser_hears_of_a_model_on_its_way(handlers: CameraHandlers) -> None:
    first, *_ = (tuple(fields.values()) for fields in handlers.open(REQUEST, CLUSTERS, MODEL, DETECTOR, 320))
    assert "Loading STViT-R-Swin-S" in first[0] and "run" not in first[1] and first[1]["at"] > 0


def test_a_model_of_this_project_introduces_itself(handlers: CameraHandlers) -> None:
    words, size = handlers.introduce(DETECT, MODEL, "garments_detect_stvit_r", 320).values()
    assert "41.5 % box AP" in words and not size.visible
    words, size = handlers.introduce(DETECT, MODEL, DETECTOR, 320).values()
    assert words == "" and size.visible
    with pytest.raises(gr.Error, match="not offered"):
        handlers.introduce(CLUSTERS, "resnet50", DETECTOR, 320)


def test_a_full_token_model_costs_as_much_as_itself(handlers: CameraHandlers) -> None:
    *_, last = handlers.open(REQUEST, CLASSIFY, "garments_swin", DETECTOR, 320)
    answer = handlers.answer(frame(last["view"]["run"]))
    assert answer["fullTokenMacs"] == answer["macs"]


def test_one_camera_too_many_is_refused_in_words(handlers: CameraHandlers) -> None:
    for visitor in range(MAX_RUNS):
        opened(handlers, request=SimpleNamespace(session_hash=str(visitor)))
    assert "Try again when one of them has stopped" in opened(handlers)[1]["refused"]


def test_another_choice_replaces_a_running_camera_and_starts_none(handlers: CameraHandlers) -> None:
    choice = (CLASSIFY, MODEL, DETECTOR, 320)
    assert len(list(handlers.change(REQUEST, *choice))) == 1 and len(handlers.runs) == 0
    key = opened(handlers)[1]["run"]
    *_, last = handlers.change(REQUEST, *choice)
    value = last["view"]
    assert value["run"] != key and handlers.answer(frame(key)) == GONE
    assert handlers.runs.find(value["run"]).job.task == CLASSIFY


def test_the_pickers_follow_the_task(handlers: CameraHandlers) -> None:
    for task, expected in ((CLUSTERS, [True, False]), (DETECT, [False, True])):
        assert [column.visible for column in handlers.arrange(task).values()] == expected


def test_nothing_is_kept_of_a_visitor_who_left_however_often_they_came(handlers: CameraHandlers) -> None:
    for visit in range(20):
        request = SimpleNamespace(session_hash=f"visit {visit}")
        handlers.answer(frame(opened(handlers, request=request)[1]["run"]))
        handlers.close(request)
    assert len(handlers.runs) == 0
