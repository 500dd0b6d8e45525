from __future__ import annotations

import os
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from unittest.mock import Mock

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace

from stvit.video.decode import ClipReader, output_hw
from stvit.video.picture import Matrix
from stvit.video.probe import probe
from stvit.video.types import Limits, VideoError
from tests.stvit.video.clips import (
    BLUE,
    ORIENTATIONS,
    RED,
    STEP,
    alpha_clip,
    frame_number,
    growing_clip,
    make_clip,
    red_left,
    scene,
    with_edits,
    with_matrix,
)

BLUE_ALONE = (0, 0, 255)


def frames(path: Path, max_side: int = 1920) -> list:
    return list(ClipReader(probe(path), max_side))


def test_every_frame_comes_once_in_order_with_its_time(tmp_path: Path) -> None:
    read = frames(make_clip(tmp_path / "a.mp4", 12, fps=10))
    assert [frame.index for frame in read] == [frame_number(frame.picture.rgb()) for frame in read] == list(range(12))
    np.testing.assert_allclose([frame.time_s for frame in read], np.arange(12) / 10, atol=1e-3)
    error = np.abs(read[3].picture.rgb().astype(int) - scene(3, (64, 128))).mean()
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
    pixels = next(iter(ClipReader(info, 1920))).picture.rgb()
    assert np.abs(pixels.astype(int) - upright).mean() < STEP / 3


@pytest.mark.parametrize("matrix", ORIENTATIONS)
@pytest.mark.parametrize("max_side", [1920, 64])
def test_every_display_matrix_is_followed(tmp_path: Path, matrix: tuple[int, int, int, int], max_side: int) -> None:
    clip = with_matrix(make_clip(tmp_path / "a.mp4", 2), matrix)
    stored = scene(0, (64, 128))[:: 128 // min(max_side, 128), :: 128 // min(max_side, 128)]
    read = frames(clip, max_side)
    assert probe(clip).source_hw == ORIENTATIONS[matrix](scene(0, (64, 128))).shape[:2]
    upright = ORIENTATIONS[matrix](stored)
    assert np.abs(read[0].picture.rgb().astype(int) - upright).mean() < STEP / 2


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
    assert [frame_number(frame.picture.rgb()) for frame in read] == list(range(5)) or codec == "gif"
    assert len(read) == 5
    np.testing.assert_allclose([frame.time_s for frame in read], np.arange(5) / 10, atol=0.02)
    red = np.abs(read[2].picture.rgb()[4:28, red_left(2) : red_left(2) + 24].astype(int) - RED).mean()
    assert red < 45


@pytest.mark.skipif(not hasattr(os, "sched_getscheduler"), reason="priorities as Linux knows them")
def test_clips_of_tests_leave_the_priority_of_this_process(tmp_path: Path) -> None:
    make_clip(tmp_path / "a.mp4", 1, codec="libsvtav1")
    assert os.sched_getscheduler(0) == os.SCHED_OTHER, "nothing else would run beside what this process starts"


@pytest.mark.parametrize(("rotation", "turns"), [(0, 0), (90, 1), (180, 2), (-90, 3)])
def test_clips_whose_size_changes_keep_that_of_the_beginning(tmp_path: Path, rotation: int, turns: int) -> None:
    source = growing_clip(tmp_path / "a.webm", (64, 128), (128, 256))
    info = replace(probe(source), rotation=rotation % 360)
    info = replace(info, source_hw=info.source_hw[::-1] if rotation % 180 else info.source_hw)
    read = list(ClipReader(info, 1920))
    assert len(read) == 6
    for frame in read[3:]:
        lying = np.rot90(frame.picture.rgb(), -turns)
        assert lying.shape == (64, 128, 3)
        blue = np.abs(lying.astype(int) - BLUE).max(axis=2) < 60  # as far from the right edge, and half as large
        rows, columns = np.nonzero(blue)
        assert abs(np.ptp(rows) - 11) <= 2 and abs(np.ptp(columns) - 11) <= 2


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_odd_sides_of_a_turned_clip_become_even(tmp_path: Path, rotation: int) -> None:
    read = frames(make_clip(tmp_path / "a.mp4", 2, (65, 127), pix_fmt="yuv444p", rotation=rotation))
    upright = np.rot90(scene(0, (65, 127)), rotation // 90)
    pixels = read[0].picture.rgb()
    assert pixels.shape == ((66, 128, 3) if rotation == 180 else (128, 66, 3))
    top, left = (1 if rotation in gone else 0 for gone in ((180, 90), (180, -90)))
    inner = pixels[top : top + upright.shape[0], left : left + upright.shape[1]]
    assert np.abs(inner.astype(int) - upright).mean() < STEP / 3


def test_odd_sides_become_even_by_repeating_the_last_row_and_column(tmp_path: Path) -> None:
    read = frames(make_clip(tmp_path / "a.mp4", 2, (65, 127), pix_fmt="yuv444p"))
    assert read[0].picture.rgb().shape == (66, 128, 3)
    np.testing.assert_array_equal(read[0].picture.rgb()[-1], read[0].picture.rgb()[-2])
    np.testing.assert_array_equal(read[0].picture.rgb()[:, -1], read[0].picture.rgb()[:, -2])


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
    assert read[0].picture.rgb().shape == ((32, 64, 3) if rotation == 0 else (64, 32, 3))
    assert [frame_number(frame.picture.rgb()) for frame in read] == [0, 1, 2]


@pytest.mark.parametrize("rotation", [0, 90])
def test_pictures_of_pixels_that_are_not_square_are_stretched(tmp_path: Path, rotation: int) -> None:
    (frame, _) = frames(make_clip(tmp_path / "a.mp4", 2, (96, 144), rotation=rotation, aspect=Fraction(4, 3)))
    lying = np.rot90(frame.picture.rgb(), -1) if rotation else frame.picture.rgb()
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


@pytest.mark.parametrize(("short", "words"), [(True, "not enough memory"), (False, "Not one frame")])
def test_a_clip_without_frames_is_damaged_unless_memory_is_short(
    tmp_path: Path, short: bool, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = ClipReader(probe(make_clip(tmp_path / "clip.mp4")), 640)
    monkeypatch.setattr(reader, "_decoded", lambda *_: iter(()))
    if short:
        monkeypatch.setattr("stvit.video.probe.np", Mock(empty=Mock(side_effect=MemoryError)))
    with pytest.raises(VideoError, match=words):
        next(iter(reader))


def test_a_clip_that_goes_on_longer_than_allowed_is_stopped(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "a.mp4", 12, fps=10))
    with pytest.raises(VideoError, match="goes on longer than its header says"):
        list(ClipReader(info, 1920, Limits(max_seconds=0.5)))


@pytest.mark.parametrize(
    ("edits", "shown"),
    [
        ([(600, 8000)], [3, 4, 5, 6, 7, 8]),
        ([(500, -1), (1200, 3200)], list(range(12))),
        ([(300, 3200), (400, 9600)], [0, 1, 2, 4, 5, 6, 7]),
        ([(300, 3200), (200, -1), (300, 9600)], [0, 1, 2, 4, 5, 6]),
    ],
    ids=["cut", "delay", "two parts", "pause"],
)
def test_what_an_edit_list_hides_is_not_missed(tmp_path: Path, edits: list, shown: list[int]) -> None:
    clip = with_edits(make_clip(tmp_path / "a.mp4", 12), edits)
    reader = ClipReader(probe(clip), 1920)
    assert [frame_number(frame.picture.rgb()) for frame in reader] == shown
    assert reader.note == "" and reader.info.frames == len(shown)


@pytest.mark.parametrize(
    ("codec", "suffix", "pix_fmt"),
    [
        ("libvpx", "webm", "yuva420p"),
        ("libvpx-vp9", "webm", "yuva420p"),
        ("prores_ks", "mov", "yuva444p10le"),
        ("qtrle", "mov", "argb"),
        ("png", "mov", "rgba"),
        ("ffv1", "mkv", "bgra"),
    ],
)
def test_what_is_transparent_is_white(tmp_path: Path, codec: str, suffix: str, pix_fmt: str) -> None:
    reader = ClipReader(probe(alpha_clip(tmp_path / f"a.{suffix}", codec, pix_fmt)), 1920)
    read = list(reader)
    assert len(read) == 3 and "shown on white" in reader.note
    for frame in read:
        pixels = frame.picture.rgb().astype(int)
        assert np.abs(pixels[[4, 32, 32], [4, 32, 80]] - [(255, 255, 255), BLUE_ALONE, (127, 127, 255)]).max() <= 6


def test_opaque_pictures_that_could_be_transparent_get_no_note(tmp_path: Path) -> None:
    reader = ClipReader(probe(make_clip(tmp_path / "a.gif", 3, codec="gif", pix_fmt="rgb8")), 1920)
    assert len(list(reader)) == 3 and reader.note == ""


def test_frames_that_the_decoder_marks_as_damaged_are_counted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 20, (240, 320), codec="mpeg4")
    content = bytearray(clip.read_bytes())
    start = content.index(b"mdat")
    for place in range(start + (len(content) - start) // 3, start + (len(content) - start) // 2, 97):
        content[place] ^= 0x5A
    clip.write_bytes(content)
    with av.open(str(clip)) as container:
        damaged = sum(frame.is_corrupt for frame in container.decode(video=0))
    reader = ClipReader(probe(clip), 1920)
    assert len(list(reader)) == 20 and damaged > 1
    assert reader.note.startswith(f"{damaged} frames are damaged")


def test_a_part_of_another_shape_keeps_its_proportions_and_is_noted(tmp_path: Path) -> None:
    source = growing_clip(tmp_path / "a.webm", (64, 128), (128, 64))
    reader = ClipReader(probe(source), 1920)
    read = list(reader)
    assert reader.note.startswith("3 frames") and "64 × 128" in reader.note
    for frame in read[3:]:
        pixels = frame.picture.rgb().astype(int)
        assert pixels.shape == (64, 128, 3) and pixels[:, [2, 40, 90, 125]].max() < 16
        blue = np.abs(pixels - BLUE).max(axis=2) < 60
        rows, columns = np.nonzero(blue)
        assert abs(np.ptp(rows) - 11) <= 2 and abs(np.ptp(columns) - 11) <= 2


TAGS = [(709, 1, Matrix.BT709), (601, 5, Matrix.BT601), (601, 6, Matrix.BT601), (601, 2, Matrix.BT601)]


def tagged_clip(path: Path, standard: int, tag: int, pixel_format: str = "yuv420p", full_range: bool = False) -> Path:
    """Two frames of a scene in these colours, with that tag, or none."""
    colours = Colorspace.ITU709 if standard == 709 else Colorspace.ITU601
    extent = ColorRange.JPEG if full_range else ColorRange.MPEG
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 128, 64, pixel_format
        context = stream.codec_context
        if tag != 2:
            context.colorspace, context.color_range = tag, extent
        for index in range(2):
            frame = av.VideoFrame.from_ndarray(scene(index, (64, 128)), "rgb24")
            frame = frame.reformat(format=pixel_format, dst_colorspace=colours, dst_color_range=extent)
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(("standard", "tag", "matrix"), TAGS)
def test_what_is_stored_is_not_changed(tmp_path: Path, standard: int, tag: int, matrix: Matrix) -> None:
    source = tagged_clip(tmp_path / "a.mp4", standard, tag)
    with av.open(str(source)) as container:
        stored = [frame.to_ndarray() for frame in container.decode(video=0)]
    for frame, values in zip(frames(source), stored, strict=True):
        assert frame.picture.matrix is matrix
        np.testing.assert_array_equal(frame.picture.canvas[0].values, values[:64])
        chroma = np.stack([plane.values for plane in frame.picture.canvas[1:]])
        np.testing.assert_array_equal(chroma.ravel(), values[64:].ravel())


@pytest.mark.parametrize(
    ("standard", "tag", "pixel_format", "full_range"),
    [
        *(
            (*entry[:2], pixel_format, False)
            for entry in TAGS
            for pixel_format in ("yuv420p", "yuv444p", "yuv420p10le")
        ),
        (709, 1, "yuv420p", True),
        (601, 6, "yuv420p", True),
    ],
)
def test_colours_are_read_as_they_are_tagged(
    tmp_path: Path, standard: int, tag: int, pixel_format: str, full_range: bool
) -> None:
    read = frames(tagged_clip(tmp_path / "a.mp4", standard, tag, pixel_format, full_range))
    for frame in read:
        inner = frame.picture.rgb()[8:24, red_left(frame.index) + 4 : red_left(frame.index) + 20]
        assert np.abs(inner.astype(int) - RED).max() <= 8


@pytest.mark.parametrize(("lines", "matrix"), [(704, Matrix.BT601), (720, Matrix.BT709)])
def test_without_a_tag_the_number_of_lines_decides_on_the_colours(tmp_path: Path, lines: int, matrix: Matrix) -> None:
    (frame,) = frames(make_clip(tmp_path / "a.mp4", 1, (lines, 128)))
    assert frame.picture.matrix is matrix


def decoded_frame(tag: int, transfer: int = 1, primaries: int = 1) -> av.VideoFrame:
    """A grey ramp of 10 bits."""
    frame = av.VideoFrame(128, 64, "yuv420p10le")
    for number, plane in enumerate(frame.planes):
        rows = np.frombuffer(plane, np.uint16).reshape(plane.height, -1)
        rows[:, : plane.width] = 512 if number else np.linspace(64, 940, 128)
    frame.colorspace, frame.color_range, frame.color_trc, frame.color_primaries = tag, 1, transfer, primaries
    return frame


def upright(tmp_path: Path, frame: av.VideoFrame) -> np.ndarray:
    reader = ClipReader(probe(make_clip(tmp_path / "a.mp4", 1)), 1920)
    return reader._upright(frame).rgb().astype(int)


@pytest.mark.parametrize("tag", [1, 2, 3, 4, 5, 6, 7, 9])
def test_grey_stays_grey_whatever_the_tag(tmp_path: Path, tag: int) -> None:
    pixels = upright(tmp_path, decoded_frame(tag))
    assert np.ptp(pixels, axis=2).max() <= 3
    assert np.abs(pixels[32, :, 1] - np.linspace(0, 255, 128)).max() <= 3


@pytest.mark.parametrize("tag", [8, 10, 14])
def test_colours_that_cannot_be_converted_are_named(tmp_path: Path, tag: int) -> None:
    with pytest.raises(VideoError, match=rf"colours \(yuv420p10le, matrix {tag}, transfer 1\) cannot be converted"):
        upright(tmp_path, decoded_frame(tag))


@pytest.mark.parametrize(("transfer", "white"), [(16, 0.58), (18, 0.75)], ids=["PQ", "HLG"])
def test_hdr_is_brought_to_the_standard_range(tmp_path: Path, transfer: int, white: float) -> None:
    """ITU-R BT.2408: white of 203 candelas lies at 58 % of PQ's range and at 75 % of HLG's."""
    pixels = upright(tmp_path, decoded_frame(9, transfer, 9))
    grey = pixels[32, :, 1]
    assert np.ptp(pixels, axis=2).max() <= 6
    assert abs(np.flatnonzero(grey >= 250)[0] / 127 - white) < 0.04
    assert (np.diff(grey) >= -1).all() and grey[0] <= 3
