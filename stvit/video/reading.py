"""The frames of a clip, upright, with their times; a few of them in memory at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Interpolation, VideoReformatter

from .picture import Matrix, Picture
from .probing import AGAIN, check_refused, check_size, open_clip, picture_stream, too_long
from .types import ClipInfo, Frame, Limits, VideoError

_UNSPECIFIED = 2
_MATRICES = {1: Matrix.BT709, 5: Matrix.BT601, 6: Matrix.BT601}  # by the numbers that clips are tagged with
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
        self._matrix: Matrix | None = None  # of all frames: that of the first one, or the one that it is brought to

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
        self._matrix = self._matrix or _matrix_of(decoded)
        wanted_hw = self.output_hw if self.info.rotation in (0, 180) else self.output_hw[::-1]
        stored_hw = wanted_hw if self._scaled else (decoded.height, decoded.width)
        if stored_hw == wanted_hw:
            picture = Picture(self._converted(decoded, stored_hw, "yuv420p"), self._matrix)
        else:
            pixels = _fitted(self._converted(decoded, stored_hw, "rgb24"), wanted_hw)
            picture = Picture.from_rgb(pixels, self._matrix)
        return picture.turned(self.info.rotation)

    def _converted(self, decoded: av.VideoFrame, size_hw: tuple[int, int], pixel_format: str) -> np.ndarray:
        """As PyAV's array of this format; a copy also where nothing has to be converted."""
        limited = decoded.format.name.startswith("yuv4")  # where the range is not tagged
        source_range = decoded.color_range or (ColorRange.MPEG if limited else None)
        to_rgb = pixel_format == "rgb24"
        converted = self._reformatter.reformat(
            decoded,
            width=size_hw[1],
            height=size_hw[0],
            format=pixel_format,
            src_colorspace=_matrix_of(decoded).of_swscale if decoded.colorspace == _UNSPECIFIED else None,
            dst_colorspace=None if to_rgb else self._matrix.of_swscale,
            src_color_range=source_range,
            dst_color_range=(ColorRange.JPEG if source_range else None) if to_rgb else ColorRange.MPEG,
            interpolation=Interpolation.AREA if self._scaled else Interpolation.BILINEAR,
            threads=1,
        )
        return converted.to_ndarray()


def _matrix_of(decoded: av.VideoFrame) -> Matrix:
    """The frame's own where pictures can have it, or the one that it is brought to."""
    tagged = _MATRICES.get(decoded.colorspace)
    small = decoded.colorspace == _UNSPECIFIED and decoded.height < _HD_LINES
    return tagged or (Matrix.BT601 if small else Matrix.BT709)


def _fitted(pixels: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Made even by repeating the last row and column; anything else when the size changes within the clip."""
    below, right = (wanted - stored for wanted, stored in zip(size_hw, pixels.shape, strict=False))
    if {below, right} <= {0, 1}:
        return cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE)
    return cv2.resize(pixels, size_hw[::-1], interpolation=cv2.INTER_AREA)
