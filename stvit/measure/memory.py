"""How much memory a forward pass needs beyond the weights and its input."""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def peak_memory_bytes(model: nn.Module, images: Tensor) -> int:
    """Most bytes that one forward pass holds at once.

    On CUDA, what the allocator hands out; elsewhere, the tensors that are alive, without what kernels take for
    themselves in between.
    """
    if images.device.type == "cuda":
        return _allocated_on_cuda(model, images)
    with torch.inference_mode(), LiveBytes() as live:
        model(images)
    return live.peak


def _allocated_on_cuda(model: nn.Module, images: Tensor) -> int:
    torch.cuda.synchronize(images.device)
    before = torch.cuda.memory_allocated(images.device)
    torch.cuda.reset_peak_memory_stats(images.device)
    with torch.inference_mode():
        model(images)
    torch.cuda.synchronize(images.device)
    return torch.cuda.max_memory_allocated(images.device) - before


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors made inside of it and still alive.

    Attributes:
        now: bytes at the moment.
        peak: most of them so far.
    """

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._alive: dict[int, int] = {}

    def __torch_dispatch__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._add(tensor.untyped_storage(), given)
        self.peak = max(self.peak, self.now)
        return result

    def _add(self, storage: torch.UntypedStorage, given: set[int]) -> None:
        address = storage._cdata
        if address in self._alive or address in given:  # a view shares the storage of what it was made from
            return
        self._alive[address] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._remove, address)

    def _remove(self, address: int) -> None:
        self.now -= self._alive.pop(address)
