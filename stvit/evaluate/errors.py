"""The error of evaluations and of the data that they read."""

from __future__ import annotations

from collections.abc import Sequence

from stvit.errors import UserError

SHOWN = 4  # problems that a message names


class EvaluationError(UserError, RuntimeError):
    """The evaluation cannot go on, or its data cannot be used."""


def first_of(problems: Sequence[str]) -> str:
    """The first few problems, and how many more there are."""
    more = f"; and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
    return "; ".join(problems[:SHOWN]) + more
