"""Composes transparent frames on white, as transparent pictures are."""

from __future__ import annotations

import av
import cv2
import numpy as np
from av.packet import Packet
from av.video.stream import VideoStream

from .picture import plane_rows

_CODECS = ("vp8", "vp9")
_SIDE_DATA, _ALPHA_ID = "matroska_block_additional", 1


class AlphaStream:
    """Decodes the alpha plane of WebM clips, a second stream of VP8 or VP9 within the side data of the first.

    Args:
        stream: of the pictures; read with one thread from now on, so that packets and pictures come in pairs.
        options: of the decoder.
    """

    def __init__(self, stream: VideoStream, options: dict[str, str]) -> None:
        stream.thread_type, stream.codec_context.thread_count = "NONE", 1
        self._context = av.CodecContext.create(stream.codec_context.name, "r")
        self._context.options = options

    @staticmethod
    def of(stream: VideoStream, options: dict[str, str]) -> AlphaStream | None:
        """Return the alpha stream of a clip; ``None`` where it has none."""
        has_one = stream.metadata.get("alpha_mode") == "1" and stream.codec_context.name in _CODECS
        return AlphaStream(stream, options) if has_one else None

    def decode(self, packet: Packet) -> np.ndarray | None:
        """Return the opacity of a packet's picture, (H, W) uint8; ``None`` where the packet has none."""
        for side_data in packet.iter_sidedata():
            content = bytes(side_data) if side_data.data_type == _SIDE_DATA else b""
            if int.from_bytes(content[:8], "big") == _ALPHA_ID:
                for frame in self._context.decode(Packet(content[8:])):
                    return plane_rows(frame.planes[0])
        return None


def may_be_transparent(frame: av.VideoFrame) -> bool:
    """Tell whether the format of a frame has an alpha channel, or a palette that may have one."""
    return frame.format.has_palette or any(component.is_alpha for component in frame.format.components)


def on_white(pixels: np.ndarray, alpha: np.ndarray | None = None) -> av.VideoFrame | None:
    """Compose a picture on white, in "rgb24"; ``None`` where it is opaque everywhere.

    Args:
        pixels: (H, W, 4) uint8 RGBA, straight.
        alpha: (H, W) uint8, instead of the picture's own.
    """
    height, width = pixels.shape[:2]
    alpha = pixels[..., 3] if alpha is None else cv2.resize(alpha, (width, height))
    if alpha.min() == 255:
        return None
    share = alpha[..., None] / np.float32(255)
    frame = av.VideoFrame.from_ndarray(np.rint(pixels[..., :3] * share + 255 * (1 - share)).astype(np.uint8), "rgb24")
    frame.colorspace, frame.color_range = 0, 2  # RGB, all of its range
    return frame
