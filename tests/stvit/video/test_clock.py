from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stvit.video.decode import ClipReader
from stvit.video.pipeline import process
from stvit.video.probe import probe
from stvit.video.tasks import AnnotateTask
from stvit.video.types import Limits, VideoError
from tests.stvit.video.clips import Seer, frame_number, make_clip


def joined(path: Path, *parts: Path) -> Path:
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


@pytest.mark.parametrize("later_s", [0.0, 0.9, 100.0], ids=["again", "a step back", "far ahead"])
def test_parts_whose_clock_starts_elsewhere_follow_each_other(tmp_path: Path, later_s: float) -> None:
    times = [index / 10 + later_s for index in range(12)]
    parts = make_clip(tmp_path / "a.ts", 20), make_clip(tmp_path / "b.ts", 12, times=times)
    info = probe(joined(tmp_path / "c.ts", *parts))
    reader = ClipReader(info, 1920)
    read = list(reader)
    assert [frame_number(frame.picture.rgb()) for frame in read] == [*range(20), *range(12)]
    np.testing.assert_allclose([frame.time_s for frame in read], np.arange(32) / 10, atol=2e-3)
    assert info.duration_s == pytest.approx(3.2, abs=2e-3) and info.fps == pytest.approx(10, abs=0.01)
    assert info.frames == 32 and reader.note == ""


def test_program_streams_are_joined_likewise(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "a.mpg", 10, fps=25, codec="mpeg2video")
    read = list(ClipReader(probe(joined(tmp_path / "b.mpg", part, part, part)), 1920))
    np.testing.assert_allclose([frame.time_s for frame in read], np.arange(30) / 25, atol=2e-3)


@pytest.mark.parametrize("sound", ["aac", "mp2"])
def test_the_sound_of_joined_parts_goes_on_with_the_picture(tmp_path: Path, sound: str) -> None:
    part = make_clip(tmp_path / "a.ts", 20, sound=sound)
    *_, last = process(joined(tmp_path / "b.ts", part, part), tmp_path / "c.mp4", AnnotateTask(Seer()))
    assert last.note == ""
    with av.open(str(tmp_path / "c.mp4")) as container:
        heard = [packet.pts * packet.time_base for packet in container.demux(audio=0) if packet.pts is not None]
    assert max(heard) == pytest.approx(4.0, abs=0.06) and np.diff(heard).max() < 0.06


def test_a_joined_clip_is_as_long_as_its_parts_together(tmp_path: Path) -> None:
    part = make_clip(tmp_path / "a.ts", 20)
    with pytest.raises(VideoError, match="lasts 4 seconds; the limit is 3 seconds"):
        probe(joined(tmp_path / "b.ts", part, part), Limits(max_seconds=3))
