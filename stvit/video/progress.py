"""Progress of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .picture import Picture
from .types import ClipInfo

STAGES = ("decode", "prepare", "model", "draw", "encode")


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
