"""What a person running an evaluation can get wrong."""


class EvaluationError(RuntimeError):
    """The evaluation cannot go on; the message says why and what to do."""
