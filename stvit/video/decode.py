"""Decodes the frames of a clip, upright, with their times; a few of them are in memory at once."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, Interpolation, VideoReformatter
from av.video.stream import VideoStream

from stvit.predict.device import available_cores

from .alpha import AlphaStream, may_be_transparent, on_white
from .clock import Clock
from .picture import Matrix, Picture, even
from .probe import (
    AGAIN,
    check_memory,
    check_refused,
    check_size,
    decoder_bounds,
    open_clip,
    picture_stream,
    square_pixels,
    too_long,
)
from .types import ClipInfo, Frame, Limits, VideoError

_UNTAGGED = (2, 3)  # not specified, reserved
_MATRICES = {1: Matrix.BT709, 5: Matrix.BT601, 6: Matrix.BT601}  # by the numbers that clips are tagged with
_HDR = (16, 18)  # transfer by PQ and HLG; brought to that of BT.709, which cuts off what is brighter than white
_ACCURATELY = 0x40000  # SWS_ACCURATE_RND: else grey gets a tint where the matrix changes
_HD_LINES = 720  # from here on, untagged pictures are in the colours of HDTV
_SHORTEST_STEP_S = 1e-4


def output_hw(source_hw: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Return the size at which a clip is processed: its own, or smaller where a side exceeds ``max_side``; even, for
    H.264 in 4:2:0."""
    scale = min(1.0, max_side / max(source_hw))
    if scale == 1.0:
        return tuple(map(even, source_hw))
    return _scaled(source_hw, scale)


class ClipReader:
    """Iterates over the frames of a clip, once.

    Args:
        info: of the clip.
        max_side: longest side of the frames; larger ones are scaled down.

    Attributes:
        output_hw: size of the frames.
    """

    def __init__(self, info: ClipInfo, max_side: int, limits: Limits | None = None) -> None:
        self.info, self.limits = info, limits or Limits()
        self.output_hw = output_hw(info.source_hw, max_side)
        self._scaled = info.anamorphic or self.output_hw != output_hw(info.source_hw, max(info.source_hw))
        self._reformatter = VideoReformatter()
        self._matrix: Matrix | None = None  # of all frames, from the first one on
        self._lost = ""
        self._damaged, self._fitted, self._other_hw, self._transparent = 0, 0, (0, 0), False

    @property
    def note(self) -> str:
        """Faults of the file and what was done about them, sentences; complete at the end."""
        notes = [self._lost]
        if self._damaged:
            notes.append(f"{_frames(self._damaged)} damaged, and shown as far as they could be decoded.")
        if self._fitted:
            size = " × ".join(map(str, reversed(self._other_hw)))
            notes.append(f"{_frames(self._fitted)} of another size ({size}), and fitted into that of the first.")
        if self._transparent:
            notes.append("What is transparent is shown on white.")
        return " ".join(filter(None, notes))

    def __iter__(self) -> Iterator[Frame]:
        """Raises VideoError where the clip exceeds what its header said and the limits allow."""
        index, last_s, usual_s = 0, -1.0, 1 / self.info.fps
        with open_clip(self.info.path, self.limits) as container:
            stream = picture_stream(container, self.limits)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = min(4, available_cores())
            for decoded, alpha in self._decoded(container, stream):
                check_size(decoded.width, decoded.height, self.limits)
                time_s, shown_s = self._time(decoded, last_s), _duration(decoded)
                end_s = time_s + max(shown_s - usual_s, 0.0)
                if end_s > self.limits.max_seconds or index >= self.limits.max_seconds * self.limits.max_fps:
                    raise too_long(end_s, self.limits, "The clip goes on longer than its header says: it")
                self._damaged += decoded.is_corrupt
                picture = self._upright(decoded, alpha, stream.sample_aspect_ratio)
                yield Frame(index, time_s, picture, shown_s)
                index, last_s = index + 1, time_s
        if index == 0:
            check_memory(self.info.source_hw[0] * self.info.source_hw[1])
            raise VideoError("Not one frame of the clip can be read.", AGAIN)
        self._check_end(index, last_s)

    def _check_end(self, frames: int, last_s: float) -> None:
        """Note where both frames and time are missing; the header's number of frames may be an estimate."""
        expected, duration_s = self.info.frames or 0, self.info.duration_s or float("inf")
        length_s = last_s * frames / max(frames - 1, 1)
        if frames < 0.9 * expected - 1 and length_s < 0.9 * duration_s:
            check_memory(self.info.source_hw[0] * self.info.source_hw[1])
            self._lost = f"The file ends too early: {frames} of about {expected} frames could be read."

    def _decoded(
        self, container: InputContainer, stream: VideoStream
    ) -> Iterator[tuple[av.VideoFrame, np.ndarray | None]]:
        """Yield all frames that can be decoded, with the alpha plane that is stored beside them; damaged parts are left
        out and noted."""
        beside = AlphaStream.of(stream, decoder_bounds(self.limits))
        clock = Clock(self.info.start_s, self.info.joins_s)
        try:
            for packet in container.demux(stream):
                clock.correct(packet)
                try:
                    alpha = beside and beside.decode(packet)
                    frames = packet.decode()
                except av.FFmpegError as error:
                    check_refused(stream, error, self.limits)
                    self._lost = "Parts of the file are damaged, and left out."
                    continue
                yield from ((frame, alpha) for frame in frames)
        except av.FFmpegError as error:
            check_refused(stream, error, self.limits)
            self._lost = "The file is damaged: what comes after this point cannot be read."

    def _time(self, decoded: av.VideoFrame, last_s: float) -> float:
        if decoded.time is None:
            return last_s + 1 / self.info.fps if last_s >= 0 else 0.0
        return max(decoded.time - self.info.start_s, last_s + _SHORTEST_STEP_S, 0.0)

    def _upright(
        self, decoded: av.VideoFrame, alpha: np.ndarray | None = None, aspect: Fraction | None = None
    ) -> Picture:
        """Convert a frame to 4:2:0, upright, at the size of the clip.

        Args:
            alpha: (H, W) uint8, opacity that is stored beside the frame.
            aspect: width over height of a stored pixel.
        """
        info = self.info
        self._matrix = self._matrix or _matrix_of(decoded) or Matrix.BT709
        shown_hw = square_pixels(decoded.height, decoded.width, aspect)
        shown_hw = shown_hw[::-1] if info.rotation in (90, 270) else shown_hw
        wanted_hw = self.output_hw
        if shown_hw != info.source_hw:  # the size changes within the clip
            wanted_hw = _fitting(shown_hw, self.output_hw)
            self._fitted, self._other_hw = self._fitted + 1, shown_hw
        stored_hw = wanted_hw[::-1] if info.rotation in (90, 270) else wanted_hw
        scaled = self._scaled or shown_hw != info.source_hw
        try:
            if alpha is not None or may_be_transparent(decoded):
                decoded = self._opaque(decoded, alpha)
            stored = self._converted(decoded, stored_hw if scaled else (decoded.height, decoded.width), scaled)
        except av.FFmpegError as error:
            raise VideoError(f"The clip's colours ({_words(decoded)}) cannot be converted.", AGAIN) from error
        picture = Picture.of_frame(stored, self._matrix).turned(info.rotation, info.mirrored)
        return picture if wanted_hw == self.output_hw else picture.framed(self.output_hw)

    def _opaque(self, decoded: av.VideoFrame, alpha: np.ndarray | None) -> av.VideoFrame:
        """Compose a frame on white; itself where it is opaque."""
        matrix = _matrix_of(decoded)
        pixels = self._reformatter.reformat(
            decoded,
            format="rgba",
            src_colorspace=matrix and matrix.of_swscale,
            src_color_range=_range_of(decoded),
            dst_color_range=ColorRange.JPEG,
            threads=1,
        ).to_ndarray()
        on_ground = on_white(pixels, alpha)
        self._transparent |= on_ground is not None
        return on_ground or decoded

    def _converted(self, decoded: av.VideoFrame, size_hw: tuple[int, int], scaled: bool) -> av.VideoFrame:
        """Convert to 4:2:0 in the limited range; the same object where nothing has to be converted."""
        matrix = _matrix_of(decoded)
        bright = decoded.color_trc in _HDR
        interpolation = Interpolation.AREA if scaled else Interpolation.BILINEAR
        return self._reformatter.reformat(
            decoded,
            width=size_hw[1],
            height=size_hw[0],
            format="yuv420p",
            src_colorspace=matrix and matrix.of_swscale,
            dst_colorspace=self._matrix.of_swscale,
            src_color_range=_range_of(decoded),
            dst_color_range=ColorRange.MPEG,
            dst_color_trc=ColorTrc.BT709 if bright else None,
            dst_color_primaries=ColorPrimaries.BT709 if bright else None,
            interpolation=interpolation if matrix is self._matrix else interpolation | _ACCURATELY,
            threads=1,
        )


def _matrix_of(decoded: av.VideoFrame) -> Matrix | None:
    """Matrix of a frame; without a tag HDTV's, or SDTV's for small frames; ``None`` for all others."""
    if decoded.colorspace in _UNTAGGED:
        return Matrix.BT601 if decoded.height < _HD_LINES else Matrix.BT709
    return _MATRICES.get(decoded.colorspace)


def _range_of(decoded: av.VideoFrame) -> ColorRange | None:
    """Range of a frame; without a tag the limited one, so that nothing is converted in vain."""
    limited = decoded.format.name.startswith("yuv4")
    return decoded.color_range or (ColorRange.MPEG if limited else None)


def _duration(decoded: av.VideoFrame) -> float:
    """Seconds that a frame is shown; 0 where that is not known."""
    return float(decoded.duration * decoded.time_base) if decoded.duration and decoded.time_base else 0.0


def _scaled(size_hw: tuple[int, int], scale: float) -> tuple[int, int]:
    """Scale a size to even sides."""
    return tuple(max(2, 2 * round(side * scale / 2)) for side in size_hw)


def _fitting(size_hw: tuple[int, int], within_hw: tuple[int, int]) -> tuple[int, int]:
    """Return the largest even size with the proportions of one size within another."""
    scale = min(limit / side for side, limit in zip(size_hw, within_hw, strict=True))
    return tuple(map(min, _scaled(size_hw, scale), within_hw))


def _frames(number: int) -> str:
    return f"{number} frame{' is' if number == 1 else 's are'}"


def _words(decoded: av.VideoFrame) -> str:
    return f"{decoded.format.name}, matrix {int(decoded.colorspace)}, transfer {int(decoded.color_trc)}"
