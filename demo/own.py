"""Any architecture of timm that can be sparsified beside its sparsified copy: their structure, with random weights.

Nothing is downloaded. Weights change no time, so what is measured is what a trained network takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache
from weakref import WeakSet

import timm
import torch
from timm.models.swin_transformer import SwinTransformer

from demo.benchmark import REPORT_EVERY_S, BenchmarkState, benchmark_networks, check_batch_size
from demo.predictors import Predictors
from demo.registry import Method, ModelSpec
from stvit.errors import UserError
from stvit.export.graph import example_images
from stvit.measure.macs import count_macs
from stvit.predict.engines import Engine
from stvit.predict.engines.cache import GraphCache, default_folder
from stvit.pretrained.records import UnknownModel
from stvit.sparsify.architectures import architectures, input_shape, skeleton
from stvit.sparsify.convert import REGISTERED, sparsify
from stvit.sparsify.fit import CannotSparsify, default_position, tokens_that_fit, whole_number, why_not

DEFAULT, DEFAULT_TOKENS, DEFAULT_POSITION = "deit_small_patch16_224", 16, 4  # a third of its layers
MAX_PARAMETERS = 100_000_000  # of both, and once more in graphs, there is room beside the page's own models
MAX_MACS = 20_000_000_000  # for one image: whoever waits for the device waits for a pass
GRAPH_BYTES = 2**30  # of the graphs that are kept
RANDOM_WEIGHTS = "Its structure alone is measured, with random weights."


class TooLarge(UserError, ValueError):
    """An architecture beyond what this page measures; the message is for the user."""


@dataclass(frozen=True)
class Architecture:
    """What is known of an architecture before it has weights.

    Attributes:
        name: in timm.
        refusal: why it cannot be sparsified; empty if it can. Then the other attributes say nothing.
        input_shape: (C, H, W) of one image.
        parameters: number of learned values.
        macs: multiply-adds for one image.
        depth: layers that semantic tokens can begin after, all of a vision transformer, those of stage 3 of Swin.
        position: layers before the semantic tokens where nobody chooses.
        most_tokens: semantic tokens that fit, of Swin in each window.
        windows: whether it is a Swin.
    """

    name: str
    refusal: str = ""
    input_shape: tuple[int, int, int] = (0, 0, 0)
    parameters: int = 0
    macs: int = 0
    depth: int = 0
    position: int = 0
    most_tokens: int = 0
    windows: bool = False


def look_up(name: object) -> Architecture:
    """Return what is known of an architecture that the page measures.

    Raises:
        UnknownModel: it is not in the list of those that can be asked for.
        CannotSparsify: it has layers that do not fit; says which.
        TooLarge: it is beyond the bounds; says which.
    """
    if not isinstance(name, str) or name not in architectures():
        asked = str(name)[:60]
        near = " or ".join(get_close_matches(asked, architectures()))
        problem = f"{asked!r} is no VisionTransformer, Eva or SwinTransformer of timm."
        raise UnknownModel(problem, f"Did you mean {near}?" if near else f"Choose e.g. {DEFAULT}.")
    found = _looked_up(name)
    if found.refusal:
        raise CannotSparsify(f"{name} cannot be sparsified: {found.refusal}.")
    elsewhere = f"On a machine of yours: python -m stvit.sparsify {name} --random-weights --measure"
    if found.parameters > MAX_PARAMETERS:
        problem = (
            f"{name} has {millions(found.parameters)} parameters; this page measures networks of up to "
            f"{millions(MAX_PARAMETERS)}."
        )
        raise TooLarge(problem, elsewhere)
    if found.macs > MAX_MACS:
        _, height, width = found.input_shape
        problem = (
            f"{name} takes {found.macs / 1e9:.0f} G multiply-adds for an image of {height} × {width} pixels; this page "
            f"measures networks of up to {MAX_MACS / 1e9:.0f} G."
        )
        raise TooLarge(problem, elsewhere)
    return found


@cache
def _looked_up(name: str) -> Architecture:
    network = skeleton(name)
    if refusal := why_not(network):
        return Architecture(name, refusal)
    shape, windows = input_shape(network), isinstance(network, SwinTransformer)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    blocks = network.layers[2].blocks if windows else network.blocks
    side, _ = tokens_that_fit(network)
    return Architecture(
        name,
        input_shape=shape,
        parameters=parameters,
        macs=count_macs(network, shape) if parameters <= MAX_PARAMETERS else 0,
        depth=len(blocks),
        position=default_position(network),
        most_tokens=side**2,
        windows=windows,
    )


def own_pair(name: object, tokens: object, position: object = None) -> tuple[ModelSpec, ModelSpec]:
    """Describe an architecture with semantic tokens, and as it is.

    Args:
        name: of the architecture.
        tokens: a square number.
        position: layers before them; ``None`` for :func:`stvit.sparsify.fit.default_position`.

    Raises:
        UnknownModel, CannotSparsify, TooLarge: the architecture, or the settings for it, are not measured here.
    """
    found = look_up(name)
    tokens = whole_number(tokens, "The number of semantic tokens")
    position = found.position if position is None else whole_number(position, "The position")
    sparsify(skeleton(found.name), tokens, position)  # refuses what does not fit, before there are weights
    settings = {"of": found.name, "num_semantic_tokens": tokens, "stgm_position": position}
    where = f"after {position} layers" + (" of stage 3" if found.windows else "")
    sparse = ModelSpec(
        name=f"{found.name}:num_semantic_tokens={tokens},stgm_position={position}",
        label=f"{tokens} tokens{' per window' if found.windows else ''} {where}",
        about=f"{tokens} semantic tokens {where}",
        task="classify",
        method=Method(REGISTERED, found.name),
        size="",
        setting=str(tokens),
        model=REGISTERED,
        options=settings,
        no_weights=RANDOM_WEIGHTS,
    )
    original = ModelSpec(
        name=found.name,
        label=found.name,
        about="all image tokens",
        task="classify",
        method=Method(found.name, found.name),
        size="",
        setting="all",
        model=found.name,
        no_weights=RANDOM_WEIGHTS,
    )
    return sparse, original


class OwnComparisons:
    """Measures architectures with semantic tokens and as they are, one pair at a time, as all comparisons are. Both
    networks are made for it and go with it, but for a graph that is being made then, which the next comparison waits
    for; graphs are kept apart from those of the page's models, which would have to give way to them."""

    def __init__(self, predictors: Predictors) -> None:
        self.predictors = predictors
        self._graphs = GraphCache(default_folder() / "own", GRAPH_BYTES)
        self._engines: WeakSet[Engine] = WeakSet()

    def measure(
        self, model: ModelSpec, baseline: ModelSpec, batch_size: int, engine: str | None = None
    ) -> Iterator[BenchmarkState]:
        """Measure a pair; hold the device as ``benchmark_classifiers`` does.

        Args:
            model, baseline: see ``own_pair``.
            batch_size: images at a time; 1 measures single images alone.

        Raises:
            BadBatchSize, UnknownEngine: it is not offered.
        """
        predictors, batch = self.predictors, check_batch_size(batch_size)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # a graph is kept by its weights
            original = timm.create_model(baseline.model).eval()
        sparse = sparsify(original, model.options["num_semantic_tokens"], model.options["stgm_position"])
        inputs = dict.fromkeys((model, baseline), example_images(input_shape(original), 1))
        networks = {
            spec: network.to(predictors.device, predictors.precision).requires_grad_(False)
            for spec, network in ((model, sparse), (baseline, original))
        }
        engines = {spec: predictors.engine_of(network, engine, self._graphs) for spec, network in networks.items()}
        states = benchmark_networks(predictors, networks, engines, inputs, None if batch == 1 else batch, "none")
        counted = next(states)
        yield counted
        while not all(one.settle(REPORT_EVERY_S) for one in list(self._engines)):
            yield replace(counted, stage="Waiting for a graph of the comparison before")
        self._engines.update(engines.values())
        yield from states


def millions(count: int) -> str:
    """Write a large number in words, e.g. ``"1.1 billion"``."""
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.0f} million"
