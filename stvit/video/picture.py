"""Pictures as most clips store them: luma and chroma planes of 8 bits, 4:2:0, the limited range.

Drawing on the planes spares the conversion to RGB and back, which takes longer than the drawing itself, and what is not
drawn on reaches the encoder as the decoder gave it.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum
from functools import cached_property
from typing import Any

import av
import cv2
import numpy as np
from av.video.plane import VideoPlane
from av.video.reformatter import ColorRange, Colorspace, VideoReformatter
from numpy.typing import ArrayLike

from stvit.draw.canvas import Canvas, Plane

_TURNS = {90: cv2.ROTATE_90_COUNTERCLOCKWISE, 180: cv2.ROTATE_180, 270: cv2.ROTATE_90_CLOCKWISE}
_DARKEST, _LUMA_RANGE, _CHROMA_RANGE, _GREY = 16, 219, 224, 128  # of the limited range
_SLACK = 64  # bytes: FFmpeg's scaler reads past the end of rows whose length is no multiple of its registers'


class Matrix(Enum):
    """How luma and chroma follow from RGB: as for SDTV or HDTV. The value is the number that clips are tagged with."""

    BT601 = 6
    BT709 = 1

    @cached_property
    def weights(self) -> np.ndarray:
        """(3, 3): rows Y, U, V for RGB in [0, 255], in the limited range, without what they add to black."""
        red, blue = (0.299, 0.114) if self is Matrix.BT601 else (0.2126, 0.0722)
        luma = np.array([red, 1 - red - blue, blue])
        u, v = (np.array([0, 0, 1]) - luma) / (2 - 2 * blue), (np.array([1, 0, 0]) - luma) / (2 - 2 * red)
        return np.stack([_LUMA_RANGE * luma, _CHROMA_RANGE * u, _CHROMA_RANGE * v]) / 255

    @property
    def of_swscale(self) -> Colorspace:
        """The same, as FFmpeg's scaler calls it."""
        return Colorspace.ITU601 if self is Matrix.BT601 else Colorspace.ITU709


def plane_rows(plane: VideoPlane) -> np.ndarray:
    """(h, w) uint8: values of a PyAV plane of 8 bits, shared."""
    return np.frombuffer(plane, np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]


def even(side: int) -> int:
    """Round up to an even number."""
    return side + side % 2


class Picture:
    """A picture in 4:2:0 and the limited range.

    Args:
        size_hw: even.
        matrix: how luma and chroma follow from RGB.
        planes: what luma and both chroma planes are filled with; copied.

    Attributes:
        canvas: its planes; drawing on them changes the picture.
    """

    def __init__(self, size_hw: tuple[int, int], matrix: Matrix, planes: Iterable[ArrayLike]) -> None:
        self.size_hw, self.matrix = size_hw, matrix
        height, width = size_hw
        luma = height * width
        self._values = np.empty(luma * 3 // 2 + _SLACK, np.uint8)
        chroma = self._values[luma : luma * 3 // 2].reshape(2, height // 2, width // 2)
        y, u, v = matrix.weights
        self.canvas: Canvas = (
            Plane(self._values[:luma].reshape(size_hw), 1, y, _DARKEST),
            Plane(chroma[0], 2, u, _GREY),
            Plane(chroma[1], 2, v, _GREY),
        )
        for plane, values in zip(self.canvas, planes, strict=True):
            plane.values[:] = values

    def __reduce__(self) -> tuple[Any, ...]:
        return Picture, (self.size_hw, self.matrix, [plane.values for plane in self.canvas])

    @classmethod
    def of_frame(cls, frame: av.VideoFrame, matrix: Matrix) -> Picture:
        """A copy of what PyAV decoded or converted, "yuv420p" in the limited range. Odd sides become even: luma's last
        row or column is repeated."""
        size_hw = even(frame.height), even(frame.width)
        luma, *chroma = map(plane_rows, frame.planes)
        if luma.shape != size_hw:
            luma = np.pad(luma, ((0, frame.height % 2), (0, frame.width % 2)), "edge")
        return cls(size_hw, matrix, [luma, *chroma])

    @classmethod
    def from_rgb(cls, pixels: np.ndarray, matrix: Matrix = Matrix.BT709) -> Picture:
        """Pixels (H, W, 3) uint8 RGB."""
        converted = VideoReformatter().reformat(
            av.VideoFrame.from_ndarray(pixels, "rgb24"),
            format="yuv420p",
            dst_colorspace=matrix.of_swscale,
            dst_color_range=ColorRange.MPEG,
            threads=1,
        )
        return cls.of_frame(converted, matrix)

    @classmethod
    def black(cls, size_hw: tuple[int, int], matrix: Matrix = Matrix.BT709) -> Picture:
        return cls(size_hw, matrix, (_DARKEST, _GREY, _GREY))

    def rgb(self) -> np.ndarray:
        """(H, W, 3) uint8, a copy."""
        converted = VideoReformatter().reformat(
            self.frame(),
            format="rgb24",
            src_colorspace=self.matrix.of_swscale,
            src_color_range=ColorRange.MPEG,
            dst_color_range=ColorRange.JPEG,
            threads=1,
        )
        return converted.to_ndarray()

    def frame(self) -> av.VideoFrame:
        """Make a PyAV frame, which shares the values where that is possible."""
        height, width = self.size_hw
        if height % 4 == 0:
            values = self._values[: height * width * 3 // 2].reshape(-1, width)
            frame = av.VideoFrame.from_numpy_buffer(values, "yuv420p")
        else:  # PyAV expects that chroma begins and ends with a row of luma's length
            frame = av.VideoFrame(width, height, "yuv420p")
            for plane, stored in zip(self.canvas, frame.planes, strict=True):
                plane_rows(stored)[:] = plane.values
        frame.colorspace, frame.color_range = self.matrix.value, ColorRange.MPEG
        return frame

    def turned(self, degrees: int, mirrored: bool = False) -> Picture:
        """Turn counterclockwise by 0, 90, 180 or 270 degrees, then mirror left to right if wanted."""
        if not (degrees or mirrored):
            return self
        size_hw = self.size_hw[::-1] if degrees in (90, 270) else self.size_hw
        planes = [cv2.rotate(plane.values, _TURNS[degrees]) if degrees else plane.values for plane in self.canvas]
        return Picture(size_hw, self.matrix, [cv2.flip(values, 1) for values in planes] if mirrored else planes)

    def framed(self, size_hw: tuple[int, int]) -> Picture:
        """Put this picture in the middle of a black one, of even sides and no smaller."""
        framed = Picture.black(size_hw, self.matrix)
        framed.paste(self, *((outer - inner) // 4 * 2 for outer, inner in zip(size_hw, self.size_hw, strict=True)))
        return framed

    def paste(self, other: Picture, top: int, left: int) -> None:
        """Put a picture of the same matrix on this one, at an even row and column."""
        for plane, own in zip(self.canvas, other.canvas, strict=True):
            height, width = own.values.shape
            y, x = top // plane.step, left // plane.step
            plane.values[y : y + height, x : x + width] = own.values
