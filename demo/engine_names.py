"""What people call the engines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ENGINE_LABELS = {
    "eager": "eager PyTorch",
    "openvino": "OpenVINO",
    "cuda_graphs": "CUDA graphs",
    "compiled": "torch.compile",
    "aot": "AOTInductor",
}


def engine_words(names: str) -> str:
    """Name engines for people; several are joined by "and"."""
    return " and ".join(ENGINE_LABELS[name] for name in names.split(" and "))


def engine_of_record(record: Mapping[str, Any]) -> str:
    """Name the engine of a recorded measurement; where the record says none, it was eager PyTorch."""
    name = record.get("engine", "eager")
    return ENGINE_LABELS.get(name, name)
