from __future__ import annotations

import struct
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest

from stvit.video.probe import open_clip, probe
from stvit.video.types import Limits, VideoError
from tests.stvit.video.clips import RATE, growing_clip, make_clip, tone


def test_a_clip_is_described_by_its_header(tmp_path: Path) -> None:
    info = probe(make_clip(tmp_path / "a.mp4", 12, (64, 128), fps=10, sound="aac"))
    assert (info.codec, info.source_hw, info.rotation, info.fps) == ("h264", (64, 128), 0, 10)
    assert info.frames == 12 and info.duration_s == pytest.approx(1.2, abs=0.1) and info.sound == "aac"


def claims_of_an_mp4(path: Path) -> Path:
    """Its index says that the last frame but one is shown for ten hours."""
    return make_clip(path, 3, times=[0.0, 0.1, 36_000.0])


def claims_of_a_webm(path: Path) -> Path:
    """Its header says ten hours of a clip that lasts a second."""
    clip = make_clip(path.with_suffix(".webm"), codec="libvpx-vp9")
    content = bytearray(clip.read_bytes())
    start = content.index(b"\x44\x89\x88") + 3
    content[start : start + 8] = struct.pack(">d", 36_000_000.0)
    clip.write_bytes(content)
    return clip


@pytest.mark.parametrize("make", [claims_of_an_mp4, claims_of_a_webm])
def test_a_header_that_claims_ten_hours_is_refused_before_anything_is_decoded(
    tmp_path: Path, make: Callable[[Path], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make(tmp_path / "long.mp4")
    monkeypatch.setattr("stvit.video.probe._first_frame", None)
    with pytest.raises(VideoError, match=r"By its header, the clip lasts 10\.0 hours; the limit is 3\.0 minutes"):
        probe(clip)


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (Limits(max_bytes=1000), r"MB; the limit is 0 MB"),
        (Limits(max_seconds=1), r"lasts 1 seconds?; the limit is 1 seconds"),
        (Limits(max_pixels=64 * 127), r"is 128 × 64 pixels; the limit is 0\.0 megapixels"),
        (Limits(min_side=65), r"each side needs at least 65"),
        (Limits(max_fps=9), r"has 10 frames per second; the limit is 9"),
    ],
)
def test_each_limit_has_its_own_message(tmp_path: Path, limits: Limits, message: str) -> None:
    with pytest.raises(VideoError, match=message):
        probe(make_clip(tmp_path / "a.mp4"), limits)


@pytest.mark.parametrize(
    ("codec", "suffix"), [("libx264", "mp4"), ("libvpx-vp9", "webm"), ("libsvtav1", "mp4"), ("libx265", "mp4")]
)
def test_pictures_that_are_far_too_large_are_refused_by_the_decoder_itself(
    tmp_path: Path, codec: str, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = make_clip(tmp_path / f"a.{suffix}", 3, (256, 512), codec=codec)
    monkeypatch.setattr("stvit.video.probe._check_header", lambda *arguments: None)  # as if the header lied
    with pytest.raises(VideoError, match=r"limit(, 0\.0| is 0\.0)") as caught:
        probe(clip, Limits(max_pixels=128 * 64))
    assert isinstance(caught.value.__context__, av.FFmpegError)


def test_a_first_picture_of_the_right_size_is_no_excuse_for_large_ones(tmp_path: Path) -> None:
    limits = Limits(max_pixels=128 * 64)
    clip = growing_clip(tmp_path / "a.webm", (64, 128), (256, 512))
    assert probe(clip, limits).source_hw == (64, 128)


@pytest.mark.parametrize(
    ("aspect", "size_hw"), [("4/3", (64, 171)), ("8/9", (72, 128)), ("1001/1000", (64, 128)), ("1", (64, 128))]
)
def test_the_size_is_that_in_square_pixels(tmp_path: Path, aspect: str, size_hw: tuple[int, int]) -> None:
    info = probe(make_clip(tmp_path / "a.mp4", 2, (64, 128), aspect=Fraction(aspect)))
    assert info.source_hw == size_hw and info.anamorphic == (size_hw != (64, 128))


def test_limits_are_those_of_square_pixels(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "a.mp4", 2, aspect=Fraction(20))
    with pytest.raises(VideoError, match="is 2560 × 64 pixels; the limit"):
        probe(clip, Limits(max_pixels=256 * 64))


def sound_alone(path: Path) -> bytes:
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=RATE, layout="stereo")
        for packet in tone(stream, 0.5):
            output.mux(packet)
    return path.read_bytes()


def frameless(path: Path) -> bytes:
    content = make_clip(path).read_bytes()
    start = content.index(b"mdat") - 4
    end = start + struct.unpack(">I", content[start : start + 4])[0]
    return content[: start + 8] + bytes(end - start - 8) + content[end:]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lambda path: b"", "The file is empty"),
        (lambda path: b"these are words, not a clip\n" * 20, "holds text, not a clip"),
        (lambda path: b"#EXTM3U\n#EXTINF:5,\nfile:///etc/passwd\n", "holds text, not a clip"),
        (lambda path: b"\xff\xd8\xff\xe0" + bytes(100), "is a JPEG picture, not a clip"),
        (lambda path: bytes(range(1, 256)) * 3, "not a clip in a format that is known"),
        (lambda path: make_clip(path).read_bytes()[:3000], "damaged or ends too early: its index is missing"),
        (sound_alone, "no moving picture, only sound"),
    ],
)
def test_what_is_no_clip_gets_one_specific_message(tmp_path: Path, content: object, message: str) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content(tmp_path / "source.mp4"))
    with pytest.raises(VideoError, match=message):
        probe(path)


def test_a_clip_with_an_index_and_no_frame_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.mp4"
    path.write_bytes(frameless(tmp_path / "source.mp4"))
    with pytest.raises(VideoError, match=r"not one frame can be read|no frames in it"), av.logging.Capture():
        probe(path)


def test_a_file_that_cannot_be_opened_is_said_to_be_so(tmp_path: Path) -> None:
    with pytest.raises(VideoError, match="cannot be opened"):
        probe(tmp_path)


def test_a_file_that_is_gone_is_said_to_be_gone(tmp_path: Path) -> None:
    for look in (probe, open_clip):
        with pytest.raises(VideoError, match="no longer there"):
            look(tmp_path / "gone.mp4")
