"""Weights into a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .catalogue import CheckpointRecord
from .resolve import ResolvedWeights, resolve

if TYPE_CHECKING:
    from torch import nn


def load(model: nn.Module, record: CheckpointRecord, **where: Any) -> ResolvedWeights:
    """Resolve a record, load its weights strictly into a model, and say where they came from.

    Args:
        model: the model that the record is for.
        record: entry of the catalogue.
        where: options of :func:`weights.resolve`.

    Raises:
        WeightsUnavailable: the weights cannot be had.
        CheckpointError: the file is unsafe, damaged, or does not fit the model.
    """
    from stvit.checkpoint import load_checkpoint  # imports torch and timm: seconds that list, pull and verify save

    weights = resolve(record, **where)
    load_checkpoint(model, weights.path)
    return weights
