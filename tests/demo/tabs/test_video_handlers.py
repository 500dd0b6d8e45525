from __future__ import annotations

import json
from itertools import permutations
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import av
import gradio as gr
import pytest

from demo.charts.video import whole_clip
from demo.model_cache import OutOfMemory
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.tabs.video.handlers import EXAMPLE_CLIP, VideoHandlers
from demo.video import ACTION, CLASSIFY, CLUSTERS, DETECT, ClipJob, make_job
from stvit.video.probe import probe
from stvit.video.types import VideoError
from tests.demo.conftest import BASELINE, MODEL, OFFERED
from tests.narrow_models import CLASSIFIERS, CLIP_MODELS, DETECTOR, narrowed
from tests.stvit.video.clips import make_clip
from weights.garments.datasets import MOTIONS

REQUEST = SimpleNamespace(session_hash="visitor")
CLIP_MODEL = "stvit_video_swin_tiny"


@pytest.fixture
def uploads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Gradio's folder."""
    folder = tmp_path / "uploads"
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(folder))
    return folder


@pytest.fixture
def handlers(no_weights: Mock, garments: Registry, uploads: Path) -> VideoHandlers:
    """Narrow models without weights."""
    return VideoHandlers(Runtime(Predictors(), narrowed(garments, CLASSIFIERS, CLIP_MODELS)))


@pytest.fixture
def clip(tmp_path: Path) -> str:
    return str(make_clip(tmp_path / "clip.mp4", 12, (96, 128), sound="aac"))


def chosen(task: str = CLUSTERS, model: str = MODEL, side_by_side: bool = False) -> tuple[Any, ...]:
    return task, model, "swin_small_patch4_window7_224", DETECTOR, 320, side_by_side, CLIP_MODEL


def run(handlers: VideoHandlers, path: str | None, *choice: Any) -> list[dict[str, Any]]:
    handlers.start(REQUEST, path)
    list(handlers.load(REQUEST, path, *choice))
    return list(handlers.process(REQUEST, path, *choice))


def path_of(shown: Any) -> str:
    value = shown.value
    while isinstance(value, dict):
        value = value.get("path") or value["video"]
    return value


def records_of(shown: dict[str, Any]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(path_of(shown["download_records"])).read_text().splitlines()]


@pytest.mark.parametrize("task", [CLASSIFY, CLUSTERS, DETECT])
def test_a_clip_becomes_a_clip_and_records_and_nothing_is_predicted_without_weights(
    handlers: VideoHandlers, clip: str, task: str
) -> None:
    *_, last = run(handlers, clip, *chosen(task))
    with av.open(path_of(last["video"])) as container:
        assert container.streams.video[0].frames == 12 and container.streams.audio
    lines = records_of(last)
    assert len(lines) == 12 and not any("top1" in line or "objects" in line for line in lines)
    assert all("regions" in line for line in lines) == (task != CLASSIFY)
    assert "No predictions from STViT-R-Swin-S: The Hugging Face Hub cannot be reached." in last["notice"]
    assert "12 frames in" in last["stages"] and last["download_clip"].interactive
    names = [Path(path_of(last[part])).name for part in ("download_clip", "download_records")]
    stem = f"stvit-r-swin-small-{task.lower().replace(' ', '-')}"
    assert names == [f"{stem}.mp4", f"{stem}.jsonl"]


def test_side_by_side_both_models_are_recorded(handlers: VideoHandlers, clip: str) -> None:
    *_, last = run(handlers, clip, *chosen(side_by_side=True))
    with av.open(path_of(last["video"])) as container:
        assert container.streams.video[0].width == 256
    *frames, conclusion = records_of(last)
    assert len(frames) == 12 and all({"model", "baseline"} <= line.keys() for line in frames)
    assert "frames/s" in conclusion["clip"]["race"]["headline"]


@pytest.mark.slow
def test_an_action_is_told_of_windows_and_the_page_says_that_there_are_no_weights(
    handlers: VideoHandlers, clip: str
) -> None:
    *_, last = run(handlers, clip, *chosen(ACTION, side_by_side=True))
    *lines, conclusion = records_of(last)
    assert len(lines) == 12 and all("top1" not in line["model"] for line in lines) and "race" in conclusion["clip"]
    assert lines[11]["model"]["window"] == {"first_frame": 0, "last_frame": 11, "whole": False}
    assert "regions" in lines[0]["model"] and "regions" not in lines[0]["baseline"]
    assert "No weights of STViT on Video Swin were ever published" in last["notice"]
    assert "STViT-Video-Swin-T and Video-Swin-T" in last["notice"]


def test_the_answer_for_the_whole_clip_is_shown() -> None:
    best = [{"label": "<b>", "probability": 0.7104}, {"label": "ironing", "probability": 0.0004}]
    shown = whole_clip({"model": "STViT", "windows": 3, "top5": best})
    assert "mean over 3 windows" in shown and "&lt;b&gt; <b>71.0 %</b>" in shown and "&lt; 0.1 %" in shown


def test_cancel_leaves_no_file_and_says_so(handlers: VideoHandlers, clip: str, uploads: Path) -> None:
    handlers.start(REQUEST, clip)
    list(handlers.load(REQUEST, clip, *chosen()))
    shown = handlers.process(REQUEST, clip, *chosen())
    next(shown)
    handlers.cancel(REQUEST)
    *_, last = shown
    assert "Stopped" in last["notice"] and not last["video"].visible and not last["download_clip"].interactive
    assert not [path for path in uploads.rglob("*") if path.is_file()]


def test_a_cancel_ends_with_its_run(handlers: VideoHandlers, clip: str) -> None:
    handlers.cancel(REQUEST)
    assert run(handlers, clip, *chosen())[-1]["video"].visible


def test_another_clip_ends_the_run_of_the_one_before(handlers: VideoHandlers, clip: str) -> None:
    handlers.start(REQUEST, clip)
    shown = handlers.process(REQUEST, clip, *chosen())
    next(shown)
    sent = handlers.start(REQUEST, clip)
    assert "data:image/jpeg;base64," in sent["preview"] and clip in sent["preview"]
    *_, last = shown
    assert not last["video"].visible
    assert "interactive" not in str(handlers.ended(REQUEST, clip)["run"])  # the buttons are the new run's
    assert list(handlers.process(REQUEST, clip, *chosen()))[-1]["video"].visible
    assert handlers.ended(REQUEST, clip)["run"].interactive
    assert not handlers.start(REQUEST, None)["run"].interactive and handlers._wanted == {}


def test_a_cancel_is_heard_before_the_models_are_loaded_and_no_folder_is_made(
    handlers: VideoHandlers, clip: str, uploads: Path
) -> None:
    handlers.start(REQUEST, clip)
    handlers.cancel(REQUEST)
    assert list(handlers.load(REQUEST, clip, *chosen())) == []
    assert not handlers.model_cache.is_ready(handlers.registry.find(MODEL))
    handlers.runtime.process_clip = Mock()
    (shown,) = handlers.process(REQUEST, clip, *chosen())
    assert "Stopped" in shown["notice"] and not uploads.exists()
    handlers.runtime.process_clip.assert_not_called()


def test_nothing_is_kept_of_visitors_who_cancelled_and_left(handlers: VideoHandlers, clip: str) -> None:
    handlers.start(REQUEST, clip)
    handlers.cancel(REQUEST)
    handlers.cancel(REQUEST)
    list(handlers.process(REQUEST, clip, *chosen()))
    assert handlers._wanted == {}


def test_a_bad_file_gets_its_message_and_leaves_nothing(handlers: VideoHandlers, tmp_path: Path, uploads: Path) -> None:
    (tmp_path / "words.mp4").write_text("these are words")
    *_, last = run(handlers, str(tmp_path / "words.mp4"), *chosen())
    assert "holds text, not a clip" in last["notice"] and not last["video"].visible
    assert not list(uploads.glob("clip-*"))


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OutOfMemory("The device is full."), "The device is full."),
        (RuntimeError("not enough memory: you tried to allocate 1 byte"), "not enough memory for this model"),
        (VideoError("The clip is damaged."), "The clip is damaged."),
    ],
)
def test_what_goes_wrong_under_way_is_told(handlers: VideoHandlers, clip: str, error: Exception, message: str) -> None:
    def failing(*arguments: Any) -> Any:
        raise error
        yield

    handlers.runtime.process_clip = failing
    assert message in run(handlers, clip, *chosen())[-1]["notice"]


def test_without_a_clip_nothing_runs_and_nothing_is_shown(handlers: VideoHandlers) -> None:
    (shown,) = run(handlers, None, *chosen())
    assert shown["notice"] == "" and not shown["video"].visible


@pytest.mark.parametrize(
    "choice",
    [
        ("Fly", MODEL, BASELINE, DETECTOR, 320, False, CLIP_MODEL),
        (CLUSTERS, "resnet50", BASELINE, DETECTOR, 320, False, CLIP_MODEL),
        (CLUSTERS, MODEL, MODEL, DETECTOR, 320, True, CLIP_MODEL),
        (DETECT, MODEL, BASELINE, MODEL, 320, False, CLIP_MODEL),
        (DETECT, MODEL, BASELINE, DETECTOR, 321, False, CLIP_MODEL),
        (ACTION, MODEL, BASELINE, DETECTOR, 320, False, MODEL),
    ],
)
def test_what_is_not_on_offer_is_refused(handlers: VideoHandlers, clip: str, choice: tuple[Any, ...]) -> None:
    handlers.start(REQUEST, clip)
    told = []
    with pytest.raises(gr.Error):
        for fields in handlers.load(REQUEST, clip, *choice):
            told.append(fields)
    assert 'class="notice error"' in told[-1]["notice"] and handlers._wanted == {}
    assert 'class="notice error"' in list(handlers.process(REQUEST, clip, *choice))[-1]["notice"]


def test_classifiers_stand_side_by_side_by_default(handlers: VideoHandlers, clip: str) -> None:
    assert [handlers.suit(task)["side_by_side"] for task in (CLASSIFY, DETECT, ACTION)] == [True, False, False]
    assert handlers.suit(CLUSTERS)["side_by_side"] == gr.skip()
    *_, last = run(handlers, clip, *chosen(CLASSIFY, side_by_side=True))
    assert "frames/s" in last["headline"]
    assert "this clip of 12 frames; eager PyTorch, " in last["headline"]


def test_a_detector_is_compared_with_the_full_token_one_of_its_size() -> None:
    ours, full = (OFFERED.find(f"{name}_base_cascade_mask_rcnn") for name in ("stvit_r_swin", "swin"))
    job = make_job(OFFERED, DETECT, MODEL, BASELINE, ours.name, 480, True)
    assert job == ClipJob(DETECT, ours, full, 480) and full.label == "Swin-B"


def test_any_method_races_any_other_on_either_side() -> None:
    first = {spec.method.name: spec.name for spec in reversed(list(OFFERED.of_task("classify")))}
    assert {"STViT-DeiT", "EViT-DeiT", "DynamicViT-DeiT", "ATC-DeiT", "A-ViT-DeiT"} <= first.keys()
    for left, right in permutations(first.values(), 2):
        job = make_job(OFFERED, CLASSIFY, left, right, DETECTOR, 480, True)
        assert [spec.name for spec in job.models] == [left, right]


def test_the_pickers_follow_the_task(handlers: VideoHandlers) -> None:
    def visible(task: str, side_by_side: bool) -> list[bool]:
        return [column.visible for column in handlers.arrange(task, side_by_side).values()]

    assert visible(CLUSTERS, False) == [True, False, False, False]
    assert visible(CLASSIFY, True) == [True, True, False, False]
    assert visible(DETECT, True) == [False, False, True, False]
    assert visible(ACTION, True) == [False, False, False, True]


def test_models_of_this_project_introduce_themselves_with_clips_that_they_know(
    handlers: VideoHandlers,
) -> None:
    clips, full = "garments_clips_stvit_swin", "garments_clips_swin"
    choice = (ACTION, MODEL, BASELINE, DETECTOR, 320, True, clips)
    words, examples, castle, size = handlers.introduce(*choice).values()
    assert not castle.visible
    assert words.count("<details") == 2 and "88.2 % top-1" in words and "cannot be compared" not in words
    assert "Moving garment" in examples and "Short clip 2" in examples and not size.visible
    assert handlers.gallery.chosen(SimpleNamespace(_data={"index": 0})).endswith("long.mp4")
    words, examples, castle, size = handlers.introduce(DETECT, *choice[1:-1], CLIP_MODEL).values()
    assert words == examples == "" and size.visible and castle.visible
    assert handlers.introduce(CLASSIFY, MODEL, MODEL, *choice[3:])["about"] == ""  # a list that has not followed yet
    assert [spec.name for spec in handlers.registry.pair(handlers.registry.first("video"))] == [clips, full]


def test_a_clip_model_of_this_project_says_what_it_sees(handlers: VideoHandlers) -> None:
    garment_clip = handlers.gallery.garments[0].path
    *_, last = run(
        handlers, str(garment_clip), ACTION, MODEL, BASELINE, DETECTOR, 320, False, "garments_clips_stvit_swin"
    )
    assert "No predictions" not in last["notice"]
    assert {label for line in records_of(last) if "top1" in line for label in [line["top1"]["label"]]} <= set(MOTIONS)
    assert any("top1" in line for line in records_of(last))


def test_the_example_clip_is_small_and_within_the_limits() -> None:
    info = probe(EXAMPLE_CLIP)
    assert EXAMPLE_CLIP.stat().st_size < 300_000 and info.codec == "h264" and info.frames == 30
    assert OFFERED.first("classify").name == MODEL
