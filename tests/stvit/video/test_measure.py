"""The figures of a clip's whole way beside those of the model alone."""

from __future__ import annotations

import json
import time
from pathlib import Path

import numpy as np
import pytest

import stvit.video.measure
from stvit.video.measure import main, measure
from stvit.video.probe import probe
from stvit.video.types import STAGES, FrameResult, Limits
from tests.stvit.video.clips import Seer, make_clip

SLOWNESS_S = 0.02


@pytest.fixture(autouse=True)
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stvit.video.measure, "ALONE_S", 0.2)


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_clip(tmp_path / "a.mp4", 12)


class Slow(Seer):
    """Takes a known time for a frame."""

    def infer(self, batch: list[np.ndarray], *, compared: bool = False) -> list[FrameResult]:
        time.sleep(SLOWNESS_S * len(batch))
        return super().infer(batch, compared=compared)


def test_a_model_of_known_pace_is_measured_at_that_pace_at_most(clip: Path, tmp_path: Path) -> None:
    limits = Limits()
    (rates,) = measure(probe(clip, limits), [Slow()], 2, limits, tmp_path / "new.mp4")
    assert len(rates.alone) == len(rates.end_to_end) == 2  # the first round is not counted
    assert all(0 < rate <= 1 / SLOWNESS_S for rate in rates.alone)
    assert all(0 < rate <= 1 / SLOWNESS_S for rate in rates.end_to_end)
    assert all(busy >= 1e3 * SLOWNESS_S for busy in rates.busy_ms["model"])
    assert all(0 < first <= 12 / rate for first, rate in zip(rates.first_frame_s, rates.end_to_end, strict=True))
    figures = rates.as_json()
    first, median, third = figures["end_to_end_of_model_alone"]
    assert first <= median <= third and figures["busy_ms_per_frame"].keys() == set(STAGES)


def test_the_command_measures_model_and_baseline_and_leaves_no_clip(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--model", "stvit_deit_tiny_patch16_224", "--baseline", "deit_tiny_patch16_224", "--random-weights"]
    aims = ["--at-least", "0.001", "1e6", "--output", str(tmp_path / "new" / "f.json")]
    assert main([str(clip), *names, "--rounds", "1", "--device", "cpu", *aims]) == 0
    model, baseline = capsys.readouterr().out.splitlines()
    assert "frames/s from file to file" in model and model.endswith("the aim of 0.001 frames/s is met")
    assert "frames/s from file to file" in baseline and baseline.endswith("the aim of 1e+06 frames/s is missed")
    figures = json.loads((tmp_path / "new" / "f.json").read_text())
    assert [model["aim_fps"] for model in figures["models"].values()] == [0.001, 1e6]
    assert list(figures["models"]) == ["stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"]
    assert {model["engine"] for model in figures["models"].values()} == {"eager"}
    assert figures["clip"]["size_hw"] == list(probe(clip, Limits()).source_hw)
    assert {path.name for path in tmp_path.iterdir()} == {"a.mp4", "new"}


def test_what_cannot_be_measured_is_told(clip: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main([str(clip), "--rounds", "0"])
    assert "'0' is not a whole number from 1 on" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(clip), "--output", str(clip / "figures.json")])
    assert f"{clip} is no folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(clip), "--at-least", "1", "2", "--random-weights", "--device", "cpu"])
    assert "one number for each model: 1" in capsys.readouterr().err
    clip.write_bytes(b"no clip")
    assert main([str(clip), "--random-weights", "--device", "cpu"]) == 1
    assert capsys.readouterr().err.strip()


def test_stopping_it_is_no_traceback(
    clip: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(stvit.video.measure, "build_models", stop)
    assert main([str(clip), "--random-weights", "--device", "cpu"]) == 130
    assert capsys.readouterr().err == "\nStopped.\n"
