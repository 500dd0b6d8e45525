"""Weights into a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .model_cards import BundledRecord
from .records import CheckpointRecord
from .resolve import ResolvedWeights, resolve, resolve_bundled

if TYPE_CHECKING:
    from torch import nn


def load(model: nn.Module, record: CheckpointRecord | BundledRecord, **where: Any) -> ResolvedWeights:
    """Resolve a record, load its weights strictly into a model, and say where they came from.

    Args:
        model: the model that the record is for.
        record: entry of the catalogue, or a bundled model.
        where: options of :func:`stvit.pretrained.resolve`; a bundled model takes none.

    Raises:
        WeightsUnavailable: the weights cannot be had.
        CheckpointError: the file is unsafe, damaged, or does not fit the model.
    """
    from stvit.checkpoint import load_checkpoint  # imports torch and timm: seconds that list, pull and verify save

    find = resolve_bundled if isinstance(record, BundledRecord) else resolve
    weights = find(record, **where)
    load_checkpoint(model, weights.path)
    return weights
