"""What a graph depends on, as one digest: structure and options of the network, its weights, the code, the versions."""

from __future__ import annotations

import dataclasses
import hashlib
import platform
from functools import cache
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn

PLAIN = (bool, int, float, str, type(None))
SOURCES = ("trace.py", "layers", "models", "detection", "segmentation", "sparsify", "export", "predict/engines")


def fingerprint(network: nn.Module) -> str:
    """sha256 of everything that decides what the network computes: classes, options and tensors of its modules, the
    code of this package, the versions of torch and timm."""
    found = hashlib.sha256(repr((_sources(), torch.__version__, timm.__version__, platform.machine())).encode())
    for name, module in network.named_modules():
        options = {key: plain(value) for key, value in vars(module).items() if not key.startswith("_")}
        found.update(repr((name, f"{type(module).__module__}.{type(module).__qualname__}", options)).encode())
    for name, tensor in [*network.named_parameters(), *network.named_buffers()]:
        found.update(repr((name, tensor.dtype, tuple(tensor.shape))).encode())
        found.update(_bytes(tensor))
    return found.hexdigest()


def plain(value: Any) -> Any:
    """A value as something whose ``repr`` is the same in every process; of other objects, their class alone."""
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {str(key): plain(value[key]) for key in sorted(value, key=str)}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    return getattr(value, "__qualname__", type(value).__qualname__)


def _bytes(tensor: Tensor) -> memoryview:
    return memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())


@cache
def _sources() -> str:
    root, found = Path(__file__).parents[2], hashlib.sha256()
    for name in SOURCES:
        for path in [root / name] if name.endswith(".py") else sorted((root / name).rglob("*.py")):
            found.update(path.read_bytes())
    return found.hexdigest()
