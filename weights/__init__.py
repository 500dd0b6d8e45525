"""Checkpoints: a catalogue of records, and the way from a record to verified weights in a model."""

from stvit.pretrained.errors import WeightsUnavailable
from stvit.pretrained.load import load
from stvit.pretrained.model_cards import BUNDLED_MODELS, BundledRecord, BundleError
from stvit.pretrained.records import CATALOGUE, CheckpointRecord, DetectorPreprocessing, Preprocessing
from stvit.pretrained.resolve import ResolvedWeights, resolve, resolve_bundled, within_reach

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
