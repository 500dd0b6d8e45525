"""Checkpoints: a catalogue of records, and the way from a record to verified weights in a model."""

from .catalogue import CATALOGUE, CheckpointRecord, DetectorPreprocessing, Preprocessing
from .errors import WeightsUnavailable
from .load import load
from .resolve import ResolvedWeights, resolve

__all__ = [
    "CATALOGUE",
    "CheckpointRecord",
    "DetectorPreprocessing",
    "Preprocessing",
    "ResolvedWeights",
    "WeightsUnavailable",
    "load",
    "resolve",
]
