"""The models that the page offers, and how to find one."""

from __future__ import annotations

from collections.abc import Mapping

from demo.choices import SIZE_LETTERS, SIZE_NAMES, Method, ModelChoice, UnknownModel, paper_tables
from demo.classifiers import CLASSIFIERS, METHODS
from demo.detectors import DETECTORS, FULL_TOKEN_DETECTORS, full_token_peer

__all__ = [
    "BASELINES",
    "CHOICES",
    "DETECTORS",
    "EVERY_MODEL",
    "METHODS",
    "MODELS",
    "SIZE_LETTERS",
    "SIZE_NAMES",
    "Method",
    "ModelChoice",
    "UnknownModel",
    "find",
    "full_token_peer",
    "label_of",
    "method_of",
    "paper_tables",
    "published_figures",
    "settings_of",
    "sizes_of",
]

CHOICES = CLASSIFIERS
EVERY_MODEL = CLASSIFIERS + DETECTORS + FULL_TOKEN_DETECTORS


def find(name: object, choices: tuple[ModelChoice, ...] = CHOICES) -> ModelChoice:
    """The entry of this name.

    Raises:
        UnknownModel: not one of ``choices``, by default the classifiers.
    """
    for choice in choices:
        if choice.name == name:
            return choice
    known = ", ".join(choice.name for choice in choices)
    raise UnknownModel(f"{str(name)[:60]!r} is not offered here. Choose one of: {known}.")


def label_of(name: str) -> str:
    """What people call a model of any kind."""
    return find(name, EVERY_MODEL).label


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
    """The sizes that a method comes in, small ones first."""
    offered = {choice.size for choice in CHOICES if choice.method == method}
    return tuple(size for size in SIZE_NAMES if size in offered)


def settings_of(method: str, size: str) -> tuple[ModelChoice, ...]:
    """The models of one method and size; the first is the default."""
    return tuple(choice for choice in CHOICES if (choice.method, choice.size) == (method, size))


def published_figures(name: str) -> Mapping[str, float]:
    """What the papers print for a model: ``top1`` (%), ``gmacs``, ``throughput`` (images/s on a V100, batch 128); those
    that they do not print are missing."""
    return find(name).published


MODELS = tuple(choice for choice in CHOICES if not method_of(choice.method).full_tokens)
BASELINES = tuple(choice for choice in CHOICES if method_of(choice.method).full_tokens)
