"""Keep models in memory within a budget, loaded at their first use; fall back to less work where memory is short."""

from __future__ import annotations

import errno
import gc
import logging
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from threading import Lock
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError
from torch import nn

import stvit
from demo.registry import ModelSpec
from stvit.checkpoint import CheckpointError, load_checkpoint
from stvit.errors import UserError
from stvit.layers.attention import wake_layer_scale
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.resolve import resolve_card
from stvit.pretrained.tensors import resolve_tensors

MODEL_BUDGET_BYTES = 2 * 1024**3
RANDOM = "none: randomly initialised"
NO_ROOM = (
    "The device has not enough memory for this model. Try again when other visitors are done, or choose a smaller one."
)
_CPU_WORDS = (
    "not enough memory",  # PyTorch's allocators
    "can't allocate memory",
    "cannot allocate memory",  # a file that is mapped into memory
    "could not create a primitive",  # oneDNN, of its own buffers
    "bad_alloc",  # C++
    "can't start new thread",  # no room for its stack
    "failed to map segment",  # of a library that is loaded at its first use
)
RETRY_AFTER_S = 3  # a Hub that is down takes some seconds to say so
LOG = logging.getLogger(__name__)
NO_HUB, NO_DOWNLOAD = "The Hugging Face Hub cannot be reached.", "The download of the weights broke off."
NOT_FOR_VISITORS = "This server cannot get the weights."
FOR_VISITORS = {  # in place of errors about the server's network, files and accounts: those are not theirs to mend
    **dict.fromkeys(("unreachable", "time-out", "hub down", "not a hub", "offline"), NO_HUB),
    **dict.fromkeys(("truncated", "damaged download"), NO_DOWNLOAD),
    "rate limit": "The Hugging Face Hub allows no more downloads for now.",
    **dict.fromkeys(("unauthorised", "gated", "repository not found", "file not found"), NOT_FOR_VISITORS),
    **dict.fromkeys(("wrong revision", "withdrawn revision", "damaged cache", "disk", "ledger"), NOT_FOR_VISITORS),
}

Size = TypeVar("Size")
Result = TypeVar("Result")
Predictor = TypeVar("Predictor")
Progress = Callable[[int, "int | None"], None]


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run.

    Attributes:
        spec: which model it is.
        network: in evaluation mode, on the device and in its precision, without gradients.
        weights: where its weights came from, in words.
        problem: why there are none, one sentence; then the network is randomly initialised and predicts nothing. Empty
            when the weights are in place.
        next_step: what to do about the problem.
        loaded_at: ``time.monotonic()`` when it was made.
        predictors: that run it, by what tells them apart; their graphs go with the model.
    """

    spec: ModelSpec
    network: nn.Module
    weights: str
    problem: str
    next_step: str
    loaded_at: float
    predictors: dict[Hashable, Any] = field(default_factory=dict, compare=False, repr=False)

    def predictor(self, key: Hashable, make: Callable[[], Predictor]) -> Predictor:
        """Return the kept predictor, made at the first use."""
        return self.predictors.get(key) or self.predictors.setdefault(key, make())

    @property
    def num_bytes(self) -> int:
        """Size of its weights, and of the graphs that hold them once more."""
        return self._weight_bytes + sum(one.engine.graph_bytes for one in list(self.predictors.values()))

    @cached_property
    def _weight_bytes(self) -> int:  # asked for at every request, and there are hundreds of tensors
        return sum(parameter.numel() * parameter.element_size() for parameter in self.network.parameters())


class ModelCache:
    """Keeps loaded models; drops the least recently used when they and their graphs exceed the budget."""

    def __init__(self, device: torch.device, precision: torch.dtype, budget_bytes: int = MODEL_BUDGET_BYTES) -> None:
        self.device, self.precision = device, precision
        self.budget_bytes = budget_bytes
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()
        self._lock = Lock()
        self._loading: defaultdict[str, Lock] = defaultdict(Lock)

    def get(self, spec: ModelSpec, progress: Progress | None = None, *, retry: bool = False) -> LoadedModel:
        """Return the model; at its first use, download its weights (``progress`` gets done and total bytes).

        With ``retry``, try a model without weights again when the last try is ``RETRY_AFTER_S`` ago.

        Raises:
            OutOfMemory: the device has no room for it, even alone.
        """
        with self._lock:
            loading = self._loading[spec.name]
        with loading:  # two visitors, one download
            with self._lock:
                loaded = self._models.get(spec.name)
            again = retry and spec.has_weights and loaded and loaded.problem
            if loaded is None or (again and time.monotonic() - loaded.loaded_at > RETRY_AFTER_S):
                loaded = self._load(spec, progress)
            self._keep(loaded)
            return loaded

    def is_ready(self, spec: ModelSpec) -> bool:
        """Whether the model is in memory with its weights, or has none that could still come."""
        with self._lock:
            loaded = self._models.get(spec.name)
        return loaded is not None and not (loaded.problem and spec.has_weights)

    def _keep(self, loaded: LoadedModel) -> None:
        with self._lock:
            self._models[loaded.spec.name] = loaded
            self._models.move_to_end(loaded.spec.name)
            while len(self._models) > 1 and sum(model.num_bytes for model in self._models.values()) > self.budget_bytes:
                self._models.popitem(last=False)

    def make_room(self, keep: ModelSpec) -> bool:
        """Drop all models but one, and their graphs; whether there were others."""
        with self._lock:
            others = [name for name in self._models if name != keep.name]
            for name in others:
                del self._models[name]
        release_memory(self.device)
        return bool(others)

    def _load(self, spec: ModelSpec, progress: Progress | None) -> LoadedModel:
        """Load a model; where memory is short, the others go first."""
        try:
            return self._loaded(spec, progress)
        except (RuntimeError, OSError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        self.make_room(spec)
        try:
            return self._loaded(spec, progress)
        except (RuntimeError, OSError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise OutOfMemory(NO_ROOM) from error

    def _loaded(self, spec: ModelSpec, progress: Progress | None) -> LoadedModel:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)  # without weights, every start shows the same picture
            network = stvit.create_model(spec.model, **spec.options)
        weights, problem, next_step = _fill(network, spec, progress)
        if problem:
            wake_layer_scale(network)
        network = self._place(network).eval().requires_grad_(False)
        return LoadedModel(spec, network, weights, problem, next_step, time.monotonic())

    def _place(self, network: nn.Module) -> nn.Module:
        """Move the network to the device, in its precision."""
        return network.to(self.device, self.precision)


def _fill(network: nn.Module, spec: ModelSpec, progress: Progress | None) -> tuple[str, str, str]:
    """Load the weights of a model; returns where they came from, or what the problem is and what to do about it."""
    if not spec.has_weights:
        return RANDOM, spec.no_weights, "It can be measured and its structure shown, but it predicts nothing."
    try:
        if spec.folder:
            load_checkpoint(network, (resolved := resolve_card(spec.folder)).path)
            return "a folder of this server", "", ""
        if spec.bundled:
            resolved, source = resolve_card(spec.bundled), "this project"
        else:
            resolved, source = resolve_tensors(spec.record, progress=progress), spec.record.repo
        load_checkpoint(network, resolved.path)
    except WeightsUnavailable as error:
        LOG.warning("%s: %s", spec.name, str(error))  # what keeps the line would keep the error's frames, and networks
        return RANDOM, FOR_VISITORS.get(error.reason, error.problem), ""
    except CheckpointError as error:
        if error.__cause__ is not None and is_out_of_memory(error.__cause__):
            raise MemoryError from error
        # no folders of the server on the page:
        return RANDOM, str(error).replace(str(resolved.path), resolved.path.name), ""
    return f"{source} ({resolved.origin})", "", ""


class OutOfMemory(UserError, RuntimeError):
    """Nothing that was tried fits; the message is for the user."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on any device."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if isinstance(error, OSError) and error.errno == errno.ENOMEM:
        return True
    return isinstance(error, (RuntimeError, SafetensorError, ImportError)) and any(
        words in str(error).lower() for words in _CPU_WORDS
    )


def release_memory(device: torch.device) -> None:
    """Free what is no longer used."""
    gc.collect()  # the frames of a failed run refer to each other
    if device.type == "cuda":
        torch.cuda.empty_cache()


def first_that_fits(sizes: Sequence[Size], run: Callable[[Size], Result], device: torch.device) -> tuple[Size, Result]:
    """Try ``sizes`` in order; returns the first that ``run`` has memory for, and what it returned.

    Raises:
        OutOfMemory: it has memory for none of them.
    """
    for size in sizes:
        try:
            return size, run(size)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        release_memory(device)  # only here, where the traceback holds the tensors of the failed run no longer
    raise OutOfMemory(
        f"The device has not enough memory, even at the smallest size ({sizes[-1]}). Try again when other visitors "
        "are done, or choose a smaller model."
    )
