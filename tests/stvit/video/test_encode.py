from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stvit.video.encode import ClipWriter
from stvit.video.picture import Matrix, Picture
from stvit.video.probe import probe
from tests.stvit.video.clips import RATE, STEP, frame_number, frames_of, make_clip, scene


def rewrite(source: Path, target: Path, times: list[float]) -> Path:
    writer = ClipWriter(target, (64, 128), probe(source), Matrix.BT709)
    for index, time_s in enumerate(times):
        writer.write(Picture.from_rgb(scene(index, (64, 128))), time_s)
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


@pytest.mark.parametrize("matrix", Matrix)
def test_the_new_clip_says_how_its_colours_are_meant(tmp_path: Path, matrix: Matrix) -> None:
    picture, target = Picture.from_rgb(scene(0, (64, 128)), matrix), tmp_path / "b.mp4"
    writer = ClipWriter(target, picture.size_hw, probe(make_clip(tmp_path / "a.mp4")), matrix)
    writer.write(picture, 0.0)
    writer.finish()
    with av.open(str(target)) as container:
        frame = next(container.decode(video=0))
    assert (frame.colorspace, frame.color_range) == (matrix.value, 1)
    assert np.abs(Picture.of_frame(frame, matrix).rgb().astype(int) - scene(0, (64, 128))).mean() < STEP / 2


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


def sounding(path: Path, kinds: list[tuple[int, str]]) -> Path:
    """A clip whose MP3 changes its rate and layout every 0.6 seconds."""
    silent = make_clip(path.with_name("silent.mp4"))
    with av.open(str(silent)) as pictures, av.open(str(path), "w") as output:
        video = output.add_stream_from_template(pictures.streams.video[0])
        audio = output.add_stream("libmp3lame", rate=kinds[0][0], layout=kinds[0][1])
        packets = [packet for packet in pictures.demux(video=0) if packet.dts is not None]
        for packet in packets:
            packet.stream = video
            output.mux(packet)
        at_s = 0.0
        for rate, layout in kinds:
            coder = av.CodecContext.create("libmp3lame", "w")
            coder.sample_rate, coder.layout, coder.format = rate, layout, "s16p"
            samples = int(0.6 * rate)
            wave = (9830 * np.sin(2 * np.pi * 440 * np.arange(samples) / rate)).astype(np.int16)
            frame = av.AudioFrame.from_ndarray(np.stack([wave] * coder.channels), "s16p", layout)
            frame.rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            for packet in [*coder.encode(frame), *coder.encode(None)]:
                packet.pts = packet.dts = round(at_s * RATE)
                at_s += float(packet.duration * packet.time_base)
                packet.time_base, packet.stream = Fraction(1, RATE), audio
                output.mux(packet)
    return path


@pytest.mark.parametrize(
    "kinds", [[(48000, "stereo"), (48000, "mono")], [(44100, "mono"), (48000, "stereo")]], ids=["layout", "both"]
)
def test_sound_that_changes_midway_goes_on(tmp_path: Path, kinds: list[tuple[int, str]]) -> None:
    source = sounding(tmp_path / "a.mp4", kinds)
    with av.open(str(source)) as container:
        assert len({(frame.rate, frame.layout.name) for frame in container.decode(audio=0)}) > 1
    made = rewrite(source, tmp_path / "b.mp4", [index / 10 for index in range(12)])
    with av.open(str(made)) as container:
        rate = container.streams.audio[0].codec_context.sample_rate
        heard = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
    assert heard[-1][0] == pytest.approx(1.2, abs=0.1)
    for start in (0.15, 0.75):
        part = np.concatenate([wave for time, wave in heard if start < time < start + 0.3])
        assert np.sqrt((part**2).mean()) > 0.13  # mono is heard from both sides, each by 3 dB less loud
        assert np.abs(np.fft.rfft(part)).argmax() / len(part) * rate == pytest.approx(440, abs=5)


def test_a_copied_sound_is_the_same_bit_by_bit(tmp_path: Path) -> None:
    source = make_clip(tmp_path / "a.mp4", sound="aac")
    made = rewrite(source, tmp_path / "b.mp4", [index / 10 for index in range(12)])

    def packets(path: Path) -> list[bytes]:
        with av.open(str(path)) as container:
            return [bytes(packet) for packet in container.demux(audio=0) if packet.size]

    assert packets(made) == packets(source)
