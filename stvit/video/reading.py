"""The frames of a clip, upright, in RGB, with their times; a few of them in memory at once."""

from __future__ import annotations

import os
from collections.abc import Iterator

import av
import cv2
import numpy as np
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter

from .probing import AGAIN, check_refused, check_size, open_clip, picture_stream, too_long
from .types import ClipInfo, Frame, Limits, VideoError

_UNSPECIFIED = 2
_HD_LINES = 720  # from here on, untagged pictures are in the colours of HDTV
_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
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

    def _upright(self, decoded: av.VideoFrame) -> np.ndarray:
        pixels = self._rgb(decoded)
        if self.info.rotation:
            pixels = cv2.rotate(pixels, _TURNS[self.info.rotation])
        height, width = self.output_hw
        below, right = height - pixels.shape[0], width - pixels.shape[1]
        if below == right == 0:
            return pixels
        if {below, right} <= {0, 1} and not self._scaled:
            return cv2.copyMakeBorder(pixels, 0, below, 0, right, cv2.BORDER_REPLICATE)
        return cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)  # the size changes within the clip

    def _rgb(self, decoded: av.VideoFrame) -> np.ndarray:
        height, width = decoded.height, decoded.width
        if self._scaled:
            height, width = self.output_hw if self.info.rotation in (0, 180) else self.output_hw[::-1]
        untagged_hd = decoded.colorspace == _UNSPECIFIED and decoded.height >= _HD_LINES
        rgb = self._reformatter.reformat(
            decoded,
            width=width,
            height=height,
            format="rgb24",
            src_colorspace=Colorspace.ITU709 if untagged_hd else None,
            src_color_range=decoded.color_range or None,
            dst_color_range=ColorRange.JPEG if decoded.color_range else None,
            interpolation=Interpolation.AREA if self._scaled else Interpolation.BILINEAR,
            threads=1,
        )
        return rgb.to_ndarray()
