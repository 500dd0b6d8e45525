"""Models in folders that ``stvit.training`` or ``stvit.sparsify`` wrote; named by the person who starts the server."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch

from demo.own import DEFAULT_TOKENS
from demo.registry import FOLDER, Method, ModelSpec, Registry
from demo.specs.methods import method_of
from stvit.errors import UserError
from stvit.export.graph import first_line
from stvit.measure.macs import macs_by_layer
from stvit.predict.classifier import imagenet_classes
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.model_cards import ModelCard, read_card
from stvit.pretrained.resolve import resolve_card
from stvit.sparsify.convert import OPTIONS, REGISTERED

CARD = "model.json"
NO_WEIGHTS = "The weights of the original are not in the folder."
ADVICE = "Name a folder that stvit.training or stvit.sparsify wrote, of a classifier."


class BadFolder(UserError, ValueError):
    """A folder that holds no model for the page."""


def with_folders(registry: Registry, folders: Iterable[Path]) -> Registry:
    """Return the registry with the models of folders after the others, each with its original where that can be told.

    Raises:
        BadFolder: a folder holds no classifier, or has the name of another model.
        ModelCardError: its card is damaged.
    """
    specs = list(registry)
    for folder in folders:
        taken = {name for spec in specs for name in (spec.name, spec.method.name)}
        found = folder_specs(folder, specs)
        if not taken.isdisjoint(name for spec in found for name in (spec.name, spec.method.name)):
            raise BadFolder(f"There is a model called {found[0].name} already.", f"Rename the folder {folder}.")
        specs += found
    return Registry(specs, hub=registry.hub)


def folder_specs(folder: Path, others: Sequence[ModelSpec]) -> list[ModelSpec]:
    """Describe the model in a folder; then its original, where that can be told and is none of the others.

    Raises:
        BadFolder, ModelCardError: as ``with_folders``.
    """
    card, name = checked_card(folder), folder.resolve().name
    known = method_of(card.model)
    full = f"{name}, all tokens"
    own = ModelSpec(
        name=name,
        label=name,
        about=f"{len(card.classes)} classes",
        task="classify",
        method=Method(name, full),
        size=FOLDER,
        setting=known.name if known else card.model,
        model=card.model,
        options=card.options,
        folder=card,
    )
    if card.model != REGISTERED:
        return [replace(own, method=Method(name, name)) if known is None or known.full_tokens else own]
    tokens = f"{card.options.get('num_semantic_tokens', DEFAULT_TOKENS)} semantic tokens"
    own = replace(own, setting=tokens, about=f"{tokens}; {own.about}")
    options = {key: value for key, value in card.options.items() if key not in (*OPTIONS, "of")}
    if twin := same_structure(card, options, others):
        return [replace(own, twin=twin.name)]
    original = replace(
        own,
        name=f"{name}-original",
        label=full,
        about=f"{card.options['of']}, all image tokens",
        method=Method(full, full),
        setting="all",
        model=card.options["of"],
        options=options,
        no_weights=NO_WEIGHTS,
    )
    return [own, original]


def checked_card(folder: Path) -> ModelCard:
    """Read the card in a folder, and check the weights beside it.

    Raises:
        BadFolder, ModelCardError: as ``with_folders``.
    """
    if not (folder / CARD).is_file():
        raise BadFolder(f"{folder} is no folder with a {CARD}.", ADVICE)
    card = read_card(folder / CARD)
    if card.task != "classify":
        raise BadFolder(f"The model in {folder} is no classifier: its task is {card.task}.", ADVICE)
    try:
        resolve_card(card)
    except WeightsUnavailable as error:
        raise BadFolder(f"{folder}: {error.problem}", error.next_step) from error
    check_layers(card, folder)
    return card


def check_layers(card: ModelCard, folder: Path) -> None:
    """Refuse networks whose layers the page cannot show.

    Raises:
        BadFolder: see above.
        ModelCardError: the options in the card do not fit the model.
    """
    try:
        with torch.device("meta"):
            macs_by_layer(card.build(), (3, card.input_size, card.input_size))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise BadFolder(
            f"The model in {folder} is no transformer for pictures ({first_line(error)}).", ADVICE
        ) from error


def same_structure(card: ModelCard, options: Mapping[str, Any], others: Iterable[ModelSpec]) -> ModelSpec | None:
    """Find a model with weights on offer that has the structure and classes of a sparsified model's original."""
    own = shapes_of(card.options["of"], options)
    wanted = "classify", card.options["of"], card.input_size
    for spec in others:
        if not spec.has_weights or (spec.task, spec.model, spec.input_size) != wanted:
            continue
        if (spec.classes or imagenet_classes()) == card.classes and shapes_of(spec.model, spec.options) == own:
            return spec
    return None


def shapes_of(model: str, options: Mapping[str, Any]) -> dict[str, torch.Size]:
    """Shapes of a network's parameters, by name."""
    with torch.device("meta"):
        network = timm.create_model(model, **options)
    return {name: parameter.shape for name, parameter in network.named_parameters()}
