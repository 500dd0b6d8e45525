"""Checks whether a file is a clip within the limits; by its header as far as that goes, before decoding."""

from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.sidedata.sidedata import Type as SideData
from av.video.stream import VideoStream

from .clock import find_joins
from .types import ClipInfo, Limits, VideoError

# Containers that people have. FFmpeg's others stay closed: some of them are lists of further files and addresses.
CONTAINERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,gif,mpegts,mpeg,mpegvideo,flv,asf,ogg,ivf,h264,hevc,obu"
OPTIONS = {"protocol_whitelist": "file", "format_whitelist": CONTAINERS}
DECODER_ROOM = 2  # how many times the limit a decoder may take: it rounds sides up to whole blocks
ALMOST_SQUARE = 0.01  # pixels that deviate by less are rounding errors of who scaled the clip
READABLE = "MP4, MOV, WebM, MKV, AVI, GIF or MPEG"
USUAL_FPS = 25.0  # where a header says nothing
AGAIN = "Take it from the original again."
BYTES_PER_PIXEL, MIN_BYTES = 1.5 * 32, 2**24  # that decoders with several threads may want for their frames
NO_MEMORY = "There is not enough memory here to decode the clip.", "Scale it down and use that."
_HEADS = {
    "a JPEG picture": b"\xff\xd8\xff",
    "a PNG picture": b"\x89PNG",
    "a PDF document": b"%PDF",
    "a ZIP archive": b"PK\x03\x04",
}


def probe(path: str | Path, limits: Limits | None = None) -> ClipInfo:
    """Read a clip's header and its first frame.

    Raises:
        VideoError: no clip, or not within the limits.
    """
    limits, path = limits or Limits(), Path(path)
    _check_bytes(path, limits)
    with open_clip(path, limits) as container:
        stream = picture_stream(container, limits)
        start_s = container.start_time / av.time_base if container.start_time else 0.0
        duration_s, fps, frames = _duration(container, stream), _rate(stream), _shown(container, stream)
        joins_s: tuple[float, ...] = ()
        if container.format.flags & av.format.Flags.ts_discont.value:  # may be joined, and headers tell of one part
            with open_clip(path, limits) as parts:
                joined = find_joins(parts.demux(picture_stream(parts, limits)), start_s)
            if joins_s := joined.joins_s:
                duration_s, fps, frames = joined.duration_s, joined.fps, joined.frames
        _check_header(stream, duration_s, fps, limits)
        first = _first_frame(container, stream, limits)
        check_size(first.width, first.height, limits)
        height, width = square_pixels(first.height, first.width, stream.sample_aspect_ratio)
        check_size(width, height, limits)
        rotation, mirrored = orientation(first)
        sounds = [sound for sound in container.streams.audio if sound.codec_context is not None]
        return ClipInfo(
            path=path,
            container=container.format.name,
            codec=stream.codec_context.name,
            source_hw=(width, height) if rotation in (90, 270) else (height, width),
            rotation=rotation,
            fps=fps or USUAL_FPS,
            duration_s=duration_s,
            frames=frames or (round(duration_s * (fps or USUAL_FPS)) if duration_s else None),
            start_s=start_s,
            sound=sounds[0].codec_context.name if sounds else "",
            anamorphic=(height, width) != (first.height, first.width),
            mirrored=mirrored,
            joins_s=joins_s,
        )


def open_clip(path: Path, limits: Limits | None = None) -> InputContainer:
    """Open a file; where its header is not enough, FFmpeg decodes a little, but no picture that is far too large.

    Raises:
        VideoError: not a clip.
    """
    try:
        container = av.open(str(path), options=decoder_bounds(limits or Limits()), container_options=OPTIONS)
    except FileNotFoundError:
        raise VideoError("The file is no longer there.", AGAIN) from None
    except av.error.MemoryError as error:
        raise VideoError(*NO_MEMORY) from error
    except (av.FFmpegError, ValueError) as error:
        raise VideoError(*_explain(path)) from error
    if not (container.streams.video or container.streams.audio):  # an index that is cut off is no error to FFmpeg
        container.close()
        raise VideoError(*_explain(path))
    return container


def picture_stream(container: InputContainer, limits: Limits) -> VideoStream:
    """Find the stream with the moving picture; its decoder refuses pictures that are far too large, see
    :func:`check_refused`. Cover pictures of songs do not count.

    Raises:
        VideoError: there is none, or none that can be decoded.
    """
    cover = av.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams:
        raise VideoError("The file holds no moving picture, only sound.", "Use a clip with a picture.")
    if streams[0].codec_context is None:
        raise VideoError("The clip's picture is coded in a way that is not known here.", "Save it as H.264 in an MP4.")
    streams[0].codec_context.options = decoder_bounds(limits)
    return streams[0]


def check_size(width: int, height: int, limits: Limits) -> None:
    """Check the size of a frame.

    Raises:
        VideoError: it is too large or too small.
    """
    if width * height > limits.max_pixels:
        raise VideoError(
            f"The clip is {width} × {height} pixels; the limit is {_megapixels(limits)}.",
            "Scale it down and use that.",
        )
    if min(width, height) < limits.min_side:
        raise VideoError(
            f"The clip is {width} × {height} pixels; each side needs at least {limits.min_side}.",
            "Use a larger one.",
        )


def check_memory(pixels: int, error: av.FFmpegError | None = None) -> None:
    """Check whether frames may be missing because memory is short: some decoders call it bad data, others nothing.

    Args:
        pixels: of a frame.
        error: that came with it.

    Raises:
        VideoError: memory is short.
    """
    try:
        if not isinstance(error, av.error.MemoryError):
            np.empty(max(int(BYTES_PER_PIXEL * pixels), MIN_BYTES), np.uint8)  # not touched, so it costs nothing
            return
    except MemoryError:
        pass
    raise VideoError(*NO_MEMORY) from error


def check_refused(stream: VideoStream, error: av.FFmpegError, limits: Limits) -> None:
    """Check whether the decoder failed because of a picture's size, or of short memory.

    Raises:
        VideoError: it did.
    """
    context = stream.codec_context
    check_memory(context.width * context.height, error)
    if context.width * context.height > limits.max_pixels:
        check_size(context.width, context.height, limits)
    if isinstance(error, av.ArgumentError) and not context.width:  # most decoders forget a size that they refuse
        raise VideoError(
            f"The clip holds pictures that are far larger than the limit, {_megapixels(limits)}.",
            "Scale it down and use that.",
        )


def square_pixels(height: int, width: int, aspect: Fraction | None) -> tuple[int, int]:
    """Return the size (height, width) with square pixels; no side becomes smaller.

    Args:
        aspect: width over height of a stored pixel, where that is known.
    """
    if not aspect or aspect < 0 or abs(aspect - 1) < ALMOST_SQUARE:
        return height, width
    return (height, round(width * aspect)) if aspect > 1 else (round(height / aspect), width)


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Return degrees by which to turn a stored picture counterclockwise, 0, 90, 180 or 270, and whether to mirror it
    left to right then: by its display matrix, as FFmpeg's own tools read that."""
    try:
        matrix = np.frombuffer(frame.side_data[SideData.DISPLAYMATRIX], np.int32).reshape(3, 3)[:2, :2].astype(float)
    except (KeyError, ValueError):  # PyAV knows no names for FFmpeg's latest kinds of side data
        return round(frame.rotation / 90) % 4 * 90, False
    mirrored = np.linalg.det(matrix) < 0
    (right, down), _ = matrix * (-1, 1) if mirrored else matrix  # where the stored rows lead to
    return round(-math.degrees(math.atan2(down, right)) / 90) % 4 * 90, bool(mirrored)


def too_long(seconds: float, limits: Limits, source: str = "By its header, the clip") -> VideoError:
    """Refuse a clip for its length."""
    return VideoError(
        f"{source} lasts {_time_words(seconds)}; the limit is {_time_words(limits.max_seconds)}.",
        "Cut out the part that matters, and use that.",
    )


def decoder_bounds(limits: Limits) -> dict[str, str]:
    """Options of a decoder that refuses pictures which are far too large."""
    return {"max_pixels": str(DECODER_ROOM * limits.max_pixels)}


def _megapixels(limits: Limits) -> str:
    return f"{limits.max_pixels / 1e6:.1f} megapixels (4K)"


def _check_bytes(path: Path, limits: Limits) -> None:
    try:
        size = path.stat().st_size
    except OSError:
        raise VideoError("The file is no longer there.", AGAIN) from None
    if size == 0:
        raise VideoError("The file is empty.", AGAIN)
    if size > limits.max_bytes:
        raise VideoError(
            f"The file has {size / 2**20:.1f} MB; the limit is {limits.max_bytes / 2**20:.0f} MB.",
            "Cut the clip or scale it down, and use that.",
        )


def _check_header(stream: VideoStream, duration_s: float | None, fps: float | None, limits: Limits) -> None:
    if duration_s is not None and duration_s > limits.max_seconds:
        raise too_long(duration_s, limits)
    if stream.width and stream.height:
        check_size(stream.width, stream.height, limits)
    if fps and fps > limits.max_fps:
        raise VideoError(
            f"By its header, the clip has {fps:.0f} frames per second; the limit is {limits.max_fps:.0f}.",
            "Save it at a lower frame rate, and use that.",
        )


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Longest duration that the header claims, seconds."""
    claims = [container.duration / av.time_base if container.duration else 0.0]
    if stream.duration and stream.time_base:
        claims.append(float(stream.duration * stream.time_base))
    return max(claims) if max(claims) > 0 else None


def _shown(container: InputContainer, stream: VideoStream) -> int:
    """Frames by the header, without those that an edit list hides; 0 where it does not count them."""
    if stream.frames and "mov" in container.format.name:  # FFmpeg's index of others is not complete
        return sum(not entry.is_discard for entry in stream.index_entries)
    return stream.frames


def _rate(stream: VideoStream) -> float | None:
    """Frames per second; ``None`` for recordings of browsers, which name the rate of their clock, 1000."""
    rate = stream.average_rate
    known = rate is not None and rate > 0 and not (rate == Fraction(1000) and not stream.frames)
    return float(rate) if known else None


def _first_frame(container: InputContainer, stream: VideoStream, limits: Limits) -> av.VideoFrame:
    try:
        for packet in container.demux(stream):
            for frame in packet.decode():
                return frame
    except av.FFmpegError as error:
        check_refused(stream, error, limits)
        raise VideoError("The clip is damaged or ends too early: not one frame can be read.", AGAIN) from error
    raise VideoError("The clip has no frames in it, or ends before the first one.", AGAIN)


def _explain(path: Path) -> tuple[str, str]:
    """Explain why a file could not be opened, and what to do."""
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        return f"The file cannot be opened ({error.strerror}).", "Give one that can be read."
    for name, start in _HEADS.items():
        if head.startswith(start):
            return f"The file is {name}, not a clip, whatever its name says.", f"Use {READABLE}."
    if head[4:8] == b"ftyp" or head.startswith((b"\x1aE\xdf\xa3", b"RIFF", b"GIF8")):
        return "The file begins as a clip, but is damaged or ends too early: its index is missing.", AGAIN
    if head and all(byte in b"\t\n\r" or byte >= 32 for byte in head):
        return "The file holds text, not a clip, whatever its name says.", f"Use {READABLE}."
    return "The file is not a clip in a format that is known here.", f"Use {READABLE}."


def _time_words(seconds: float) -> str:
    if seconds >= 5400:
        return f"{seconds / 3600:.1f} hours"
    return f"{seconds / 60:.1f} minutes" if seconds >= 120 else f"{seconds:.0f} seconds"
