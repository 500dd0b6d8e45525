"""Image and clip models on video clips: any clip in, an annotated clip that plays in every browser out.

``python -m stvit.video IN OUT`` from a shell, :func:`process` from Python. A clip is decoded, prepared, run through a
model, drawn on and encoded by stages that work at the same time; only a few frames are in memory at once. Needs PyAV,
OpenCV and trackers, which only this package imports; ``import stvit`` does not import it.
"""

from .annotate_task import Single
from .classify import Classifier
from .clip_classifier import ActionClassifier, Sampling
from .detect import Detector
from .pipeline import Cancelled, process
from .probe import probe
from .progress import Progress
from .side_by_side import Race
from .types import ClipInfo, Frame, Limits, VideoError

__all__ = [
    "ActionClassifier",
    "Cancelled",
    "Classifier",
    "ClipInfo",
    "Detector",
    "Frame",
    "Limits",
    "Progress",
    "Race",
    "Sampling",
    "Single",
    "VideoError",
    "probe",
    "process",
]
