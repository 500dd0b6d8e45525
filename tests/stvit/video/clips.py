"""Clips of known content: a grey ground whose brightness tells the frame, with two squares that move over it."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch

from stvit.detection import Detections
from stvit.video.types import FrameResult

STEP = 9  # of brightness, from frame to frame
FIRST = 30
SQUARE = 24
RED, BLUE = (230, 30, 30), (30, 30, 230)
RATE = 48000
TICKS = {
    ".gif": 100,
    ".avi": 10,
    ".mpg": 25,
}  # of the clock, per second, in containers that do not choose it themselves


def scene(index: int, size_hw: tuple[int, int]) -> np.ndarray:
    """(H, W, 3) uint8 RGB; a red square goes right, 4 pixels a frame, and a blue one left."""
    pixels = np.full((*size_hw, 3), FIRST + STEP * (index % 20), np.uint8)
    for colour, left, top in ((RED, red_left(index), 4), (BLUE, size_hw[1] - SQUARE - red_left(index), 36)):
        pixels[top : top + SQUARE, left : left + SQUARE] = colour
    return pixels


def red_left(index: int) -> int:
    return 4 + 4 * (index % 20)


def frame_number(pixels: np.ndarray) -> int:
    """Which of the first 20 frames of a clip these pixels are."""
    return round((float(np.median(pixels)) - FIRST) / STEP)


@contextmanager
def usual_priority() -> Iterator[None]:
    """Take back the real-time priority that SVT-AV1 gives to a thread that encodes as root: whatever that thread starts
    later would have it too, and nothing else would run beside it."""
    try:
        yield
    finally:
        if hasattr(os, "sched_setscheduler") and os.sched_getscheduler(0) != os.SCHED_OTHER:
            os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def make_clip(
    path: Path,
    frames: int = 12,
    size_hw: tuple[int, int] = (64, 128),
    *,
    fps: int = 10,
    codec: str = "libx264",
    times: Sequence[float] | None = None,
    rotation: int = 0,
    sound: str = "",
    pix_fmt: str = "yuv420p",
    aspect: Fraction | None = None,
) -> Path:
    """Write a clip; ``times`` in seconds makes the frame rate vary, ``rotation`` is how far a player has to turn it,
    ``aspect`` that of a stored pixel."""
    options = {"crf": "4"} if codec in ("libx264", "libx265") else {}
    with usual_priority(), av.open(str(path), "w") as output:
        stream = output.add_stream(
            codec, rate=fps, options=options, time_base=Fraction(1, TICKS.get(path.suffix, 1000))
        )
        stream.height, stream.width, stream.pix_fmt = *size_hw, pix_fmt
        if aspect:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        audio = output.add_stream(sound, rate=RATE, layout="stereo") if sound else None
        base = stream.codec_context.time_base
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(scene(index, size_hw), "rgb24")
            if codec == "gif":
                frame = frame.reformat(format=pix_fmt)
            frame.time_base = base
            frame.pts = round((times[index] if times else index / fps) / base)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        for packet in tone(audio, frames / fps) if audio else ():
            output.mux(packet)
    return path


def growing_clip(path: Path, small_hw: tuple[int, int], large_hw: tuple[int, int], codec: str = "libvpx-vp9") -> Path:
    """A WebM with frames of both sizes, three of each; its header tells of the first."""
    parts = [make_clip(path.with_name(f"{size[0]}.webm"), 3, size, codec=codec) for size in (small_hw, large_hw)]
    with av.open(str(parts[0])) as small, av.open(str(parts[1])) as large, av.open(str(path), "w") as output:
        stream = output.add_stream_from_template(small.streams.video[0])
        packets = [packet for part in (small, large) for packet in part.demux(video=0) if packet.dts is not None]
        for index, packet in enumerate(packets):
            packet.time_base, packet.stream = Fraction(1, 10), stream
            packet.pts, packet.dts, packet.duration = index, index, 1
            output.mux(packet)
    for part in parts:
        part.unlink()
    return path


ORIENTATIONS = {  # the upper left of a display matrix -> what it does to the stored picture
    (1, 0, 0, 1): lambda pixels: pixels,
    (-1, 0, 0, 1): np.fliplr,
    (1, 0, 0, -1): np.flipud,
    (-1, 0, 0, -1): lambda pixels: np.rot90(pixels, 2),
    (0, 1, -1, 0): lambda pixels: np.rot90(pixels, -1),
    (0, -1, 1, 0): np.rot90,
    (0, 1, 1, 0): lambda pixels: pixels.swapaxes(0, 1),
    (0, -1, -1, 0): lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
}


def with_matrix(path: Path, matrix: tuple[int, int, int, int]) -> Path:
    """Write a display matrix into the header of an MP4's first track."""
    content = bytearray(path.read_bytes())
    start = content.index(b"tkhd") + 44
    a, b, c, d = (65536 * value for value in matrix)
    content[start : start + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def alpha_clip(path: Path, codec: str, pix_fmt: str, frames: int = 3) -> Path:
    """Red where it is transparent, with a blue square at (16, 16), and one at (64, 16) that is half transparent."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=10, options={"auto-alt-ref": "0"} if "libvpx" in codec else {})
        stream.width, stream.height, stream.pix_fmt = 128, 64, pix_fmt
        pixels = np.full((64, 128, 4), (255, 0, 0, 0), np.uint8)
        pixels[16:48, 16:48], pixels[16:48, 64:96] = (0, 0, 255, 255), (0, 0, 255, 128)
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(pixels, "rgba").reformat(format=pix_fmt)
            frame.pts, frame.time_base = index, Fraction(1, 10)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def with_edits(path: Path, edits: Sequence[tuple[int, int]]) -> Path:
    """Give the first track of an MP4, whose index comes last, another edit list.

    Args:
        edits: duration of each in milliseconds, and where it begins in ticks of the track's clock, -1 for nowhere.
    """
    content = path.read_bytes()
    moov, trak = content.index(b"moov") - 4, content.index(b"trak") - 4
    edts = content.find(b"edts", trak) - 4
    old = int.from_bytes(content[edts : edts + 4], "big")
    entries = b"".join(struct.pack(">Iii", duration, start, 65536) for duration, start in edits)
    new = struct.pack(">I4sI4sII", 24 + len(entries), b"edts", 16 + len(entries), b"elst", 0, len(edits)) + entries
    changed = bytearray(content[:edts] + new + content[edts + old :])
    for box in (moov, trak):
        size = int.from_bytes(changed[box : box + 4], "big") + len(new) - old
        changed[box : box + 4] = size.to_bytes(4, "big")
    path.write_bytes(changed)
    return path


def tone(stream: Any, seconds: float) -> Iterator[Any]:
    """A sound of 440 Hz."""
    context = stream.codec_context
    length, at = context.frame_size or 1024, 0
    resampler = av.AudioResampler(format=context.format, layout="stereo", rate=RATE, frame_size=length)
    while at < seconds * RATE:
        wave = np.sin(2 * np.pi * 440 * (np.arange(length) + at) / RATE).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.stack([wave, wave]) * 0.3, "fltp", "stereo")
        frame.rate, frame.pts, frame.time_base = RATE, at, Fraction(1, RATE)
        for resampled in resampler.resample(frame):
            yield from stream.encode(resampled)
        at += length
    yield from stream.encode(None)


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    """Time and pixels of every frame, as stored."""
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


class Seer:
    """A stand-in model that reads from the pixels which frame they are, and finds the squares."""

    label, note, macs, input_key = "Seer", "", 2_000_000_000, "Seer"

    def __init__(self, pace_ms: float = 1.0, batch_size: int = 3) -> None:
        self.pace_ms, self.batch_size = pace_ms, batch_size
        self.batches: list[int] = []

    def begin(self, frame_hw: tuple[int, int]) -> str:
        self.frame_hw = frame_hw
        return "eager"

    def in_eager(self) -> None:
        """It never runs otherwise."""

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        assert pixels.shape == (*self.frame_hw, 3)
        return pixels.copy()

    def infer(self, batch: list[np.ndarray], *, compared: bool = False) -> list[FrameResult]:
        self.batches.append(len(batch))
        return [
            FrameResult(self.pace_ms, self.pace_ms, top1=(f"frame {frame_number(pixels)}", 0.75), found=squares(pixels))
            for pixels in batch
        ]


def squares(pixels: np.ndarray) -> Detections:
    """The squares of a scene, the red one first."""
    boxes = []
    for colour in (RED, BLUE):
        rows, columns = np.nonzero(np.abs(pixels.astype(int) - colour).max(axis=2) < 60)
        if len(rows):
            boxes.append([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    return Detections(
        boxes=torch.tensor(boxes, dtype=torch.float32).view(-1, 4),
        scores=torch.tensor([0.9, 0.8][: len(boxes)]),
        labels=torch.zeros(len(boxes), dtype=torch.int64),
        mask_probabilities=torch.ones(len(boxes), 28, 28),
        image_hw=pixels.shape[:2],
    )
