"""What the parts of the pipeline hand to each other."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..detection import Detections


class VideoError(ValueError):
    """A file that cannot be used; the message is for the user and names a next step."""


@dataclass(frozen=True)
class Limits:
    """What a clip may have; checked by its header before anything is decoded, and again while it is read.

    Attributes:
        max_bytes: size of the file.
        max_seconds: length.
        max_pixels: of one frame.
        min_side: of the shorter side, pixels.
        max_fps: frames per second.
    """

    max_bytes: int = 50 * 2**20
    max_seconds: float = 180.0
    max_pixels: int = 3840 * 2160
    min_side: int = 16
    max_fps: float = 120.0


@dataclass(frozen=True)
class ClipInfo:
    """What is known of a clip before all of it is read.

    Attributes:
        path: the file.
        container: name of its format, e.g. ``"mov,mp4,m4a,3gp,3g2,mj2"``.
        codec: name of the picture's codec, e.g. ``"hevc"``.
        source_hw: size of the upright picture.
        rotation: degrees, counterclockwise, that turn the stored picture upright: 0, 90, 180 or 270.
        fps: frames per second on average, by the header.
        duration_s: length by the header; ``None`` where it says none.
        frames: number of frames by the header, or estimated; ``None`` where that is not possible.
        start_s: time that the clip's own clock shows at its beginning.
        sound: name of the sound's codec; empty where there is none.
    """

    path: Path
    container: str
    codec: str
    source_hw: tuple[int, int]
    rotation: int
    fps: float
    duration_s: float | None
    frames: int | None
    start_s: float
    sound: str


@dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        index: from 0.
        time_s: since the beginning of the clip.
        pixels: (H, W, 3) uint8 RGB, upright, sides even; its owner may draw on it.
    """

    index: int
    time_s: float
    pixels: np.ndarray


@dataclass(frozen=True)
class Regions:
    """What the tokens of one layer stand for.

    Attributes:
        layer: its name, e.g. ``"STGM 2"``.
        assignment: (h, w) int64, number of the token that each image token belongs to; negative as in
            ``stvit.video.regions`` where it stands for itself, or was dropped.
        num_tokens: numbers lie below it.
        box_xyxy: where the grid of image tokens lies, in pixels of the frame; it may reach beyond.
    """

    layer: str
    assignment: np.ndarray
    num_tokens: int
    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True)
class FrameResult:
    """What a model says about one frame.

    Attributes:
        model_ms: its share of the model's time.
        pace_ms: its share of what two models are compared by: for detectors the backbone's time, else the same.
        top1: name and probability of the best class; ``None`` without weights, and for detectors.
        regions: where the model has tokens that stand for regions, and they were asked for.
        found: the objects; ``None`` without weights, and for classifiers.
    """

    model_ms: float
    pace_ms: float
    top1: tuple[str, float] | None = None
    regions: Regions | None = None
    found: Detections | None = None


class Model(Protocol):
    """An image model as the pipeline uses it.

    Attributes:
        label: what people call it.
        batch_size: frames that it takes at once.
        note: what is drawn where predictions would be, when there are none.
        macs: multiply-adds for one frame; known after ``begin``.
    """

    label: str
    batch_size: int
    note: str
    macs: int

    def begin(self, frame_hw: tuple[int, int]) -> None:
        """A clip with frames of this size begins."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """A frame (H, W, 3) uint8 RGB as the model wants it; may keep ``pixels`` only for reading."""

    def infer(self, batch: list[Any], *, compared: bool = False) -> list[FrameResult]:
        """What the model says about prepared frames.

        Args:
            compared: time the bare pass, without what only the picture needs.
        """


class Task(Protocol):
    """What is done with a clip. ``prepare``, ``infer`` and ``draw`` each run in one thread of their own, in the order
    of the frames; ``begin`` comes first, ``close`` last."""

    batch_size: int
    max_side: int

    def begin(self, info: ClipInfo, limits: Limits, frame_hw: tuple[int, int]) -> None:
        """A clip begins, with frames of this size."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """A frame as ``infer`` wants it."""

    def infer(self, batch: list[Any]) -> list[Any]:
        """Results for prepared frames."""

    def draw(self, frame: Frame, result: Any) -> tuple[Iterable[Frame], dict[str, Any]]:
        """The frames of the new clip that follow from one of the old, and its record as plain JSON values."""

    def finish(self) -> Iterable[Frame]:
        """Frames after the last one."""

    def close(self) -> None:
        """Let go of everything."""
