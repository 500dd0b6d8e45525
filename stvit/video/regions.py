"""Regions that keep their identity from frame to frame."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

_SAME_NUMBER = 0.5  # in cells: what having the same number counts, where regions do not overlap


class StableRegions:
    """Gives every token the identity of the token whose region, in the frame before, covered its own region best.

    Semantic tokens mostly keep their numbers, because they start from a fixed grid; but nothing makes them, and tokens
    of networks that merge have no numbers that mean anything. So tokens are matched one to one, such that as many cells
    as possible keep their identity.
    """

    def __init__(self) -> None:
        self._before: np.ndarray | None = None

    def follow(self, assignment: np.ndarray, num_tokens: int) -> np.ndarray:
        """(h, w) numbers of tokens -> (h, w) int16 identities in [0, num_tokens); negative numbers stay as they are.

        The first frame's identities are its numbers. A grid of another shape begins anew.
        """
        before = self._before
        identities = np.arange(num_tokens)
        if before is not None and before.shape == assignment.shape:
            both = (assignment >= 0) & (before >= 0) & (before < num_tokens)
            overlap = np.bincount(
                assignment[both].astype(np.int64) * num_tokens + before[both], minlength=num_tokens**2
            )
            gain = overlap.reshape(num_tokens, num_tokens) + _SAME_NUMBER * np.eye(num_tokens)
            identities = linear_sum_assignment(gain, maximize=True)[1]
        followed = np.where(assignment >= 0, identities[assignment], assignment).astype(np.int16)
        self._before = followed.astype(np.int64)
        return followed
