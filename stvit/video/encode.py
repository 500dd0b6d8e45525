"""Encodes the new clip: H.264 in 4:2:0 with its index in front, which every browser plays."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
from av.codec.context import Flags
from av.video.reformatter import ColorRange

from stvit.predict.device import available_cores

from .audio import Sound
from .picture import Matrix, Picture
from .types import ClipInfo

CLOCK = 90_000  # ticks per second
CODEC = "libx264"
# at 720p 2.7 ms of a core a frame; a constant rate factor of 23, which looks at every frame beforehand, takes 3.4 for
# the same size and signal-to-noise ratio of a pan with token regions, "superfast" twice as long. What it costs is size:
# noisy pictures become 1.4 times as large, photographs that zoom up to 5 times
OPTIONS = {"preset": "ultrafast", "qp": "25", "threads": str(max(1, available_cores() // 2))}


class ClipWriter:
    """Writes frames of one size, with the times that they have.

    Args:
        path: of the new clip.
        size_hw: of its frames, even.
        info: of the clip that it is made from, for the frame rate and the sound.
        matrix: of all pictures.
    """

    def __init__(self, path: Path, size_hw: tuple[int, int], info: ClipInfo, matrix: Matrix) -> None:
        self._frame_s = 1 / info.fps
        self._output = av.open(str(path), "w", format="mp4", options={"movflags": "+faststart"})
        rate = Fraction(info.fps).limit_denominator(1001)
        self._stream = self._output.add_stream(CODEC, rate=rate, options=OPTIONS, time_base=Fraction(1, CLOCK))
        self._stream.height, self._stream.width = size_hw
        self._stream.pix_fmt = "yuv420p"
        context = self._stream.codec_context
        context.colorspace = matrix.value
        context.color_primaries = context.color_trc = Matrix.BT709.value
        context.color_range = ColorRange.MPEG
        context.flags |= Flags.frame_duration  # else the last frame lasts as long as the one before
        self._sound = Sound(info, self._output) if info.sound else None
        self._last_pts = -1

    @property
    def note(self) -> str:
        """What could not be kept, a sentence."""
        return self._sound.note if self._sound else ""

    def write(self, picture: Picture, time_s: float, duration_s: float = 0.0) -> None:
        """Add a frame; frames come in the order of their times. One without a duration lasts as long as the clip's
        frames on average."""
        frame = picture.frame()
        frame.pts = self._last_pts = max(round(time_s * CLOCK), self._last_pts + 1)
        frame.time_base = Fraction(1, CLOCK)
        frame.duration = round((duration_s or self._frame_s) * CLOCK)
        self._output.mux(self._stream.encode(frame))
        if self._sound:
            self._sound.write_until(time_s)

    def finish(self) -> None:
        """Write the last packets and the index."""
        self._output.mux(self._stream.encode(None))
        if self._sound:
            self._sound.write_until(float("inf"))
        self.close()

    def close(self) -> None:
        """Close the files."""
        if self._sound:
            self._sound.close()
        self._output.close()
