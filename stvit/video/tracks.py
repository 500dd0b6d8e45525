"""Objects that keep their identity from frame to frame: ByteTrack, as the trackers package has it."""

from __future__ import annotations

import numpy as np

from stvit.detection import Detections

LOST_S = 1.0  # an object that is hidden for longer comes back as another one
USUAL_FPS = 30.0
LEAST_SCORE = 0.5  # of an object that is shown
SURE_SCORE = 0.6


class ObjectTracker:
    """Numbers objects from 1 in the order in which they come; a class has its own tracks.

    Args:
        fps: of the clip.
    """

    def __init__(self, fps: float) -> None:
        self._fps = fps
        self._trackers: dict[int, object] = {}
        self._numbers: dict[tuple[int, int], int] = {}

    def follow(self, found: Detections) -> np.ndarray:
        """(N,) int64: the number of each object, 0 for those that the tracker does not follow (yet)."""
        numbers = np.zeros(len(found), np.int64)
        labels = found.labels.numpy()
        for label in sorted({*labels.tolist(), *self._trackers}):
            members = np.flatnonzero(labels == label)
            indices, tracks = self._update(label, found, members)
            for index, track in zip(indices, tracks, strict=True):
                if track >= 0:
                    numbers[index] = self._numbers.setdefault((label, int(track)), len(self._numbers) + 1)
        return numbers

    def _update(self, label: int, found: Detections, members: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The tracks of the objects of one class; (K,) indices into ``found`` and (K,) tracks, -1 for none."""
        import supervision  # here, because it loads matplotlib
        from trackers import ByteTrackTracker

        if label not in self._trackers:
            self._trackers[label] = ByteTrackTracker(
                lost_track_buffer=max(1, round(LOST_S * USUAL_FPS)),
                frame_rate=self._fps,
                track_activation_threshold=LEAST_SCORE,
                minimum_consecutive_frames=1,
                high_conf_det_threshold=SURE_SCORE,
            )
        objects = supervision.Detections(
            xyxy=found.boxes.numpy()[members].reshape(-1, 4),
            confidence=found.scores.numpy()[members],
            data={"index": members},
        )
        tracked = self._trackers[label].update(objects)
        return tracked.data.get("index", np.zeros(0, np.int64)), tracked.tracker_id
