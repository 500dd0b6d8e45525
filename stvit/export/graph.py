"""A network as one graph: float32 images in, float32 outputs and, if asked for, the token of every image token."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from stvit.detection.detector import CascadeMaskRCNN
from stvit.errors import UserError
from stvit.trace import LayerTrace, TokenTrace

EXAMPLE_BATCH = 2  # torch.export takes a batch of 1 for a constant


@dataclass(frozen=True)
class RegionLayer:
    """A layer whose assignment (B, N) int64 a graph returns: which token of the layer each image token belongs to.

    Attributes:
        name, kind, unit, image_grid_hw, semantic_grid_hw, frames: see :class:`stvit.trace.LayerTrace`.
        num_tokens: tokens that the layer puts out; in an assignment, -1 stands for dropped image tokens.
    """

    name: str
    kind: str
    unit: int
    image_grid_hw: tuple[int, int]
    semantic_grid_hw: tuple[int, int] | None
    num_tokens: int
    frames: int


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


class InferenceGraph(nn.Module):
    """Float32 in and out whatever the network's precision, and always a tuple: its outputs, then the assignments.

    Args:
        network: in evaluation mode; its tensors are shared, its modules are not, so that others may use it while
            the graph is traced.
        regions: also return the assignment of every layer of :func:`layers_with_regions`.
    """

    def __init__(self, network: nn.Module, regions: bool = False) -> None:
        super().__init__()
        shared = {id(tensor): tensor for tensor in network.buffers()}
        shared |= {id(one): nn.Parameter(one.detach(), requires_grad=False) for one in network.parameters()}
        self.network = copy.deepcopy(network, shared).eval()
        self.regions = regions
        types = [tensor.dtype for tensor in self.network.parameters() if tensor.is_floating_point()]
        self.dtype = types[0] if types else torch.float32

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        images = images.to(self.dtype)
        if not self.regions:
            return as_float32(self.network(images))
        outputs, trace = self.network(images, return_trace=True)
        return (*as_float32(outputs), *map(assignment_of, layers_with_regions(trace)))

    def describe_regions(self, images: Tensor) -> tuple[RegionLayer, ...]:
        """The layers whose assignments :meth:`forward` returns for images of that shape.

        Raises:
            UserError: the network has no such layers.
        """
        if not self.regions:
            return ()
        try:
            _, trace = self.network(images.to(self.dtype), return_trace=True)
        except TypeError as error:  # a network of timm
            raise _without_regions(self.network) from error
        if not layers_with_regions(trace):
            raise _without_regions(self.network)
        return tuple(map(_described, layers_with_regions(trace)))

    def agreement(self, images: Tensor, owners: Sequence[Tensor], slack: float) -> list[float]:
        """For every layer, the share of image tokens whose token is theirs here too, or one that they are tied to as
        strongly: rounding decides between tokens that are alike, as those of an untrained network are.

        Args:
            owners: assignments (B, N) that something else made of the images.
            slack: by how much of itself a weight may be weaker and still counts as equal.
        """
        _, trace = self.network(images.to(self.dtype), return_trace=True)
        shares = []
        for layer, owner in zip(layers_with_regions(trace), owners, strict=True):
            same = owner == assignment_of(layer)
            if layer.assignment is None:
                weights = layer.semantic_to_image().float()
                own = owner.clamp(0, weights.shape[1] - 1).unsqueeze(1)
                same |= weights.gather(1, own).squeeze(1) >= (1 - slack) * weights.amax(dim=1)
            shares.append(same.float().mean().item())
        return shares


def layers_with_regions(trace: TokenTrace) -> tuple[LayerTrace, ...]:
    """The layers that make semantic tokens of image tokens, or drop, fuse or merge these, in order."""
    return tuple(layer for layer in trace.layers if layer.kind in ("stgm", "reduction"))


def assignment_of(layer: LayerTrace) -> Tensor:
    """(B, N) int64: the token of the layer that each image token belongs to."""
    return layer.clusters() if layer.assignment is None else layer.assignment


def as_float32(outputs: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(output.float() for output in ([outputs] if isinstance(outputs, Tensor) else outputs))


def _described(layer: LayerTrace) -> RegionLayer:
    semantic = layer.semantic_grid_hw
    tokens = layer.num_tokens if semantic is None else math.prod(semantic)
    return RegionLayer(layer.name, layer.kind, layer.unit, layer.image_grid_hw, semantic, tokens, layer.frames)


def _without_regions(network: nn.Module) -> UserError:
    name = type(network).__name__
    return UserError(f"{name} has no layers whose tokens stand for image regions.", "Leave out the regions.")


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
    """What an error says, in one line."""
    lines = str(error).strip().splitlines()
    return lines[0][:300] if lines else type(error).__name__
