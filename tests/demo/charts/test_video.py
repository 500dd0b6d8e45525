"""What is said about a finished clip."""

from __future__ import annotations

from pathlib import Path

from demo.api.video import DESCRIPTION
from demo.charts.video import finished
from stvit.video.types import ClipInfo, Progress

INFO = ClipInfo(Path("a.mp4"), "mp4", "h264", (64, 128), 0, 10.0, 1.0, 10, 0.0, "")


def test_the_stage_of_the_model_is_not_said_to_be_one_model() -> None:
    shown = finished(Progress(INFO, 10, 1.0, 5.0, {"model": 2.0}, engines=("eager", "openvino"), done=True))
    assert "10 frames in 5.0 s: 2.0 frames/s on eager PyTorch and OpenVINO</h4>" in shown
    assert "side by side: both models, and a few trial passes" in shown and "5.0 frames/s by itself" in shown
    assert "40% of that" in shown and "The model alone" not in shown


def test_the_pace_of_detectors_is_said_to_be_their_backbones() -> None:
    assert "The pace of a detector is its backbone's" in DESCRIPTION
