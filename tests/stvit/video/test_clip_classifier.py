"""Clip models on a sliding window: what a window holds, what is said about it, and about the whole clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stvit.predict.clips import DEVIATION, MEAN, ClipClassifier, Sampling, average_views, clip_indices, make_views
from stvit.video.__main__ import main, report_views
from stvit.video.decode import ClipReader
from stvit.video.frame_models import WindowClassifier
from stvit.video.pipeline import process
from stvit.video.probe import probe
from stvit.video.tasks import AnnotateTask, SideBySideTask
from stvit.video.types import Limits, Progress, VideoError
from tests.stvit.models.clip_models import full_token, with_semantic_tokens
from tests.stvit.video.clips import FIRST, STEP, make_clip, scene

SAMPLING = Sampling(length=4, interval=2, size=32)  # windows of 8 frames, one after every second frame
NAMES = tuple(f"ends with {number}" for number in range(20))
CLASSES = tuple("abcdefg")


class Reader(nn.Module):
    """A stand-in that reads from the pixels which frames it is given, and is sure of the last one."""

    num_classes = 20

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.windows: list[list[int]] = []

    def forward(self, clips: Tensor) -> Tensor:
        if clips.is_meta:
            return clips.new_zeros(len(clips), 20)
        mean, deviation = (torch.tensor(values).view(3, 1, 1, 1) for values in (MEAN, DEVIATION))
        levels = ((clips * deviation + mean) * 255).flatten(3).median(dim=3).values[:, 0]
        numbers = ((levels - FIRST) / STEP).round().long() % 20
        self.windows += numbers.tolist()
        return 10.0 * nn.functional.one_hot(numbers[:, -1], 20)


def window_classifier(
    network: nn.Module, label: str, *, sampling: Sampling, classes: tuple[str, ...], **more: Any
) -> WindowClassifier:
    return WindowClassifier(ClipClassifier(network, sampling=sampling, classes=classes), label, **more)


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def run(tmp_path: Path, task: Any, frames: int, size_hw: tuple[int, int] = (64, 128)) -> tuple[Progress, list[dict]]:
    source = make_clip(tmp_path / "a.mp4", frames, size_hw)
    *_, last = process(source, tmp_path / "b.mp4", task, records=tmp_path / "b.jsonl")
    return last, lines_of(tmp_path / "b.jsonl")


def test_a_window_ends_with_its_batch_and_short_ones_are_played_in_a_loop(tmp_path: Path) -> None:
    network = Reader()
    run(tmp_path, AnnotateTask(window_classifier(network, "Reader", sampling=SAMPLING, classes=NAMES)), 12)
    warm_up, *windows = network.windows
    assert warm_up == windows[0] == [0, 0, 0, 0]
    assert windows[1:3] == [[0, 2, 1, 0], [0, 2, 4, 1]]
    assert windows[3:] == [[0, 2, 4, 6], [1, 3, 5, 7], [3, 5, 7, 9], [4, 6, 8, 10]]  # the last batch is not full


def test_every_frame_says_which_window_its_action_is_from(tmp_path: Path) -> None:
    model = window_classifier(Reader(), "Reader", sampling=SAMPLING, classes=NAMES)
    _, (*frames, _) = run(tmp_path, AnnotateTask(model), 12)
    assert [line["frame"] for line in frames] == list(range(12))
    assert [line["window"]["last_frame"] for line in frames] == [0, 2, 2, 4, 4, 6, 6, 8, 8, 10, 10, 11]
    assert frames[9]["window"] == {"first_frame": 3, "last_frame": 10, "whole": True}
    assert frames[9]["top1"]["label"] == "ends with 9" and frames[9]["top1"]["probability"] > 0.99
    assert frames[0]["window"] == {"first_frame": 0, "last_frame": 0, "whole": False}


def test_the_whole_clip_is_the_mean_over_whole_windows(tmp_path: Path) -> None:
    model = window_classifier(Reader(), "Reader", sampling=SAMPLING, classes=NAMES)
    last, lines = run(tmp_path, AnnotateTask(model), 12)
    assert lines[-1] == {"clip": last.conclusion}
    whole = last.conclusion["model"]
    assert whole["windows"] == 3
    top = {entry["label"]: entry["probability"] for entry in whole["top5"]}
    assert [top[f"ends with {number}"] for number in (7, 9, 10)] == pytest.approx([1 / 3] * 3, abs=1e-2)


def test_a_clip_shorter_than_a_window_is_judged_by_all_of_it(tmp_path: Path) -> None:
    model = window_classifier(Reader(), "Reader", sampling=SAMPLING, classes=NAMES)
    last, _ = run(tmp_path, AnnotateTask(model), 5)
    assert last.conclusion["model"]["windows"] == 1
    assert last.conclusion["model"]["top5"][0]["label"] == "ends with 1"  # frames 0, 2, 4, and again 1


def test_without_weights_nothing_is_said(tmp_path: Path) -> None:
    model = window_classifier(Reader(), "Reader", sampling=SAMPLING, classes=NAMES, predicts=False)
    last, lines = run(tmp_path, AnnotateTask(model), 6)
    assert last.conclusion == {} and len(lines) == 6
    assert not any("top1" in line for line in lines) and all("window" in line for line in lines)


def test_only_as_many_small_frames_are_kept_as_a_window_reaches() -> None:
    model = window_classifier(Reader(), "Reader", sampling=SAMPLING, classes=NAMES)
    model.begin((64, 128))
    recent = [model.prepare(scene(index, (64, 128))) for index in range(30)]
    assert [len(entry.frames) for entry in recent] == [1, 2, 3, 4, 5, 6, 7] + [8] * 23
    assert recent[-1].frames[0] is recent[-8].frames[-1] and recent[-1].frames[0].shape == (3, 32, 32)
    model.begin((64, 128))
    assert len(model.prepare(scene(0, (64, 128))).frames) == 1


def test_regions_are_those_of_the_token_frame_that_a_frame_belongs_to() -> None:
    network, sampling = with_semantic_tokens(), Sampling(8, 1, 112)
    model = window_classifier(network, "STViT", sampling=sampling, classes=CLASSES)
    model.begin((120, 200))
    batch = [model.prepare(scene(index, (120, 200))) for index in range(8)]
    results = model.infer(batch[6:])
    clip = torch.stack(batch[-1].frames, dim=1).float() / 255
    normalised = (clip - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(DEVIATION).view(3, 1, 1, 1)
    with torch.inference_mode():
        logits, trace = network(normalised[None], return_trace=True)
    layer = trace.cluster_layers()[-1]
    for result in results:
        assert result.regions.assignment.shape == layer.image_grid_hw and result.regions_xyxy == (40, 0, 160, 120)
        assert (result.regions.assignment.ravel() == layer.clusters()[3].numpy()).mean() > 0.98  # frames 6 and 7
        assert result.regions.num_tokens == int(np.prod(layer.semantic_grid_hw))
    assert results[0].top1[0] == CLASSES[logits.argmax()]
    assert results[0].top1[1] == pytest.approx(logits.softmax(-1).max().item(), abs=1e-4)


def test_regions_are_drawn_and_a_full_token_model_has_none(tmp_path: Path) -> None:
    sampling = Sampling(4, 2, 112)
    model = window_classifier(with_semantic_tokens(), "STViT", sampling=sampling, classes=CLASSES)
    baseline = window_classifier(full_token(), "Swin", sampling=sampling, classes=CLASSES)
    last, (*frames, _) = run(tmp_path, SideBySideTask(model, baseline), 9, (96, 128))
    assert all("regions" in line["model"] and "regions" not in line["baseline"] for line in frames)
    assert set(last.conclusion) == {"model", "baseline", "race"} and model.macs < baseline.macs


def test_side_by_side_each_model_has_windows_of_its_own(tmp_path: Path) -> None:
    left, right = Reader(), Reader()
    models = [
        window_classifier(network, "Reader", sampling=sampling, classes=NAMES)
        for network, sampling in ((left, SAMPLING), (right, Sampling(length=2, interval=4, size=48)))
    ]
    _, (*frames, _) = run(tmp_path, SideBySideTask(*models), 12)
    assert all(line["model"]["window"] == line["baseline"]["window"] for line in frames)  # both reach over 8 frames
    assert [3, 5, 7, 9] in left.windows and [3, 7] in right.windows


def test_the_papers_views_are_taken_from_the_file(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 18, (64, 128))
    network = full_token()
    model = window_classifier(network, "Swin", sampling=SAMPLING, classes=CLASSES)
    window = model.classify_views(probe(source), 18, clips=3, crops=3)
    frames = torch.stack([torch.from_numpy(frame.picture.rgb()) for frame in ClipReader(probe(source), 1920)])
    with torch.inference_mode():
        views = make_views(frames, clip_indices(18, 3, 4, 2), crops=3, size=32)
        expected = average_views(network(views))
    np.testing.assert_allclose(window.scores, expected.numpy(), atol=1e-5)
    assert len(views) == 9 and sum(window.scores) == pytest.approx(1, abs=1e-5)
    with pytest.raises(VideoError):
        model.classify_views(probe(source), 18, limits=Limits(max_seconds=0.5))


def test_names_have_to_fit_the_model() -> None:
    with pytest.raises(ValueError, match="the model has 7 classes, but 2 names were given"):
        window_classifier(full_token(), "Swin", sampling=SAMPLING, classes=("a", "b"))


def test_the_command_line_runs_a_clip_model(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 6)
    arguments = ["--task", "action", "--model", "video_swin_tiny", "--random-weights", "--window", "4", "1", "32"]
    records = ["--records", str(tmp_path / "b.jsonl"), "--device", "cpu"]
    assert main([str(source), str(tmp_path / "b.mp4"), *arguments, *records]) == 0
    assert [line["window"]["last_frame"] for line in lines_of(tmp_path / "b.jsonl")] == list(range(6))


def test_the_command_line_names_what_does_not_fit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "names.txt").write_text("walk\nrun\n")
    arguments = [str(make_clip(tmp_path / "a.mp4", 2)), str(tmp_path / "b.mp4"), "--device", "cpu", "--task", "action"]
    small = ["--model", "video_swin_tiny", "--random-weights", "--window", "2", "1", "32"]
    assert main([*arguments, *small, "--classes", str(tmp_path / "names.txt")]) == 1
    assert "has 400 classes, but there are 2 names" in capsys.readouterr().err
    assert main([*arguments, *small, "--classes", str(tmp_path / "none.txt")]) == 1
    assert "cannot be read" in capsys.readouterr().err
    for wrong in (["--views", "4x3", "--random-weights"], ["--window", "0", "1", "32"]):
        with pytest.raises(SystemExit):
            main([*arguments, *wrong])
    assert "--window takes three numbers" in capsys.readouterr().err


def test_views_are_reported_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = window_classifier(full_token(), "Swin", sampling=SAMPLING, classes=CLASSES)
    last, _ = run(tmp_path, AnnotateTask(model), 9)
    report_views([model], last, "4x3", Limits())
    told = capsys.readouterr().out.splitlines()
    assert told[0].startswith("Swin, 4 x 3 views") and len(told) == 6 and told[1].split()[-1] in CLASSES
