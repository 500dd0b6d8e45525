from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from stvit.video import probe
from stvit.video.writing import ClipWriter
from tests.stvit.video.clips import STEP, frame_number, frames_of, make_clip, scene


def rewrite(source: Path, target: Path, times: list[float]) -> Path:
    writer = ClipWriter(target, (64, 128), probe(source))
    for index, time_s in enumerate(times):
        writer.write(scene(index, (64, 128)), time_s)
    writer.finish()
    assert writer.note == ""
    return target


def test_what_is_written_plays_in_every_browser(tmp_path: Path) -> None:
    made = rewrite(make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", [index / 10 for index in range(12)])
    with av.open(str(made)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264" and stream.pix_fmt == "yuv420p"
        assert (stream.width, stream.height, stream.frames) == (128, 64, 12)
        assert not container.streams.audio
    content = made.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")


def test_pictures_and_colours_survive(tmp_path: Path) -> None:
    made = rewrite(make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", [index / 10 for index in range(12)])
    assert [frame_number(pixels) for _, pixels in frames_of(made)] == list(range(12))
    with av.open(str(made)) as container:
        pixels = next(container.decode(video=0)).to_ndarray(format="rgb24", src_colorspace="ITU709")
    assert np.abs(pixels.astype(int) - scene(0, (64, 128))).mean() < STEP / 2


def test_times_are_kept_as_they_are(tmp_path: Path) -> None:
    times = [0.0, 0.04, 0.3, 0.35, 0.9, 1.0]
    made = rewrite(make_clip(tmp_path / "a.mp4"), tmp_path / "b.mp4", times)
    np.testing.assert_allclose([time for time, _ in frames_of(made)], times, atol=1e-4)


@pytest.mark.parametrize(
    ("sound", "suffix"), [("aac", "mp4"), ("libopus", "webm"), ("libmp3lame", "mp4"), ("pcm_s16le", "mov")]
)
def test_sound_is_kept(tmp_path: Path, sound: str, suffix: str) -> None:
    codec = "libvpx-vp9" if suffix == "webm" else "libx264"
    source = make_clip(tmp_path / f"a.{suffix}", sound=sound, codec=codec)
    made = rewrite(source, tmp_path / "b.mp4", [index / 10 for index in range(12)])
    with av.open(str(made)) as container:
        audio = container.streams.audio[0]
        assert audio.codec_context.name == "aac"
        heard = [(frame.time, frame.to_ndarray()) for frame in container.decode(audio)]
    assert abs(heard[0][0]) < 0.06 and heard[-1][0] == pytest.approx(1.2, abs=0.1)
    wave = np.concatenate([samples[0] for _, samples in heard])[4800:-4800]
    assert np.sqrt((wave**2).mean()) == pytest.approx(0.3 / np.sqrt(2), rel=0.1)
    pitch = np.abs(np.fft.rfft(wave)).argmax() / len(wave) * audio.codec_context.sample_rate
    assert pitch == pytest.approx(440, abs=3)


def test_a_copied_sound_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", sound="aac")
    made = rewrite(source, tmp_path / "b.mp4", [index / 10 for index in range(12)])

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(made) == packets(source)
