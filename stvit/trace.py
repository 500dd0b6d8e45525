"""What a model returns for drawing when called with ``return_trace=True``.

The models *return* what they did; nothing is hooked or stashed, and the fast path computes no attention maps.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

LayerKind = Literal["image", "stgm", "semantic", "recovery", "reduction"]
Fate = Literal["dropped", "waiting", "halted", "fast"]  # of image tokens that a layer does not process in full


@dataclass(frozen=True)
class RegionLayer:
    """A layer whose tokens stand for image regions, without its tensors.

    Attributes:
        name, kind, unit, image_grid_hw, fuses, fate, frames: see :class:`LayerTrace`.
        semantic_grid_hw: rows and columns of the semantic tokens; ``None`` where image tokens are reduced.
        num_tokens: tokens that the layer puts out for an image or a token frame; all numbers of an assignment lie below
            it.
    """

    name: str
    kind: LayerKind
    unit: int
    image_grid_hw: tuple[int, int]
    semantic_grid_hw: tuple[int, int] | None
    num_tokens: int
    fuses: bool
    fate: Fate
    frames: int

    @property
    def reduces(self) -> bool:
        """Whether the layer leaves fewer image tokens, instead of making semantic ones."""
        return self.semantic_grid_hw is None

    @property
    def varies(self) -> bool:
        """Whether ``num_tokens`` depends on the image, as where tokens halt; it is then the most of a batch."""
        return self.fate == "halted"


class LayerRegions(NamedTuple):
    """The image regions that the tokens of a layer stand for, for a batch.

    Attributes:
        layer: which.
        assignment: (B, N) int64, the token that each image token belongs to, -1 where it has none.
        attention: (B, M, N), head-averaged weights between semantic and image tokens, see
            :meth:`LayerTrace.semantic_to_image`; ``None`` where they were not asked for, or there are none.
    """

    layer: RegionLayer
    assignment: Tensor
    attention: Tensor | None = None

    @property
    def kind(self) -> LayerKind:
        return self.layer.kind


@dataclass(frozen=True)
class LayerTrace:
    """One transformer layer of one forward pass.

    Attributes:
        name: human-readable and unique within its unit, e.g. ``"STGM 1"``.
        kind: the part that the layer plays; ``reduction`` processes fewer image tokens, or fuses or merges them.
        tokens: (B, T, C), what the layer put out, a class token left out: semantic tokens in raster order of
            ``semantic_grid_hw`` for ``stgm`` and ``semantic`` layers, image tokens otherwise, in raster order of
            ``image_grid_hw`` unless ``assignment`` says where they went.
        image_grid_hw: rows and columns of the image-token grid.
        semantic_grid_hw: rows and columns of the semantic-token grid; ``None`` for ``image`` layers.
        attention: (B, heads, M, N) for ``stgm`` layers, softmax weight of semantic token m on image token n (0 outside
            its key window; rows sum to one minus the weight on semantic keys); (B, heads, N, M) for ``recovery``
            layers, weight of image token n on semantic token m (rows sum to one). ``None`` for other layers.
        unit: 1-based dumbbell unit; 0 where the network has no units.
        assignment: (B, N) int64, for networks that reduce image tokens: the position in ``tokens`` of the token that
            each image token is represented by after this layer, -1 where there is none: ``fate`` says why. ``None`` for
            other networks.
        fuses: whether the image tokens that do not go on by themselves were fused into one token, or dropped (EViT),
            not merged into many.
        fate: of the image tokens of -1: ``dropped`` for good (EViT, DynamicViT), ``halted`` with an output that counts
            (A-ViT), ``waiting`` for a later layer (Evo-ViT), or on the ``fast`` path of this layer (DynamicSwin).
        frames: token frames of a clip. Where there are several, B of every tensor here is clips * frames, the frames of
            the first clip first: ``clusters().unflatten(0, (-1, frames))``. A token frame stands for as many frames of
            the clip as the network's patches are long.
    """

    name: str
    kind: LayerKind
    tokens: Tensor
    image_grid_hw: tuple[int, int]
    semantic_grid_hw: tuple[int, int] | None = None
    attention: Tensor | None = None
    unit: int = 0
    assignment: Tensor | None = None
    fuses: bool = False
    fate: Fate = "dropped"
    frames: int = 1

    @property
    def num_tokens(self) -> int:
        """Tokens that the layer's feed-forward network processes, for each frame of a clip, a class token left out."""
        return self.tokens.shape[1]

    def group_sizes(self) -> Tensor:
        """(B, T) int64: how many image tokens each token stands for. One means a token kept as it is, more a fused or
        merged one.

        Raises:
            ValueError: the network does not reduce image tokens.
        """
        if self.assignment is None:
            raise ValueError(f"layer {self.name!r} is not of a network that drops, fuses or merges image tokens")
        sizes = self.assignment.new_zeros(self.tokens.shape[0], self.num_tokens)
        kept = self.assignment >= 0
        return sizes.scatter_add(1, self.assignment.clamp(min=0), kept.long())

    def semantic_to_image(self) -> Tensor:
        """Head-averaged map (B, M, N): how strongly semantic token m is tied to image token n, in either direction.

        Raises:
            ValueError: the layer does not connect semantic tokens with image tokens.
        """
        if self.attention is None:
            raise ValueError(f"layer {self.name!r} of unit {self.unit} connects no semantic tokens with image tokens")
        weights = self.attention.mean(dim=1)
        return weights.transpose(1, 2) if self.kind == "recovery" else weights

    def clusters(self) -> Tensor:
        """(B, N) int64: the semantic token that each image token belongs to, the one it is tied to most strongly."""
        return self.semantic_to_image().argmax(dim=1)

    def regions(self, attention: bool = False) -> LayerRegions:
        """The regions of one of :meth:`TokenTrace.region_layers`.

        Args:
            attention: also keep the weights of semantic layers, which take far more memory than the assignment.
        """
        if self.assignment is not None:
            return LayerRegions(self._described(None, self.num_tokens), self.assignment)
        weights, grid = self.semantic_to_image(), self.semantic_grid_hw
        layer = self._described(grid, math.prod(grid))
        return LayerRegions(layer, weights.argmax(dim=1), weights if attention else None)

    def _described(self, semantic_grid_hw: tuple[int, int] | None, num_tokens: int) -> RegionLayer:
        return RegionLayer(
            self.name,
            self.kind,
            self.unit,
            self.image_grid_hw,
            semantic_grid_hw,
            num_tokens,
            self.fuses,
            self.fate,
            self.frames,
        )


def follow(assignment: Tensor, moved_to: Tensor) -> Tensor:
    """Where each image token is represented after one more step.

    Args:
        assignment: (B, N), position of its representative before the step, -1 for dropped ones.
        moved_to: (B, T), position after the step of what stood at each of the T positions before, -1 for dropped ones.
    """
    return torch.where(assignment >= 0, moved_to.gather(1, assignment.clamp(min=0)), -1)


@dataclass(frozen=True)
class TokenTrace:
    """The layers of one forward pass, in order of execution; stages without semantic tokens are left out."""

    layers: tuple[LayerTrace, ...]

    def cluster_layers(self) -> tuple[LayerTrace, ...]:
        """The layers that tie semantic tokens to image regions, in order."""
        return tuple(layer for layer in self.layers if layer.attention is not None)

    def region_layers(self) -> tuple[LayerTrace, ...]:
        """The layers whose tokens stand for image regions, in order; none where a network keeps all its tokens."""
        return tuple(layer for layer in self.layers if layer.attention is not None or layer.assignment is not None)
