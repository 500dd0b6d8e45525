"""What the command line refuses, each with a message of its own, and trained models by their descriptions."""

from __future__ import annotations

import errno
import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

import stvit
from stvit.video.__main__ import main, report
from stvit.video.arguments import build_models, parse
from stvit.video.probe import probe
from stvit.video.types import Progress
from tests.narrow_models import DETECTOR, NARROW_DETECTOR
from tests.stvit.predict.test_scope import row
from tests.stvit.video.clips import make_clip

SMALL = "stvit_deit_tiny_patch16_224"
OPTIONS = {"img_size": 64, "embed_dim": 48, "num_heads": 3, "depth": 8, "num_semantic_tokens": 4, "num_classes": 3}
RECORD = {
    "model": SMALL,
    "options": OPTIONS,
    "task": "classify",
    "classes": ["one", "two", "three"],
    "input_size": 64,
    "seed": 0,
}
NARROW_SEGMENTER = {
    "embed_dim": 16,
    "depths": [1, 1, 6, 1],
    "num_heads": [1, 2, 4, 8],
    "channels": 8,
    "auxiliary_channels": 8,
    "num_classes": 3,
}
OF_CLIPS = {
    "model": "video_swin_tiny",
    "options": {"embed_dim": 24, "num_classes": 2},
    "task": "video",
    "classes": ["walk", "run"],
    "input_size": 32,
    "frames": 4,
    "stride": 1,
}


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "a.mp4", 3)


def described(folder: Path, name: str = "mine", **changed: Any) -> Path:
    """A description, and its weights beside it."""
    content = {**RECORD, **changed}
    torch.manual_seed(0)
    network = stvit.create_model(content["model"], **content["options"])
    save_file(network.state_dict(), folder / f"{name}.safetensors")
    content["sha256"] = hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest()
    (folder / f"{name}.json").write_text(json.dumps(content))
    return folder / f"{name}.json"


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    assert left.value.code == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--records", "none/b.jsonl"], "--records cannot be written: there is no folder"),
        (["--records", "."], "--records cannot be written: . is a folder"),
        (["--records", "{clip}"], "IN and --records are the same file"),
        (["--records", "{clip}/../b.mp4"], "OUT and --records are the same file"),
        (["--batch-size", "-1"], "--batch-size takes a number from 1 on, not -1"),
        (["--batch-size", "0"], "--batch-size takes a number from 1 on, not 0"),
        (["--scale", "0", "5"], "--scale takes two numbers"),
        (["--proposals", "300"], "--proposals is of a detector"),
        (["--max-seconds", "nan"], "--max-seconds and --max-megabytes are limits"),
        (["--task", "detect", "--model", SMALL], "no model for --task detect: its --task is classify or clusters"),
        (["--model", DETECTOR], "no model for --task classify: its --task is detect"),
        (["--baseline", "video_swin_tiny"], "no model for --task classify: its --task is action"),
        (["--model", "stvit_r_swin_small_upernet"], "no --task here runs it"),
        (["--model", "nothing"], "unknown model: nothing"),
        (["--model", "video_swin_tiney"], "Did you mean video_swin_tiny"),
        (["--checkpoint", "a.pth", "--random-weights"], "not allowed with argument"),
        (["--baseline-checkpoint", "a.pth"], "name that with --baseline"),
        (["--classes", "names.txt"], "others' names stand in their --record"),
        (["--record", "none.json"], "none.json does not describe a trained model"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_loaded(
    clip: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stvit.video.__main__.build_models", None)
    placed = [argument.replace("{clip}/..", str(clip.parent)).replace("{clip}", str(clip)) for argument in arguments]
    assert message in refused(capsys, clip, clip.with_name("b.mp4"), *placed)


def test_files_that_cannot_be_read_or_written_are_refused(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "c.mp4").mkdir()
    (tmp_path / "link.mp4").symlink_to(clip)
    assert "there is no folder" in refused(capsys, clip, tmp_path / "none" / "b.mp4")
    assert "c.mp4 is a folder" in refused(capsys, clip, tmp_path / "c.mp4")
    assert "IN and OUT are the same file" in refused(capsys, clip, tmp_path / "link.mp4")
    assert "is a folder" in refused(capsys, tmp_path, tmp_path / "b.mp4")
    assert "is not there" in refused(capsys, tmp_path / "none.mp4", tmp_path / "b.mp4")
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    assert "is read-only" in refused(capsys, clip, tmp_path / "b.mp4")
    monkeypatch.setattr("os.access", lambda path, mode: path != clip)
    assert "cannot be read" in refused(capsys, clip, tmp_path / "b.mp4")


def test_a_full_disk_is_told_and_nothing_is_left(
    clip: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("stvit.video.encode.ClipWriter.write", full)
    record = described(clip.parent)
    assert main([str(clip), str(clip.with_name("b.mp4")), "--record", str(record), "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "No space left on device" in told and "room on the disk" in told
    assert not list(clip.parent.glob("*b*"))


def test_a_trained_model_runs_by_its_description(clip: Path) -> None:
    scope = row(bias=-100.0, width=OPTIONS["embed_dim"]).model_dump()
    records, record = clip.with_name("b.jsonl"), described(clip.parent, scope=scope)
    arguments = [clip, clip.with_name("b.mp4"), "--record", record, "--task", "clusters", "--records", records]
    assert main([*map(str, arguments), "--device", "cpu"]) == 0
    lines = [json.loads(line) for line in records.read_text().splitlines()]
    assert len(lines) == 3 and {line["model"] for line in lines} == {"mine"}
    assert {line["top1"]["label"] for line in lines} <= set(RECORD["classes"])
    assert {line["in_scope"] for line in lines} == {False}  # as the card's row says of every picture


def test_a_description_says_the_task_and_all_that_the_model_has_to_know(clip: Path) -> None:
    detector = {
        "model": DETECTOR,
        "options": NARROW_DETECTOR | {"num_classes": 2},
        "classes": ["cup", "pot"],
        "task": "detect",
    }
    action, detect = described(clip.parent, "action", **OF_CLIPS), described(clip.parent, "detect", **detector)
    common = [str(clip), str(clip.with_name("b.mp4")), "--device", "cpu", "--precision", "float32", "--record"]
    options = parse([*common, str(action)], "")
    (model,) = build_models(options)
    assert options.task == "action" and (model.label, model.batch_size) == ("action", 1)
    assert model.input_key[1].size == 32 and model.input_key[1].length == 4
    (model,) = build_models(parse([*common, str(detect), "--proposals", "50"], ""))
    assert model._scale == (107, 64) and model.detector.classes == ("cup", "pot") and model.detector.proposals == 50


def test_weights_elsewhere_and_a_described_baseline_are_taken(clip: Path) -> None:
    record = described(clip.parent)
    moved = record.with_suffix(".safetensors").rename(clip.with_name("moved.safetensors"))
    beside = described(clip.parent, "beside", classes=["a", "b", "c"])
    arguments = [clip, clip.with_name("b.mp4"), "--record", record, "--checkpoint", moved, "--baseline-record", beside]
    options = parse([*map(str, arguments), "--device", "cpu"], "")
    assert [model.label for model in build_models(options)] == ["mine", "beside"]


def test_a_model_that_no_clip_is_run_on_is_refused(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = described(clip.parent, model="swin_small_upernet", task="segment", options=NARROW_SEGMENTER)
    told = refused(capsys, clip, clip.with_name("b.mp4"), "--record", record)
    assert "no --task here runs it" in told


def test_weights_that_changed_are_refused(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = described(clip.parent)
    with record.with_suffix(".safetensors").open("ab") as weights:
        weights.write(b"x")
    assert main([str(clip), str(clip.with_name("b.mp4")), "--record", str(record), "--device", "cpu"]) == 1
    told = capsys.readouterr().err
    assert "mine.safetensors are damaged: their sha256 is" in told and "Traceback" not in told
    assert not clip.with_name("b.mp4").exists()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classes": ["one"]}, "has 3 classes, but there are 1 names. Correct mine.json"),
        ({"options": {"keep_rates": 3}}, "cannot be made with the options in mine.json"),
        ({"options": {**OPTIONS, "embed_dim": 96}}, "of another shape"),
    ],
)
def test_a_description_that_does_not_fit_its_model_is_told(
    clip: Path, changed: dict[str, Any], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    record = described(clip.parent)
    record.write_text(json.dumps({**json.loads(record.read_text()), **changed}))
    assert main([str(clip), str(clip.with_name("b.mp4")), "--record", str(record), "--device", "cpu"]) == 1
    assert message in capsys.readouterr().err


def test_until_the_first_frames_are_drawn_the_line_says_so(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report(Progress(probe(clip), 0, 0.0, 1.0, {}))
    assert capsys.readouterr().err.strip() == "preparing the first frames"
