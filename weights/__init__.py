"""Checkpoints: a catalogue of records, and the way from a record to verified weights in a model."""

from .bundle import BUNDLED_MODELS, BundledRecord, BundleError
from .catalogue import CATALOGUE, CheckpointRecord, DetectorPreprocessing, Preprocessing
from .errors import WeightsUnavailable
from .load import load
from .resolve import ResolvedWeights, resolve, resolve_bundled, within_reach

__all__ = [
    "BUNDLED_MODELS",
    "CATALOGUE",
    "BundleError",
    "BundledRecord",
    "CheckpointRecord",
    "DetectorPreprocessing",
    "Preprocessing",
    "ResolvedWeights",
    "WeightsUnavailable",
    "load",
    "resolve",
    "resolve_bundled",
    "within_reach",
]
