"""What a model card says of pictures that show none of a classifier's classes."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, PositiveInt

Percent = Annotated[float, Field(ge=0, le=100)]


class ScopeRow(BaseModel):
    """One more row of a classifier's last layer: its score is below 0 where a picture shows none of the classes.

    Attributes:
        weight: one number for each feature that the last layer takes.
        bias: added to their sum; it holds the threshold.
        refused: measured, percent of pictures of the classes with a score below 0, of ``known_samples``.
        accepted: measured, percent of other pictures with a score from 0 on, of ``other_samples``.
        measured_on: both kinds of pictures, in words.
    """

    model_config = ConfigDict(frozen=True, strict=True, allow_inf_nan=False)

    weight: Annotated[tuple[float, ...], Field(min_length=1)]
    bias: float
    refused: Percent
    known_samples: PositiveInt
    accepted: Percent
    other_samples: PositiveInt
    measured_on: str
