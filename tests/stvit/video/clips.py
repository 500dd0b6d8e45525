"""Clips of known content: a grey ground whose brightness tells the frame, with two squares that move over it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
TICKS = {".gif": 100, ".avi": 10}  # of the clock, per second, in containers that do not choose it themselves


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
    with av.open(str(path), "w") as output:
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
            packet.pts = packet.dts = index
            output.mux(packet)
    for part in parts:
        part.unlink()
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

    def begin(self, frame_hw: tuple[int, int]) -> None:
        self.frame_hw = frame_hw

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
