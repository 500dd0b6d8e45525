"""Objects and token regions that keep their identity from frame to frame."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from stvit.detection import Detections
from stvit.detection.detections import SHOWN_SCORE
from stvit.draw.regions import region_colours
from stvit.predict.regions import TokenRegions

LOST_S = 1.0  # an object that is hidden for longer comes back as another one
USUAL_FPS = 30.0
TRACKED_SCORE = 0.3  # of objects that the tracker gets: less sure ones help it to keep an identity
SURE_SCORE = 0.6
_SAME_NUMBER = 0.5  # in cells: what having the same number counts, where regions do not overlap


class ObjectTracker:
    """Numbers objects from 1 in the order in which they come, by ByteTrack; a class has its own tracks.

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
                track_activation_threshold=SHOWN_SCORE,  # what is shown has a number
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


class RegionTracker:
    """Gives every token the identity of the token whose region, in the frame before, covered its own region best.

    Semantic tokens mostly keep their numbers, because they start from a fixed grid; but nothing makes them, and tokens
    of networks that merge have no numbers that mean anything. So tokens are matched one to one, such that as many cells
    as possible keep their identity.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None
        self._colours = np.zeros((0, 3), np.uint8)

    def follow(self, regions: TokenRegions) -> tuple[np.ndarray, np.ndarray]:
        """The identities of the tokens that stand for regions, and colours that stay with them.

        The first frame's identities are its numbers, as are those after a change of the grid or the number of tokens.

        Returns:
            (h, w) int16 identities in [0, num_tokens), ``CLEAR`` or ``DROPPED``; (num_tokens, 3) uint8 RGB.
        """
        assignment, num_tokens, before = regions.grouped(), regions.num_tokens, self._before
        identities = np.arange(num_tokens)
        if before is None or before.shape != assignment.shape or len(self._colours) != num_tokens:
            self._colours = region_colours(regions)
        else:
            both = (assignment >= 0) & (before >= 0)
            pairs = assignment[both].astype(np.int64) * num_tokens + before[both]
            overlap = np.bincount(pairs, minlength=num_tokens**2).reshape(num_tokens, num_tokens)
            identities = linear_sum_assignment(overlap + _SAME_NUMBER * np.eye(num_tokens), maximize=True)[1]
        self._before = np.where(assignment >= 0, identities[assignment], assignment).astype(np.int16)
        return self._before, self._colours
