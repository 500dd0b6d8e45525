"""What people call the engines."""

from __future__ import annotations

ENGINE_LABELS = {
    "eager": "eager PyTorch",
    "openvino": "OpenVINO",
    "cuda_graphs": "CUDA graphs",
    "compiled": "torch.compile",
    "aot": "AOTInductor",
}
