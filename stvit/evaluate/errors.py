"""The error of evaluations and of the data that they read."""

from stvit.errors import UserError


class EvaluationError(UserError, RuntimeError):
    """The evaluation cannot go on, or its data cannot be used."""
