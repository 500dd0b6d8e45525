from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from stvit.detection import Detections
from stvit.draw.canvas import rgb_canvas
from stvit.predict.regions import TokenRegions
from stvit.video.annotate import Annotator
from stvit.video.decode import ClipReader
from stvit.video.picture import Picture
from stvit.video.pipeline import process
from stvit.video.scoreboard import SIDES, TRACK, Scoreboard, headline
from stvit.video.tasks import SideBySideTask
from stvit.video.types import Frame, FrameResult
from tests.stvit.video.clips import Seer, frame_number, frames_of, make_clip, scene

SIZE_HW = 96, 160


def halves(path: Path) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """What is between headline and bars."""
    top = Scoreboard(SIZE_HW, (Seer(), Seer()), None).top
    return [(time, *np.split(pixels[top : top + SIZE_HW[0]], 2, axis=1)) for time, pixels in frames_of(path)]


def race(tmp_path: Path, model_ms: float, baseline_ms: float, frames: int = 16) -> list[tuple[float, int, int]]:
    """Time, and the numbers of the frames on the left and on the right, over the new clip."""
    source = make_clip(tmp_path / "a.mp4", frames, (96, 160), sound="aac")
    task = SideBySideTask(Seer(model_ms), Seer(baseline_ms))
    *_, last = process(source, tmp_path / "b.mp4", task, records=tmp_path / "b.jsonl")
    assert last.frames == frames
    return [(time, frame_number(left), frame_number(right)) for time, left, right in halves(tmp_path / "b.mp4")]


def test_the_slower_side_lags_by_what_it_takes_longer_and_comes_to_its_end(tmp_path: Path) -> None:
    shown = race(tmp_path, 10.0, 20.0)
    assert [left for _, left, _ in shown[:16]] == list(range(16))
    right = [right for _, _, right in shown[1:]]
    assert right[:15] == [(index + 1) // 2 - 1 for index in range(1, 16)]
    assert right[14:] == list(range(7, 16)) and all(left == 15 for _, left, _ in shown[16:])
    np.testing.assert_allclose([time for time, *_ in shown[:16]], np.arange(16) / 10, atol=1e-3)
    assert shown[-1][0] == pytest.approx(2 * 1.5, rel=0.05)


def test_where_the_baseline_is_faster_the_left_side_lags(tmp_path: Path) -> None:
    shown = race(tmp_path, 20.0, 10.0)
    assert [right for *_, right in shown[:16]] == list(range(16))
    assert shown[15][1] == 7 and shown[-1][1:] == (15, 15)


def test_equal_models_stay_together(tmp_path: Path) -> None:
    assert all(left == right for _, left, right in race(tmp_path, 10.0, 10.0))


class Interrupted(Seer):
    """Takes fifty times as long in one pass, as beside a program that takes the cores."""

    def infer(self, batch: list[np.ndarray], *, compared: bool = False) -> list[FrameResult]:
        late = 50 if any(frame_number(pixels) == 9 for pixels in batch) else 1
        return [replace(result, pace_ms=late * result.pace_ms) for result in super().infer(batch)]


def test_a_side_that_is_interrupted_once_does_not_fall_behind(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 16, SIZE_HW)
    *_, last = process(source, tmp_path / "b.mp4", SideBySideTask(Seer(10.0), Interrupted(10.0)))
    assert all(frame_number(left) == frame_number(right) for _, left, right in halves(tmp_path / "b.mp4"))
    assert last.conclusion["race"]["headline"].endswith("no clear difference")


def test_a_second_reading_that_ends_early_leaves_its_last_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Short(ClipReader):
        def __iter__(self) -> Iterator[Frame]:
            return islice(super().__iter__(), 3)

    monkeypatch.setattr("stvit.video.tasks.ClipReader", Short)
    shown = race(tmp_path, 10.0, 20.0)
    assert [left for _, left, _ in shown[:16]] == list(range(16))
    assert [right for *_, right in shown[6:]] == [2] * len(shown[6:])


def test_both_models_are_recorded_for_every_frame(tmp_path: Path) -> None:
    race(tmp_path, 10.0, 20.0)
    lines = [json.loads(line) for line in (tmp_path / "b.jsonl").read_text().splitlines()]
    for index, line in enumerate(lines[:-1]):
        assert line["model"]["top1"]["label"] == line["baseline"]["top1"]["label"] == f"frame {index}"
        assert (line["model"]["model_ms"], line["baseline"]["model_ms"]) == (10.0, 20.0)


class Unsure(Seer):
    """Finds a hundred more objects, none of them sure."""

    def infer(self, batch: list[np.ndarray], *, compared: bool = False) -> list[FrameResult]:
        return [replace(result, found=self._more(result.found)) for result in super().infer(batch)]

    @staticmethod
    def _more(found: Detections) -> Detections:
        return Detections(
            boxes=torch.cat([found.boxes, found.boxes[:1].expand(100, 4)]),
            scores=torch.cat([found.scores, torch.full((100,), 0.4)]),
            labels=torch.zeros(len(found) + 100, dtype=torch.int64),
            mask_probabilities=torch.rand(len(found) + 100, 28, 28),
            image_hw=found.image_hw,
        )


def test_only_what_is_drawn_waits_for_the_slower_half(tmp_path: Path) -> None:
    task = SideBySideTask(Seer(10.0), Unsure(1000.0))
    waiting = []

    def watched(frame: Frame, pair: Any) -> Any:
        drawn = SideBySideTask.draw(task, frame, pair)
        waiting.append([followed for *_, followed in task._waiting])
        return drawn

    task.draw = watched
    list(process(make_clip(tmp_path / "a.mp4", 12, (96, 160)), tmp_path / "b.mp4", task))
    assert len(waiting[-1]) == 12
    for followed in waiting[-1]:
        found = followed.result.found
        assert len(found) == len(followed.numbers) == 2 and found.mask_probabilities.element_size() == 2


SEMANTIC = TokenRegions("stgm", "STGM 1", (np.arange(12).reshape(3, 4) % 5).astype(np.int16), 5)
WAITING = TokenRegions("fused", "Layer 4", (np.arange(12).reshape(3, 4) % 5 - 1).astype(np.int16), 4, fate="waiting")


@pytest.mark.parametrize("regions", [SEMANTIC, WAITING])
def test_a_result_looks_the_same_without_what_is_not_drawn(regions: TokenRegions) -> None:
    size_hw = (96, 160)
    annotator = Annotator(Seer(), 10.0)
    (result,) = Unsure().infer([scene(0, size_hw)])
    followed = annotator.follow(replace(result, regions=regions, regions_xyxy=(0.0, 0.0, 160.0, 96.0)))
    pictures = [scene(0, size_hw), scene(0, size_hw)]
    for pixels, drawn in zip(pictures, (followed, followed.only_drawn()), strict=True):
        annotator.draw(rgb_canvas(pixels), drawn)
    assert (np.abs(pictures[0].astype(int) - pictures[1]).max(axis=2) > 0).mean() < 1e-3
    if regions is WAITING:  # which is not drawn as what is gone
        gone = scene(0, size_hw)
        annotator.draw(rgb_canvas(gone), replace(followed, fate="dropped"))
        assert np.abs(gone.astype(int) - pictures[0]).max() > 40


def test_the_new_clip_is_twice_as_wide_and_keeps_its_sound(tmp_path: Path) -> None:
    race(tmp_path, 10.0, 13.0)
    with av.open(str(tmp_path / "b.mp4")) as container:
        assert container.streams.video[0].width == 320 and container.streams.video[0].height > 96
        assert container.streams.audio


@pytest.mark.parametrize(
    ("model", "baseline", "part", "words"),
    [
        ([4.0] * 9, [8.0] * 9, "", "STViT-DeiT 250 frames/s, DeiT 125: 2.0x"),
        ([8.0] * 9, [4.0] * 9, "", "STViT-DeiT 125 frames/s, DeiT 250: 2.0x slower"),
        ([4.0, 9.0] * 9, [9.0, 4.0] * 9, "", "STViT-DeiT 154 frames/s, DeiT 154: this machine is busy"),
        ([4.0, 4.0, 90.0], [5.0, 20.0, 100.0], "", "STViT-DeiT 250 frames/s, DeiT 50: this machine is busy"),
        ([4.0] * 8 + [900.0], [8.0] * 9, "backbone", "backbones: STViT-DeiT 250 frames/s, DeiT 125: 2.0x"),
    ],
)
def test_the_headline_tells_medians_and_a_factor_only_where_it_is_clear(
    model: list[float], baseline: list[float], part: str, words: str
) -> None:
    assert headline(["STViT-DeiT, narrow, 16 tokens", "DeiT, narrow"], (model, baseline), part) == words


def test_the_headline_keeps_what_tells_two_models_apart() -> None:
    labels = ["EViT-DeiT, keep 0.7", "EViT-DeiT, keep 0.5"]
    assert headline(labels, ([4.0], [2.0])) == "EViT-DeiT, keep 0.7 250 frames/s, EViT-DeiT, keep 0.5 500: 2.0x slower"


def test_both_sides_are_drawn_alike_with_bars_as_long_as_what_is_done_and_a_flag_at_the_end() -> None:
    board, grey = Scoreboard(SIZE_HW, (Seer(), Seer()), 20), np.full((*SIZE_HW, 3), 128, np.uint8)
    board.add([FrameResult(5.0, 5.0)] * 2)

    def drawn(done: tuple[int, int], ended: bool = False) -> list[np.ndarray]:
        halves = [Picture.from_rgb(grey)] * 2
        return np.split(board.compose(halves, done, ("", ""), ended).rgb().astype(int), 2, axis=1)

    bar = board.top + SIZE_HW[0] + 2
    for side, (pixels, done) in enumerate(zip(drawn((10, 5)), (10, 5), strict=True)):
        filled = np.abs(pixels[bar] - SIDES[side]).sum(axis=1) < np.abs(pixels[bar] - TRACK).sum(axis=1)
        assert filled.sum() == pytest.approx(SIZE_HW[1] * done / 20, abs=3)
    first, second = drawn((20, 19))
    counter = slice(bar + 10, None), slice(SIZE_HW[1] - 30, None)
    assert first[counter].max() > 200 > 100 > second[counter].max()  # the flag, at the side that is done
    left, right = drawn((20, 20), ended=True)
    assert np.abs(left[bar + 10 :] - right[bar + 10 :]).max() < 8


def test_the_end_tells_the_headline_and_when_the_first_was_done(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", 16, SIZE_HW)
    *_, last = process(source, tmp_path / "b.mp4", SideBySideTask(Seer(10.0), Seer(20.0)))
    told = last.conclusion["race"]
    assert told["headline"].endswith("100 frames/s, Seer 50: 2.0x")
    assert 1.5 <= told["first_done_s"] < 1.7
