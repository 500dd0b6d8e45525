from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from stvit.video import Limits, VideoError, probe
from stvit.video.reading import ClipReader, output_hw
from tests.stvit.video.clips import RED, STEP, frame_number, growing_clip, make_clip, red_left, scene


def frames(path: Path, max_side: int = 1920) -> list:
    return list(ClipReader(probe(path), max_side))


def test_every_frame_comes_once_in_order_with_its_time(tmp_path: Path) -> None:
    read = frames(make_clip(tmp_path / "a.mp4", 12, fps=10))
    assert [frame.index for frame in read] == [frame_number(frame.pixels) for frame in read] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in read], np.arange(12) / 10, atol=1e-3)
    error = np.abs(read[3].pixels.astype(int) - scene(3, (64, 128))).mean()
    assert error < STEP / 3


def test_a_varying_frame_rate_is_kept(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.3, 0.35, 0.9, 1.0]
    read = frames(make_clip(tmp_path / "a.mp4", 6, times=times))
    np.testing.assert_allclose([frame.time_s for frame in read], times, atol=2e-3)


@pytest.mark.parametrize(("rotation", "turns"), [(90, 1), (180, 2), (-90, 3)])
def test_pictures_are_turned_upright(tmp_path: Path, rotation: int, turns: int) -> None:
    info = probe(make_clip(tmp_path / "a.mp4", 2, rotation=rotation))
    upright = np.rot90(scene(0, (64, 128)), turns)
    assert info.source_hw == upright.shape[:2] and info.rotation == rotation % 360
    pixels = next(iter(ClipReader(info, 1920))).pixels
    assert np.abs(pixels.astype(int) - upright).mean() < STEP / 3


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libx265", "mp4", "yuv420p"),
        ("libvpx-vp9", "webm", "yuv420p"),
        ("libsvtav1", "mp4", "yuv420p"),
        ("gif", "gif", "rgb8"),
        ("libx265", "mov", "yuv420p10le"),
        ("mpeg4", "avi", "yuv420p"),
    ],
)
def test_common_codecs_are_read(tmp_path: Path, codec: str, suffix: str, pix_fmt: str) -> None:
    read = frames(make_clip(tmp_path / f"a.{suffix}", 5, codec=codec, pix_fmt=pix_fmt))
    assert [frame_number(frame.pixels) for frame in read] == list(range(5)) or codec == "gif"
    assert len(read) == 5
    np.testing.assert_allclose([frame.time_s for frame in read], np.arange(5) / 10, atol=0.02)
    red = np.abs(read[2].pixels[4:28, red_left(2) : red_left(2) + 24].astype(int) - RED).mean()
    assert red < 45


def test_odd_sides_become_even_by_repeating_the_last_row_and_column(tmp_path: Path) -> None:
    read = frames(make_clip(tmp_path / "a.mp4", 2, (65, 127), pix_fmt="yuv444p"))
    assert read[0].pixels.shape == (66, 128, 3)
    np.testing.assert_array_equal(read[0].pixels[-1], read[0].pixels[-2])
    np.testing.assert_array_equal(read[0].pixels[:, -1], read[0].pixels[:, -2])


@pytest.mark.parametrize(
    ("source_hw", "max_side", "expected"),
    [
        ((64, 128), 128, (64, 128)),
        ((65, 127), 1920, (66, 128)),
        ((2160, 3840), 1920, (1080, 1920)),
        ((101, 999), 100, (10, 100)),
    ],
)
def test_sizes_are_even_and_bounded(source_hw: tuple, max_side: int, expected: tuple) -> None:
    assert output_hw(source_hw, max_side) == expected


@pytest.mark.parametrize("rotation", [0, 90])
def test_large_pictures_are_scaled_down(tmp_path: Path, rotation: int) -> None:
    read = frames(make_clip(tmp_path / "a.mp4", 3, rotation=rotation), max_side=64)
    assert read[0].pixels.shape == ((32, 64, 3) if rotation == 0 else (64, 32, 3))
    assert [frame_number(frame.pixels) for frame in read] == [0, 1, 2]


@pytest.mark.parametrize("rotation", [0, 90])
def test_pictures_of_pixels_that_are_not_square_are_stretched(tmp_path: Path, rotation: int) -> None:
    (frame, _) = frames(make_clip(tmp_path / "a.mp4", 2, (96, 144), rotation=rotation, aspect=Fraction(4, 3)))
    lying = np.rot90(frame.pixels, -1) if rotation else frame.pixels
    assert lying.shape == (96, 192, 3)
    rows, columns = np.nonzero(np.abs(lying.astype(int) - RED).max(axis=2) < 60)
    assert abs(np.ptp(rows) + 1 - 24) <= 2 and abs(np.ptp(columns) + 1 - 32) <= 2


@pytest.mark.parametrize("codec", ["libvpx-vp9", "libvpx"])
def test_a_clip_that_turns_far_too_large_is_refused_for_its_size(tmp_path: Path, codec: str) -> None:
    limits = Limits(max_pixels=128 * 64)
    info = probe(growing_clip(tmp_path / "a.webm", (64, 128), (256, 512), codec), limits)
    with pytest.raises(VideoError, match="far larger than the limit"):
        list(ClipReader(info, 1920, limits))
    with pytest.raises(VideoError, match="is 512 × 256 pixels; the limit"):
        list(ClipReader(info, 1920, Limits(max_pixels=511 * 256)))


def test_a_file_that_ends_too_early_gives_what_there_is_and_says_so(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.webm", 20, (240, 320), codec="libvpx-vp9")
    clip.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    reader = ClipReader(probe(clip), 1920)
    read = list(reader)
    assert 0 < len(read) < 18
    assert "ends too early" in reader.note or "damaged" in reader.note


def test_a_clip_that_goes_on_longer_than_allowed_is_stopped(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "a.mp4", 12, fps=10))
    with pytest.raises(VideoError, match="goes on longer than its header says"):
        list(ClipReader(info, 1920, Limits(max_seconds=0.5)))
