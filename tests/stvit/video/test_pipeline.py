from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Event
from typing import Any

import av
import numpy as np
import pytest

from stvit.draw.palette import OPACITY, class_colours
from stvit.video.pipeline import Cancelled, process
from stvit.video.tasks import AnnotateTask
from stvit.video.types import Progress, VideoError
from tests.stvit.video.clips import (
    ORIENTATIONS,
    SQUARE,
    Seer,
    frame_number,
    frames_of,
    make_clip,
    red_left,
    scene,
    squares,
    with_matrix,
)


def run(source: Path, target: Path, model: Any = None, **more: Any) -> list[Progress]:
    return list(process(source, target, AnnotateTask(model or Seer()), **more))


def left_over(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()} - {"a.mp4"}


@pytest.fixture
def threads_end() -> Iterator[None]:
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 60
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    assert threading.active_count() == before


def test_every_frame_gets_its_own_annotation(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 17, (96, 160), sound="aac")
    *_, last = run(source, tmp_path / "b.mp4", records=tmp_path / "b.jsonl")
    assert last.done and last.part == 1.0 and last.frames == 17 and last.note == ""
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(17))
    assert [line["top1"]["label"] for line in lines] == [f"frame {index}" for index in range(17)]
    np.testing.assert_allclose([line["time_s"] for line in lines], np.arange(17) / 10, atol=1e-3)
    for index, line in enumerate(lines):
        red = line["objects"][0]
        assert (
            abs(red["box_xyxy"][0] - red_left(index)) <= 2 and abs(red["box_xyxy"][2] - red_left(index) - SQUARE) <= 2
        )
        assert [entry["track"] for entry in line["objects"]] == ([None, None] if index == 0 else [1, 2])


def test_what_is_drawn_is_on_the_frame_that_it_belongs_to(tmp_path: Path) -> None:
    run(make_clip(tmp_path / "a.mp4", 12, (240, 320)), tmp_path / "b.mp4")
    drawn = frames_of(tmp_path / "b.mp4")
    assert [frame_number(pixels) for _, pixels in drawn] == list(range(12))
    for index, (_, pixels) in enumerate(drawn[1:], start=1):
        left = 320 - SQUARE - red_left(index)  # the blue square: the words do not cover it
        inner = pixels[44:54, left + 6 : left + SQUARE - 6].astype(int).mean(axis=(0, 1))
        mixed = (1 - OPACITY) * np.array([30, 30, 230]) + OPACITY * class_colours(1)[0].astype(float)
        assert np.abs(inner - mixed).max() < 40, index


def test_size_length_and_sound_stay(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.3, 0.35, 0.9, 1.1]
    run(make_clip(tmp_path / "a.mp4", 6, (66, 130), times=times, sound="aac"), tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert (container.streams.video[0].width, container.streams.video[0].height) == (130, 66)
        assert container.streams.audio[0].codec_context.name == "aac"
    np.testing.assert_allclose([time for time, _ in frames_of(tmp_path / "b.mp4")], times, atol=2e-3)


def test_the_last_frame_of_a_gif_is_shown_for_its_own_time(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.gif", 4, codec="gif", pix_fmt="rgb8", times=[0.0, 0.1, 0.8, 0.84])
    content = bytearray(source.read_bytes())
    delay = content.rindex(b"\x21\xf9\x04") + 4
    content[delay : delay + 2] = (150).to_bytes(2, "little")
    source.write_bytes(content)
    run(source, tmp_path / "b.mp4")
    np.testing.assert_allclose([time for time, _ in frames_of(tmp_path / "b.mp4")], [0.0, 0.1, 0.8, 0.84], atol=2e-3)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.duration / av.time_base == pytest.approx(2.34, abs=2e-3)


@pytest.mark.parametrize("matrix", ORIENTATIONS)
def test_the_records_of_mirrored_clips_are_about_upright_frames(tmp_path: Path, matrix: tuple) -> None:
    source = with_matrix(make_clip(tmp_path / "a.mp4", 2), matrix)
    run(source, tmp_path / "b.mp4", records=tmp_path / "b.jsonl")
    upright = ORIENTATIONS[matrix](scene(0, (64, 128)))
    wanted = squares(upright).boxes.numpy()
    line = json.loads((tmp_path / "b.jsonl").read_text().splitlines()[0])
    np.testing.assert_allclose([entry["box_xyxy"] for entry in line["objects"]], wanted, atol=2)


def test_the_first_frame_goes_alone_and_the_rest_in_batches(tmp_path: Path) -> None:
    model = Seer(batch_size=4)
    run(make_clip(tmp_path / "a.mp4", 12), tmp_path / "b.mp4", model)
    assert model.batches == [1, 4, 4, 3]


class Slow(Seer):
    """Takes its time, without the processor."""

    def __init__(self, seconds: float, fail_at: int = -1) -> None:
        super().__init__(batch_size=2)
        self.seconds, self.fail_at, self.seen = seconds, fail_at, 0

    def infer(self, batch: list, *, compared: bool = False) -> list:
        time.sleep(self.seconds * len(batch))
        self.seen += len(batch)
        if 0 <= self.fail_at < self.seen:
            raise ArithmeticError("the model breaks")
        return super().infer(batch)


def test_stages_work_at_the_same_time(tmp_path: Path) -> None:
    """The model's second batch and the drawing of the first frame wait for each other: both at once, or never."""
    meeting = threading.Barrier(2, timeout=60)

    class Meeting(Slow):
        def infer(self, batch: list, *, compared: bool = False) -> list:
            if self.seen == 1:
                meeting.wait()
            return super().infer(batch)

    class Drawing(AnnotateTask):
        frames = 0

        def draw(self, frame: Any, result: Any) -> Any:
            self.frames += 1
            if self.frames == 1:
                meeting.wait()
            return super().draw(frame, result)

    source = make_clip(tmp_path / "a.mp4", 20)
    *_, last = process(source, tmp_path / "b.mp4", Drawing(Meeting(0.01)))
    assert last.done and last.busy_s["model"] >= 20 * 0.01 and last.busy_s["draw"] > 0


def test_progress_comes_while_the_clip_is_processed(tmp_path: Path) -> None:
    states = run(make_clip(tmp_path / "a.mp4", 20), tmp_path / "b.mp4", Slow(0.06))
    seen = [state for state in states if not state.done and state.preview is not None]
    assert len(seen) >= 2 and seen[0].preview.size_hw == (64, 128)
    assert [state.frames for state in states] == sorted(state.frames for state in states)
    assert all(state.eta_s >= 0 for state in seen if state.part) and states[-1].eta_s == 0


@pytest.mark.usefixtures("threads_end")
def test_cancel_stops_within_a_batch_and_leaves_no_file(tmp_path: Path) -> None:
    cancel, model = Event(), Slow(0.1)
    states = process(
        make_clip(tmp_path / "a.mp4", 20),
        tmp_path / "b.mp4",
        AnnotateTask(model),
        records=tmp_path / "b.jsonl",
        cancel=cancel,
    )
    while not next(states).frames:
        pass
    seen = model.seen
    cancel.set()
    with pytest.raises(Cancelled):
        next(states)
    assert model.seen <= seen + 2 * model.batch_size  # the batch under way, and one that began meanwhile
    assert left_over(tmp_path) == set()


def test_the_callers_event_is_left_as_it_is(tmp_path: Path) -> None:
    source, cancel = make_clip(tmp_path / "a.mp4", 3), Event()
    for _ in range(2):
        *_, last = run(source, tmp_path / "b.mp4", cancel=cancel)
        assert last.done and not cancel.is_set()
    cancel.set()
    with pytest.raises(Cancelled):
        run(source, tmp_path / "b.mp4", cancel=cancel)


@pytest.mark.usefixtures("threads_end")
def test_letting_go_of_the_iterator_stops_everything(tmp_path: Path) -> None:
    states = process(make_clip(tmp_path / "a.mp4", 20), tmp_path / "b.mp4", AnnotateTask(Slow(0.1)))
    next(states)
    states.close()
    assert left_over(tmp_path) == set()


@pytest.mark.usefixtures("threads_end")
@pytest.mark.parametrize("stage", ["decode", "prepare", "model", "draw", "encode"])
def test_an_error_of_any_stage_comes_out_and_ends_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    def broken(*arguments: Any, **more: Any) -> Any:
        raise ArithmeticError("the model breaks")

    model = Slow(0.0, fail_at=5) if stage == "model" else Seer()
    if stage == "decode":
        monkeypatch.setattr("stvit.video.decode.ClipReader._upright", broken)
    elif stage == "prepare":
        model.prepare = broken
    elif stage == "draw":
        monkeypatch.setattr("stvit.video.annotate.Annotator.draw", broken)
    elif stage == "encode":
        monkeypatch.setattr("stvit.video.encode.ClipWriter.write", broken)
    with pytest.raises(ArithmeticError, match="the model breaks"):
        run(make_clip(tmp_path / "a.mp4", 20), tmp_path / "b.mp4", model, records=tmp_path / "b.jsonl")
    assert left_over(tmp_path) == set()


def test_a_file_that_is_no_clip_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_text("words")
    with pytest.raises(VideoError, match="holds text"):
        run(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert left_over(tmp_path) == set()


def test_a_clip_without_a_stated_length_is_processed(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.h264", 8, codec="libx264")
    *_, last = run(source, tmp_path / "b.mp4")
    assert last.frames == 8 and len(frames_of(tmp_path / "b.mp4")) == 8


def resident_mb() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise OSError("no VmRSS")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's process status")
def test_memory_stays_flat_over_many_clips_and_threads_and_files_are_let_go(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 10, (240, 320), sound="aac")
    for _ in range(5):
        run(source, tmp_path / "b.mp4")
    before, files, threads = resident_mb(), len(list(Path("/proc/self/fd").iterdir())), threading.active_count()
    for _ in range(50):
        run(source, tmp_path / "b.mp4")
    assert resident_mb() - before < 40
    assert len(list(Path("/proc/self/fd").iterdir())) <= files and threading.active_count() <= threads


def test_few_frames_are_in_memory_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    alive, most = 0, 0

    class Counted(Seer):
        def prepare(self, pixels: np.ndarray) -> np.ndarray:
            nonlocal alive, most
            alive += 1
            most = max(most, alive)
            return super().prepare(pixels)

    class Counting(AnnotateTask):
        def draw(self, frame: Any, result: Any) -> Any:
            nonlocal alive
            time.sleep(0.002)
            alive -= 1
            return super().draw(frame, result)

    list(process(make_clip(tmp_path / "a.mp4", 100, fps=50), tmp_path / "b.mp4", Counting(Counted(batch_size=2))))
    assert most <= 2 * 2 * 2 + 2 + 3
