"""Models on a GPU that Hugging Face's ZeroGPU lends to single calls, in processes that are forked for them."""

from __future__ import annotations

import os
import threading
from collections import defaultdict

import torch
from torch import nn

from demo.model_cache import MODEL_BUDGET_BYTES, LoadedModel, ModelCache, Progress
from demo.registry import ModelSpec, Registry


def on_zero_gpu() -> bool:
    """Whether this is a Space that lends a GPU to single calls."""
    return os.environ.get("SPACES_ZERO_GPU", "").lower() in ("1", "t", "true")


def default_models(registry: Registry) -> list[ModelSpec]:
    """List the models that the tabs begin with: the first of each task, and what the first classifier runs beside."""
    first = [registry.first(task) for task in ("classify", "detect", "segment", "video") if registry.of_task(task)]
    beside = [registry.counterpart(spec) for spec in first if spec.task == "classify"]
    return [*first, *filter(None, beside)]


class LentCache(ModelCache):
    """Keeps models where a GPU is lent to single calls.

    The main thread alone may place models on it, before the page is served: ``spaces`` moves those at once when a GPU
    comes. Models that visitors choose later stay on this process' CPU; a process with a GPU places its own copy.
    """

    def __init__(self, device: torch.device, precision: torch.dtype, budget_bytes: int = MODEL_BUDGET_BYTES) -> None:
        super().__init__(device, precision, budget_bytes)
        self._home = os.getpid()
        os.register_at_fork(after_in_child=self._renew_locks)

    def get(self, spec: ModelSpec, progress: Progress | None = None, *, retry: bool = False) -> LoadedModel:
        loaded = super().get(spec, progress, retry=retry)
        if self._lent:
            self._place(loaded.network)
        return loaded

    @property
    def _lent(self) -> bool:
        return os.getpid() != self._home

    def _place(self, network: nn.Module) -> nn.Module:
        if self._lent or threading.current_thread() is threading.main_thread():
            return super()._place(network)
        return network.to(self.precision)

    def _renew_locks(self) -> None:
        """A lock that another thread held at the fork would stay locked for good."""
        self._lock = threading.Lock()
        self._loading = defaultdict(threading.Lock)
