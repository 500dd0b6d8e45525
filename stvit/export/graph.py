"""A network as one graph: float32 images in, float32 outputs and, if asked for, the token of every image token."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from inspect import signature
from typing import Literal

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stvit.detection.detector import CascadeMaskRCNN
from stvit.errors import UserError
from stvit.segmentation.upernet import UperNet
from stvit.trace import LayerRegions, RegionLayer, TokenTrace

EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant


Regions = Literal["none", "assignment", "attention"]
"""What a graph returns of the layers whose tokens stand for image regions, after the outputs: nothing, their
assignments, or also the weights of those with semantic tokens."""


class FeaturePyramid(nn.Module):
    """Backbone and feature pyramid of a detector: what of it has no counts that depend on the picture."""

    def __init__(self, detector: CascadeMaskRCNN) -> None:
        super().__init__()
        self.backbone, self.neck = detector.backbone, detector.neck

    def forward(
        self, images: Tensor, return_trace: bool = False
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], TokenTrace]:
        """(B, 3, H, W), sides multiples of 32 -> five maps (B, C, H_i, W_i) at strides 4 to 64."""
        if not return_trace:
            return self.neck(self.backbone(images))
        maps, trace = self.backbone(images, return_trace=True)
        return self.neck(maps), trace


class PixelScores(nn.Module):
    """Backbone and head of a segmenter, without enlarging the scores to the size of the input."""

    def __init__(self, segmenter: UperNet) -> None:
        super().__init__()
        self.backbone, self.head = segmenter.backbone, segmenter.head

    def forward(self, images: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """(B, 3, H, W) of any size -> scores (B, K, H/4, W/4), the sides rounded up."""
        if not return_trace:
            return self.head(self.backbone(images))
        maps, trace = self.backbone(images, return_trace=True)
        return self.head(maps), trace


class InferenceGraph(nn.Module):
    """Float32 in and out whatever the network's precision, and always a tuple: its outputs, then the assignments of all
    layers of :meth:`stvit.trace.TokenTrace.region_layers`, then the weights of those with semantic tokens.

    Args:
        network: in evaluation mode; its tensors are shared, its modules are not, so that others may use it while
            the graph is traced.
        regions: what to return beside the outputs; nothing of a network without a trace.
    """

    def __init__(self, network: nn.Module, regions: Regions = "none") -> None:
        super().__init__()
        shared = {id(tensor): tensor for tensor in network.buffers()}
        shared |= {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in network.parameters()}
        self.network = copy.deepcopy(network, shared).eval()
        self.regions: Regions = regions if returns_trace(type(network)) else "none"
        self.dtype = precision_of(network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        if self.regions == "none":
            return as_float32(self.network(images.to(self.dtype)))
        outputs, regions = self._traced(images)
        weights = (one.attention.float() for one in regions if one.attention is not None)
        assignments = (one.assignment + 0 for one in regions)  # OpenVINO refuses one tensor as two outputs
        return (*as_float32(outputs), *assignments, *weights)

    def _traced(self, images: Tensor) -> tuple[Tensor | Sequence[Tensor], list[LayerRegions]]:
        outputs, trace = self.network(images.to(self.dtype), return_trace=True)
        return outputs, [layer.regions(self.regions == "attention") for layer in trace.region_layers()]

    def describe_regions(self, images: Tensor) -> tuple[RegionLayer, ...]:
        """The layers whose assignments :meth:`forward` returns for images of that shape, with the most tokens that any
        image may leave."""
        return () if self.regions == "none" else tuple(_at_most(one.layer) for one in self._traced(images)[1])

    def agreement(self, images: Tensor, owners: Sequence[Tensor], slack: float) -> list[float]:
        """For every layer, the share of image tokens whose token is theirs here too, or one that they are tied to as
        strongly: rounding decides between tokens that are alike, as those of an untrained network are.

        Args:
            owners: assignments (B, N) that something else made of the images.
            slack: by how much of itself a weight may be weaker and still counts as equal.
        """
        _, trace = self.network(images.to(self.dtype), return_trace=True)
        shares = []
        for layer, owner in zip(trace.region_layers(), owners, strict=True):
            found = layer.regions(attention=True)
            same = owner == found.assignment
            if found.attention is not None:
                weights = found.attention.float()
                own = owner.clamp(0, weights.shape[1] - 1).unsqueeze(1)
                same |= weights.gather(1, own).squeeze(1) >= (1 - slack) * weights.amax(dim=1)
            shares.append(same.float().mean().item())
        return shares


def _at_most(layer: RegionLayer) -> RegionLayer:
    return replace(layer, num_tokens=math.prod(layer.image_grid_hw)) if layer.varies else layer


@cache
def returns_trace(network_type: type[nn.Module]) -> bool:
    """Whether networks of this type can say what their layers did."""
    return "return_trace" in signature(network_type.forward).parameters


def precision_of(network: nn.Module) -> torch.dtype:
    """The type of a network's parameters; float32 of one without any."""
    types = [tensor.dtype for tensor in network.parameters() if tensor.is_floating_point()]
    return types[0] if types else torch.float32


def as_float32(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(output.float() for output in ([outputs] if isinstance(outputs, Tensor) else outputs))


def exportable(model: nn.Module) -> nn.Module:
    """What of a model is one graph: all of it, but of Cascade Mask R-CNN the backbone with its feature pyramid, since
    how many proposals and objects follow depends on the picture."""
    return FeaturePyramid(model) if isinstance(model, CascadeMaskRCNN) else model


def example_images(shape: Sequence[int], batch: int = EXAMPLE_BATCH) -> Tensor:
    """(batch, *shape) float32, normal, always the same; the process's random numbers are left alone."""
    with torch.inference_mode(False):  # what that mode makes cannot be traced
        return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def trace_graph(graph: InferenceGraph, images: Tensor, dynamic_batch: bool) -> ExportedProgram:
    """Trace the graph for images of that shape.

    Raises:
        UserError: the network cannot be traced.
    """
    batch = {0: Dim("batch")} if dynamic_batch else None
    try:
        with torch.inference_mode(False), torch.no_grad():
            return torch.export.export(graph, (images,), dynamic_shapes=({0: batch[0]},) if batch else None)
    except Exception as error:  # torch.export fails in many ways, mostly in those of the network itself
        raise UserError(
            f"{type(graph.network).__name__} cannot be traced for images of {tuple(images.shape)}: {first_line(error)}"
        ) from error


def first_line(error: BaseException) -> str:
    """What an error says, in one line; OpenVINO's begin with where in its sources they arose."""
    lines = [line for line in str(error).strip().splitlines() if not line.startswith("Exception from ")]
    return lines[0][:300] if lines else type(error).__name__
