"""Data that the stages of the pipeline pass on, and the protocols of models and tasks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from stvit.class_names import COCO_CLASSES
from stvit.detection import Detections
from stvit.errors import UserError
from stvit.predict.regions import TokenRegions

from .picture import Picture

STAGES = ("decode", "prepare", "model", "draw", "encode")


class VideoError(UserError, ValueError):
    """A file that cannot be used as a clip."""


@dataclass(frozen=True)
class Limits:
    """Largest clip that is accepted; checked by its header before anything is decoded, and again while it is read.

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
    """A clip by its header and its first frame.

    Attributes:
        path: the file.
        container: name of its format, e.g. ``"mov,mp4,m4a,3gp,3g2,mj2"``.
        codec: name of the picture's codec, e.g. ``"hevc"``.
        source_hw: size of the upright picture, in square pixels.
        rotation: degrees, counterclockwise, that turn the stored picture upright: 0, 90, 180 or 270.
        fps: frames per second on average, by the header.
        duration_s: length by the header; ``None`` where it says none.
        frames: number of frames by the header, or estimated from its length; ``None`` where it says neither.
        start_s: time stamp at the beginning of the clip.
        sound: name of the sound's codec; empty where there is none.
        anamorphic: whether the stored pixels are not square, so that the picture has to be stretched to its size.
        mirrored: whether the turned picture is mirrored left to right to stand upright.
        joins_s: of clips that were joined byte by byte, the time stamp that stands for the beginning of the whole clip
            in each part after the first, as ``start_s`` does in the first.
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
    anamorphic: bool = False
    mirrored: bool = False
    joins_s: tuple[float, ...] = ()


@dataclass(frozen=True)
class Frame:
    """One frame of a clip.

    Attributes:
        index: from 0.
        time_s: since the beginning of the clip.
        picture: upright, in square pixels, sides even; its owner may draw on it.
        duration_s: how long it is shown; 0 where that is not known.
    """

    index: int
    time_s: float
    picture: Picture
    duration_s: float = 0.0


@dataclass(frozen=True)
class Window:
    """Frames that a clip model classified together.

    Attributes:
        first, last: frames of the clip.
        whole: whether it has the length of the model's windows; those at the beginning of a clip are shorter.
        scores: (classes,) float32 probabilities; ``None`` without weights.
        classes: their names.
    """

    first: int
    last: int
    whole: bool
    scores: np.ndarray | None
    classes: Sequence[str]

    def ranking(self, k: int = 5) -> list[tuple[str, float]]:
        """Return names and probabilities of the best classes, best first; none without weights."""
        if self.scores is None:
            return []
        order = np.argsort(-self.scores, kind="stable")[:k]
        return [(self.classes[index], min(float(self.scores[index]), 1.0)) for index in order]


@dataclass(frozen=True)
class FrameResult:
    """A model's result on one frame.

    Attributes:
        model_ms: its share of the model's time.
        pace_ms: its share of the time that the shown speed counts: that of ``paced_part``, and of clip models as if
            every batch were full.
        top1: name and probability of the best class; ``None`` without weights, and for detectors.
        in_scope: whether that is an answer: false where the frame seems to show none of the classes.
        regions: of the model's tokens, where they stand for regions and were asked for.
        regions_xyxy: where their grid of image tokens lies, in pixels of the frame; it may reach beyond.
        found: the objects; ``None`` without weights, and for classifiers.
        names: of the objects' classes.
        window: the frames that were classified together; ``None`` where the result is about this frame alone.
        paced_part: part of the model that ``pace_ms`` times, e.g. ``"backbone"``; empty for the whole model.
        counted_part: part of the model that its ``macs`` count.
        engine: that ran the network.
    """

    model_ms: float
    pace_ms: float
    top1: tuple[str, float] | None = None
    in_scope: bool = True
    regions: TokenRegions | None = None
    regions_xyxy: tuple[float, float, float, float] = (0.0, 0.0, 1.0, 1.0)
    found: Detections | None = None
    names: Sequence[str] = COCO_CLASSES
    window: Window | None = None
    paced_part: str = ""
    counted_part: str = ""
    engine: str = "eager"


@dataclass(frozen=True)
class Progress:
    """A run under way, or its end.

    Attributes:
        info: the clip.
        frames: drawn so far.
        part: of the clip, in [0, 1]; ``None`` where its length is not known.
        elapsed_s: since the start.
        busy_s: seconds that each stage has worked; they overlap.
        preview: the latest frame of the new clip, read-only.
        engines: that answered, in their order.
        done: whether the new clip is complete.
        note: faults of the clip and what was done about them, sentences.
        conclusion: results on the clip as a whole, as in the last line of the records.
    """

    info: ClipInfo
    frames: int
    part: float | None
    elapsed_s: float
    busy_s: dict[str, float]
    preview: Picture | None = None
    engines: tuple[str, ...] = ()
    done: bool = False
    note: str = ""
    conclusion: dict[str, Any] = field(default_factory=dict)

    @property
    def eta_s(self) -> float | None:
        """Estimated seconds left; ``None`` where the clip's length is not known."""
        return self.elapsed_s * (1 / self.part - 1) if self.part else None

    @property
    def frames_per_second(self) -> float:
        """End to end."""
        return self.frames / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def model_frames_per_second(self) -> float:
        """Frames per second of the model's own work in this run; with two models, of both together."""
        model_s = self.busy_s.get("model", 0.0)
        return self.frames / model_s if model_s else 0.0


class Labelled(Protocol):
    """A model as its frames name it.

    Attributes:
        label: its name for people.
        note: what is drawn where predictions would be, when there are none.
        macs: multiply-adds for one frame, of detectors in the backbone, of clip models for one window.
    """

    label: str
    note: str
    macs: int


class Model(Labelled, Protocol):
    """A model on the frames of a clip. Its ``macs`` are known after ``begin``.

    Attributes:
        batch_size: frames that it takes at once.
        input_key: models with equal ones prepare frames alike.
    """

    batch_size: int
    input_key: Hashable

    def begin(self, frame_hw: tuple[int, int]) -> str:
        """Start a clip with frames of this size; returns the engine that answers all of them, ``eager`` where
        it may be several."""

    def in_eager(self) -> None:
        """Run in eager PyTorch from now on."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """Make the model's input of a frame (H, W, 3) uint8 RGB, which may be kept for reading. Called once for each
        frame, in their order."""

    def infer(self, batch: list[Any], *, compared: bool = False) -> list[FrameResult]:
        """Run the model on prepared frames.

        Args:
            compared: pace a detector by its backbone alone.
        """


class Task(Protocol):
    """Makes the frames of a new clip from those of a clip.

    ``prepare``, ``infer`` and ``draw`` each run in one thread of their own, in the order of the frames; ``begin`` comes
    first, ``close`` last.

    Attributes:
        engines: how many answers each engine has given so far.
    """

    batch_size: int
    max_side: int
    engines: Counter[str]

    def begin(self, info: ClipInfo, limits: Limits, frame_hw: tuple[int, int]) -> None:
        """Start a clip with frames of this size."""

    def prepare(self, pixels: np.ndarray) -> Any:
        """Make the input of ``infer`` of a frame (H, W, 3) uint8 RGB."""

    def infer(self, batch: list[Any]) -> list[Any]:
        """Return one result for each prepared frame."""

    def draw(self, frame: Frame, result: Any) -> tuple[Iterable[Frame], dict[str, Any]]:
        """Return the frames of the new clip that follow from one of the old, and its record as plain JSON values."""

    def finish(self) -> Iterable[Frame]:
        """Yield frames after the last one."""

    def conclude(self) -> dict[str, Any]:
        """Return results on the clip as a whole, as plain JSON values; empty without any."""

    def close(self) -> None:
        """Release all resources."""
