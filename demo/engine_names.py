"""What people call the engines."""

from __future__ import annotations

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
