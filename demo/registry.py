"""The models that the page offers, and how to find one."""

from __future__ import annotations

from collections.abc import Mapping

from demo.classifiers import CLASSIFIERS, METHODS
from demo.detectors import DETECTORS as PUBLISHED_DETECTORS
from demo.detectors import FULL_TOKEN_DETECTORS
from demo.garments import garment_choices, narrow_peer
from demo.model_spec import SIZE_LETTERS, SIZE_NAMES, Method, ModelChoice, UnknownModel, paper_tables
from demo.video_models import PUBLISHED_CLIP_MODELS, published_peer
from weights import BUNDLED_MODELS

__all__ = [
    "BASELINES",
    "CHOICES",
    "CLIP_MODELS",
    "DETECTORS",
    "EVERY_MODEL",
    "METHODS",
    "MODELS",
    "SEGMENTERS",
    "SIZE_LETTERS",
    "SIZE_NAMES",
    "Method",
    "ModelChoice",
    "UnknownModel",
    "clip_peer",
    "find",
    "find_any",
    "find_clip_model",
    "find_detector",
    "find_segmenter",
    "first_clip_model",
    "full_token_peer",
    "garment_detector",
    "garment_pair",
    "label_of",
    "method_of",
    "paper_tables",
    "peer_of",
    "published_figures",
    "segmenter_peer",
    "settings_of",
    "sizes_of",
]

GARMENT_CLASSIFIERS = garment_choices(BUNDLED_MODELS.of_task("classify"))
CHOICES = CLASSIFIERS + GARMENT_CLASSIFIERS
DETECTORS = PUBLISHED_DETECTORS + garment_choices(BUNDLED_MODELS.of_task("detect"))
SEGMENTERS = garment_choices(BUNDLED_MODELS.of_task("segment"))
CLIP_MODELS = PUBLISHED_CLIP_MODELS + garment_choices(BUNDLED_MODELS.of_task("video"))
EVERY_MODEL = CHOICES + DETECTORS + FULL_TOKEN_DETECTORS + SEGMENTERS + CLIP_MODELS


def find(name: object, choices: tuple[ModelChoice, ...] | None = None) -> ModelChoice:
    """The entry of this name.

    Raises:
        UnknownModel: not one of ``choices``, by default the classifiers.
    """
    choices = CHOICES if choices is None else choices
    for choice in choices:
        if choice.name == name:
            return choice
    known = ", ".join(choice.name for choice in choices)
    raise UnknownModel(f"{str(name)[:60]!r} is not offered here. Choose one of: {known}.")


def find_detector(name: object) -> ModelChoice:
    """The detector of this name; raises as ``find`` does."""
    return find(name, DETECTORS)


def find_segmenter(name: object) -> ModelChoice:
    """The segmenter of this name; raises as ``find`` does."""
    return find(name, SEGMENTERS)


def find_clip_model(name: object) -> ModelChoice:
    """The clip model of this name; raises as ``find`` does."""
    return find(name, CLIP_MODELS)


def find_any(name: object) -> ModelChoice:
    """The model of this name, of whatever kind; raises as ``find`` does."""
    return find(name, EVERY_MODEL)


def label_of(name: str) -> str:
    """What people call a model of any kind."""
    return find_any(name).label


def method_of(name: object) -> Method:
    """The method of this name.

    Raises:
        UnknownModel: there is none.
    """
    for method in METHODS:
        if method.name == name:
            return method
    raise UnknownModel(f"There is no method {str(name)[:60]!r}. Choose one of: {', '.join(m.name for m in METHODS)}.")


def sizes_of(method: str) -> tuple[str, ...]:
    """The sizes that a method comes in: published ones first, small before large."""
    offered = {choice.size for choice in CHOICES if choice.method == method}
    return tuple(size for size in SIZE_NAMES if size in offered)


def settings_of(method: str, size: str) -> tuple[ModelChoice, ...]:
    """The models of one method and size; the first is the default."""
    return tuple(choice for choice in CHOICES if (choice.method, choice.size) == (method, size))


def peer_of(choice: ModelChoice) -> ModelChoice | None:
    """What a bundled classifier is best compared with; ``None`` where nothing fits."""
    return narrow_peer(choice, CHOICES)


def garment_pair() -> tuple[ModelChoice, ModelChoice] | None:
    """A bundled classifier with fewer tokens, and the full-token one of its kind; ``None`` where there are none."""
    narrow = [choice for choice in CHOICES if choice.bundled and not method_of(choice.method).full_tokens]
    return next(((choice, peer) for choice in narrow if (peer := peer_of(choice))), None)


def garment_detector() -> ModelChoice | None:
    """The bundled detector to begin with; ``None`` where there is none."""
    return next((choice for choice in DETECTORS if choice.bundled), None)


def first_clip_model() -> ModelChoice:
    """The clip model to begin with: a bundled one where there is any, as the published ones have no weights."""
    return next((choice for choice in CLIP_MODELS if choice.bundled), CLIP_MODELS[0])


def full_token_peer(detector: ModelChoice) -> ModelChoice:
    """The detector that another is measured against: the full-token one of its size; of a bundled full-token one, that
    with semantic tokens.

    Raises:
        UnknownModel: a bundled detector that came without the other one.
    """
    of_size = (peer for peer in FULL_TOKEN_DETECTORS if peer.size == detector.size)
    peer = narrow_peer(detector, DETECTORS) if detector.bundled else next(of_size, None)
    if peer is None:
        raise UnknownModel(f"There is nothing to compare {detector.label} with. Choose another detector.")
    return peer


def segmenter_peer(segmenter: ModelChoice) -> ModelChoice:
    """The segmenter that another is measured against: with all tokens, or of that one, with semantic tokens.

    Raises:
        UnknownModel: it came without the other one.
    """
    peer = narrow_peer(segmenter, SEGMENTERS)
    if peer is None:
        raise UnknownModel(f"There is nothing to compare {segmenter.label} with.")
    return peer


def clip_peer(choice: ModelChoice) -> ModelChoice:
    """The clip model that another is shown beside: of the same size, with all tokens or with semantic ones.

    Raises:
        UnknownModel: a bundled one that came without the other.
    """
    peer = narrow_peer(choice, CLIP_MODELS) if choice.bundled else published_peer(choice)
    if peer is None:
        raise UnknownModel(f"There is nothing to compare {choice.label} with. Choose another clip model.")
    return peer


def published_figures(name: str) -> Mapping[str, float]:
    """What the papers print for a model: ``top1`` (%), ``gmacs``, ``throughput`` (images/s on a V100, batch 128); those
    that they do not print are missing."""
    return find(name).published


MODELS = tuple(choice for choice in CHOICES if not method_of(choice.method).full_tokens)
BASELINES = tuple(choice for choice in CHOICES if method_of(choice.method).full_tokens)
