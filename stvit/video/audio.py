"""Carries the sound of a clip over into the new one: copied where every browser plays it, else encoded as AAC."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction

import av
from av.audio.resampler import AudioResampler
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.packet import Packet

from .clock import Clock
from .probe import open_clip
from .types import ClipInfo

COPIED = ("aac",)  # what every browser plays in an MP4
CODEC = "aac"
BIT_RATE = 128_000
_RATES = (44100, 48000)


class Sound:
    """Adds a clip's sound to a new file, little by little, as its picture grows. Make it before the first packet is
    written.

    Attributes:
        note: what could not be kept, a sentence.
    """

    def __init__(self, info: ClipInfo, output: OutputContainer) -> None:
        self.note = ""
        self._output, self._start_s = output, info.start_s
        self._clock, self._joined = Clock(info.start_s, info.joins_s), bool(info.joins_s)
        self._input = open_clip(info.path)
        source = next(stream for stream in self._input.streams.audio if stream.codec_context is not None)
        if info.sound in COPIED:
            self._stream = output.add_stream_from_template(source)
            self._packets = self._copied(source)
        else:
            rate = source.codec_context.sample_rate
            self._stream = output.add_stream(CODEC, rate=rate if rate in _RATES else _RATES[1], layout="stereo")
            self._stream.bit_rate = BIT_RATE
            self._packets = self._encoded(source)
        self._waiting: Packet | None = None

    def write_until(self, time_s: float) -> None:
        """Write the packets before this time of the clip."""
        try:
            while (packet := self._waiting or next(self._packets, None)) is not None:
                self._waiting = packet
                if packet.pts is not None and packet.pts * packet.time_base > time_s:
                    return
                self._waiting = None
                packet.stream = self._stream
                self._output.mux(packet)
        except av.FFmpegError:
            self.note = "The clip's sound is damaged, and ends early."
            self._packets, self._waiting = iter(()), None

    def close(self) -> None:
        self._input.close()

    def _packets_of(self, source: AudioStream) -> Iterator[Packet]:
        """Yield packets in the order of their times, last an empty one; without those that an edit list hides, or that
        overlap where clips were joined."""
        last = None
        for packet in self._input.demux(source):
            self._clock.correct(packet)
            if packet.dts is not None:
                hidden = packet.is_discard and packet.dts + (packet.duration or 0) < 0
                if hidden or (self._joined and last is not None and packet.dts <= last):
                    continue
                last = packet.dts
            yield packet

    def _copied(self, source: AudioStream) -> Iterator[Packet]:
        shift = round(self._start_s / source.time_base)
        for packet in self._packets_of(source):
            if packet.dts is not None:
                packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
                yield packet

    def _encoded(self, source: AudioStream) -> Iterator[Packet]:
        context = self._stream.codec_context
        frames = (frame for packet in self._packets_of(source) for frame in packet.decode())
        for frame in alike(frames, context):
            if frame.pts is not None:
                frame.pts -= round(self._start_s * context.sample_rate)
            yield from self._stream.encode(frame)
        yield from self._stream.encode(None)


def alike(frames: Iterable[av.AudioFrame], context: av.AudioCodecContext) -> Iterator[av.AudioFrame]:
    """Resample frames, whose format may change midway, to the format, layout, rate and clock of ``context``."""
    resampler, before = AudioResampler(), None
    for frame in frames:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate, frame.time_base)
        if kind != before:
            yield from _timed(resampler.resample(None), context)
            resampler = AudioResampler(format=context.format, layout=context.layout, rate=context.sample_rate)
            before = kind
        yield from _timed(resampler.resample(frame), context)
    yield from _timed(resampler.resample(None), context)


def _timed(resampled: list[av.AudioFrame | None], context: av.AudioCodecContext) -> Iterator[av.AudioFrame]:
    for frame in resampled:
        if frame is None:  # what a resampler that has nothing to do gives at its end
            continue
        if frame.pts is not None:
            frame.pts = round(frame.pts * frame.time_base * context.sample_rate)
        frame.time_base = Fraction(1, context.sample_rate)
        yield frame
