"""The frames of a clip, upright, with their times; a few of them in memory at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import av
from av.video.reformatter import ColorPrimaries, ColorRange, ColorTrc, Interpolation, VideoReformatter

from .picture import Matrix, Picture
from .probe import AGAIN, check_refused, check_size, open_clip, picture_stream, too_long
from .types import ClipInfo, Frame, Limits, VideoError

_UNTAGGED = (2, 3)  # not specified, reserved
_MATRICES = {1: Matrix.BT709, 5: Matrix.BT601, 6: Matrix.BT601}  # by the numbers that clips are tagged with
_HDR = (16, 18)  # transfer by PQ and HLG; brought to that of BT.709, which cuts off what is brighter than white
_ACCURATELY = 0x40000  # SWS_ACCURATE_RND: else grey gets a tint where the matrix changes
_HD_LINES = 720  # from here on, untagged pictures are in the colours of HDTV
_SHORTEST_STEP_S = 1e-4


def output_hw(source_hw: tuple[int, int], max_side: int) -> tuple[int, int]:
    """The size at which a clip is processed: its own, or smaller where a side exceeds ``max_side``; even, as H.264 in
    4:2:0 wants it."""
    scale = min(1.0, max_side / max(source_hw))
    if scale == 1.0:
        return tuple(side + side % 2 for side in source_hw)
    return tuple(max(2, 2 * round(side * scale / 2)) for side in source_hw)


class ClipReader:
    """Iterates over the frames of a clip, once.

    Args:
        info: of the clip.
        max_side: longest side of the frames; larger ones are scaled down.

    Attributes:
        output_hw: size of the frames.
        note: what was wrong with the file, in words; known at the end.
    """

    def __init__(self, info: ClipInfo, max_side: int, limits: Limits | None = None) -> None:
        self.info, self.limits = info, limits or Limits()
        self.output_hw = output_hw(info.source_hw, max_side)
        self.note = ""
        self._scaled = info.anamorphic or self.output_hw != output_hw(info.source_hw, max(info.source_hw))
        self._reformatter = VideoReformatter()
        self._matrix: Matrix | None = None  # of all frames, from the first one on

    def __iter__(self) -> Iterator[Frame]:
        """Raises VideoError where the clip exceeds what its header said and the limits allow."""
        index, last_s = 0, -1.0
        with open_clip(self.info.path, self.limits) as container:
            stream = picture_stream(container, self.limits)
            stream.thread_type = "AUTO"
            stream.codec_context.thread_count = min(4, os.cpu_count() or 1)
            for decoded in self._decoded(container, stream):
                check_size(decoded.width, decoded.height, self.limits)
                time_s = self._time(decoded, last_s)
                if time_s > self.limits.max_seconds or index >= self.limits.max_seconds * self.limits.max_fps:
                    raise too_long(time_s, self.limits, "The clip goes on longer than its header says: it")
                yield Frame(index, time_s, self._upright(decoded))
                index, last_s = index + 1, time_s
        if index == 0:
            raise VideoError("Not one frame of the clip can be read.", AGAIN)
        self._judge(index)

    def _decoded(self, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
        """All frames that can be decoded; damaged parts are left out and noted."""
        try:
            for packet in container.demux(stream):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    check_refused(stream, error, self.limits)
                    self.note = "Parts of the file are damaged, and left out."
                    continue
                yield from frames
        except av.FFmpegError:
            self.note = "The file is damaged: what comes after this point cannot be read."

    def _judge(self, frames: int) -> None:
        expected = self.info.frames
        if expected and frames < 0.9 * expected - 1:
            self.note = f"The file ends too early: {frames} of about {expected} frames could be read."

    def _time(self, decoded: av.VideoFrame, last_s: float) -> float:
        if decoded.time is None:
            return last_s + 1 / self.info.fps if last_s >= 0 else 0.0
        return max(decoded.time - self.info.start_s, last_s + _SHORTEST_STEP_S, 0.0)

    def _upright(self, decoded: av.VideoFrame) -> Picture:
        self._matrix = self._matrix or _matrix_for(decoded)
        wanted_hw = self.output_hw if self.info.rotation in (0, 180) else self.output_hw[::-1]
        even_hw = decoded.height + decoded.height % 2, decoded.width + decoded.width % 2
        scaled = self._scaled or even_hw != wanted_hw  # the size may change within a clip
        try:
            stored = self._converted(decoded, wanted_hw if scaled else (decoded.height, decoded.width), scaled)
        except av.FFmpegError as error:
            raise VideoError(f"The clip's colours ({_words(decoded)}) cannot be converted.", AGAIN) from error
        return Picture.of_frame(stored, self._matrix).turned(self.info.rotation)

    def _converted(self, decoded: av.VideoFrame, size_hw: tuple[int, int], scaled: bool) -> av.VideoFrame:
        """In 4:2:0 and the limited range; the same object where nothing has to be converted."""
        untagged = decoded.colorspace in _UNTAGGED
        limited = decoded.format.name.startswith("yuv4")  # unless tagged; said, so that nothing is converted in vain
        bright = decoded.color_trc in _HDR
        kept = untagged or _MATRICES.get(decoded.colorspace) is self._matrix
        interpolation = Interpolation.AREA if scaled else Interpolation.BILINEAR
        return self._reformatter.reformat(
            decoded,
            width=size_hw[1],
            height=size_hw[0],
            format="yuv420p",
            src_colorspace=_matrix_for(decoded).of_swscale if untagged else None,
            dst_colorspace=self._matrix.of_swscale,
            src_color_range=decoded.color_range or (ColorRange.MPEG if limited else None),
            dst_color_range=ColorRange.MPEG,
            dst_color_trc=ColorTrc.BT709 if bright else None,
            dst_color_primaries=ColorPrimaries.BT709 if bright else None,
            interpolation=interpolation if kept else interpolation | _ACCURATELY,
            threads=1,
        )


def _matrix_for(decoded: av.VideoFrame) -> Matrix:
    """The frame's own where it is one that pictures have; else HDTV's, and SDTV's for small frames without a tag."""
    tagged = _MATRICES.get(decoded.colorspace)
    small = decoded.colorspace in _UNTAGGED and decoded.height < _HD_LINES
    return tagged or (Matrix.BT601 if small else Matrix.BT709)


def _words(decoded: av.VideoFrame) -> str:
    return f"{decoded.format.name}, matrix {int(decoded.colorspace)}, transfer {int(decoded.color_trc)}"
