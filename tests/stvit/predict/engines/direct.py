"""A stand-in for OpenVINO whose graphs are there at once: the network itself, as it would be exported."""

from __future__ import annotations

import torch
from torch import Tensor

from stvit.export.graph import InferenceGraph
from stvit.predict.engines.backends import Backend


class Direct(Backend):
    name = "openvino"

    def runner(self, graph: InferenceGraph, shape: tuple[int, ...]):
        def run(images: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():
                return graph(images)

        return run
