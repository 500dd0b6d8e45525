"""All models that the page offers: the published ones of the papers, and those that this project trained."""

from __future__ import annotations

from collections.abc import Mapping

from demo.registry import Registry
from demo.specs.bundled import bundled_specs
from demo.specs.classifiers import classifiers
from demo.specs.other_tasks import clip_models, detectors
from stvit.pretrained.model_cards import BundledCard
from weights import BUNDLED_MODELS


def build_registry(bundled: Mapping[str, BundledCard] = BUNDLED_MODELS) -> Registry:
    """Build the registry of all that the page offers, published models before bundled ones of the same task.

    Raises:
        ModelCardError: the card of a bundled model is damaged or incomplete.
    """
    specs = [*classifiers(), *detectors(), *clip_models(), *bundled_specs(bundled.values())]
    return Registry(specs)
