"""ATC (Haurum et al., ECCV 2024, arXiv 2409.11923): agglomerative clustering merges image tokens in three layers.

Written after the paper and the behaviour of the released models. It adds no parameters: weights of timm's or Meta's
DeiT run as they are, and the authors' trained checkpoints load under the same names. Those of average linkage are
registered: ``atc_deit_small_patch16_224.average_05_in1k`` was trained at a keep rate of 0.5; without a tag, at 0.7.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import Tensor
from torch.nn import functional as F

from stvit.layers.reducing_vit import (
    FullTokenWeights,
    ReducingVisionTransformer,
    build_reducing_model,
    check_share,
    self_attention,
)
from stvit.pretrained.records import ModelRecord
from stvit.trace import LayerTrace, follow

from .dynamicvit import keep_counts
from .stvit_deit import DEIT_PREPROCESSING, DEIT_SIZES

Linkage = Literal["average", "complete", "single"]


@torch.compiler.disable(reason="unrolled, it is hundreds of steps, which take minutes to compile")
def agglomerate(distances: Tensor, num_clusters: int, linkage: Linkage = "average") -> Tensor:
    """Merge the two closest clusters until few are left; the partition of SciPy's ``linkage`` and ``fcluster``.

    Args:
        distances: (B, T, T), symmetric.
        num_clusters: how many are left, from 1 to T.
        linkage: the distance of two clusters: the mean over all pairs of members, the largest or the smallest.

    Returns:
        (B, T) int64 cluster numbers in [0, num_clusters), in the order of the clusters' first members.

    Raises:
        ValueError: no such linkage, or more clusters than tokens.
    """
    B, T = distances.shape[:2]
    if not 1 <= num_clusters <= T:
        raise ValueError(f"num_clusters={num_clusters}: choose a number from 1 to {T}, the number of tokens")
    distances = distances.detach().masked_fill(torch.eye(T, dtype=torch.bool, device=distances.device), torch.inf)
    sizes = distances.new_ones(B, T)
    heads = torch.arange(T, device=distances.device).repeat(B, 1)  # first member of each token's cluster
    for _ in range(T - num_clusters):  # in operators that every exported format has, so no indexing by tensors
        closest = distances.flatten(1).argmin(dim=1, keepdim=True)
        # Each pair stands in the matrix twice; ``first`` is the cluster with the earlier first member.
        first, second = torch.minimum(closest // T, closest % T), torch.maximum(closest // T, closest % T)
        pair = torch.cat([first, second], dim=1)
        rows = pair[..., None].expand(-1, -1, T)
        members = sizes.gather(1, pair)
        merged = _linked(distances.gather(1, rows), members, linkage).scatter(1, pair, torch.inf)
        replaced = torch.stack([merged, torch.full_like(merged, torch.inf)], dim=1)
        distances.scatter_(1, rows, replaced).scatter_(2, rows.transpose(1, 2), replaced.transpose(1, 2))
        sizes.scatter_(1, first, members.sum(dim=1, keepdim=True))
        heads = torch.where(heads == second, first, heads)
    is_head = heads == torch.arange(T, device=heads.device)
    return (is_head.cumsum(dim=1) - 1).gather(1, heads)


def _linked(distances: Tensor, sizes: Tensor, linkage: Linkage) -> Tensor:
    """(B, 2, T) distances of two clusters of (B, 2) tokens from all -> (B, T) those of their union (Lance and
    Williams's update)."""
    if linkage == "average":
        return (sizes[..., None] * distances).sum(dim=1) / sizes.sum(dim=1, keepdim=True)
    if linkage == "complete":
        return distances.amax(dim=1)
    if linkage == "single":
        return distances.amin(dim=1)
    raise ValueError(f"linkage={linkage!r}: choose average, complete or single")


class ATCBlock(Block):
    """timm's transformer layer; between attention and feed-forward network it can cluster the tokens."""

    def forward(
        self, tokens: Tensor, sizes: Tensor | None, num_clusters: int | None, linkage: Linkage
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the layer.

        Args:
            tokens: (B, 1 + T, C), class token first.
            sizes: (B, 1 + T, 1), how often each counts as a key and in means; ``None`` while all count once.
            num_clusters: tokens that are left, the class token left out; ``None`` to merge none.
            linkage: see :func:`stvit.models.atc.agglomerate`.

        Returns:
            Tokens (B, 1 + K, C), their sizes, and the cluster (B, T) of every token, ``None`` if none were merged.
        """
        bias = None if sizes is None else sizes.log().to(tokens.dtype)[:, None, None, :, 0]
        attended, _, k = self_attention(self.attn, self.norm1(tokens), bias)
        tokens = tokens + self.drop_path1(self.ls1(attended))
        clusters = None
        if num_clusters is not None:
            keys = F.normalize(k[:, :, 1:].mean(dim=1), dim=-1)
            exact = keys.to(torch.promote_types(keys.dtype, torch.float32))  # bfloat16 would make distances equal
            clusters = agglomerate(1 - exact @ exact.transpose(1, 2), num_clusters, linkage)
            sizes = tokens.new_ones(*tokens.shape[:2], 1) if sizes is None else sizes
            tokens, sizes = merge_clusters(tokens, sizes, clusters, num_clusters)
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens)))), sizes, clusters


def merge_clusters(tokens: Tensor, sizes: Tensor, clusters: Tensor, num_clusters: int) -> tuple[Tensor, Tensor]:
    """(B, 1 + T, C) tokens -> (B, 1 + K, C) means of each cluster, weighted by their sizes, and the added-up sizes."""
    B, _, C = tokens.shape
    index = F.pad(clusters + 1, (1, 0))[..., None]  # the class token is a cluster of its own
    summed = tokens.new_zeros(B, 1 + num_clusters, C).scatter_add(1, index.expand(-1, -1, C), tokens * sizes)
    total = sizes.new_zeros(B, 1 + num_clusters, 1).scatter_add(1, index, sizes)
    return summed / total, total


class ATC(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token that clusters its image tokens by their keys in some layers.

    Args:
        keep_rate: the k-th of these layers leaves ``keep_rate ** k`` of the image tokens, rounded down; in (0, 1].
        linkage: of the clustering.
        proportional_attention: let a token count as often as the image tokens that it stands for, in attention and in
            later means; the authors' recipe does.
        reduction_layers: these layers, counted from 0; the paper's for 12 layers.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: the keep rate is no such share, or there is no such linkage.
    """

    def __init__(
        self,
        *,
        keep_rate: float = 0.7,
        linkage: Linkage = "average",
        proportional_attention: bool = True,
        reduction_layers: tuple[int, ...] = (3, 6, 9),
        **vit: Any,
    ) -> None:
        check_share("keep_rate", keep_rate, "0.25 to 0.9")
        if linkage not in ("average", "complete", "single"):
            raise ValueError(f"linkage={linkage!r}: choose average, complete or single")
        super().__init__(block_fn=ATCBlock, **vit)
        self.keep_rate, self.linkage, self.reduction_layers = keep_rate, linkage, reduction_layers
        self.proportional_attention = proportional_attention

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> the tokens that are left, and what every layer did if asked for."""
        trace, sizes = [], None
        counts = keep_counts(tokens.shape[1] - 1, self.keep_rate, len(self.reduction_layers))
        assignment = torch.arange(tokens.shape[1] - 1, device=tokens.device).expand(tokens.shape[0], -1)
        for i, block in enumerate(self.blocks):
            left = counts[self.reduction_layers.index(i)] if i in self.reduction_layers else None
            tokens, sizes, clusters = self.run_layer(block, tokens, sizes, left, self.linkage)
            sizes = sizes if self.proportional_attention else None
            if return_trace:
                kind = "image" if clusters is None else "reduction"
                assignment = assignment if clusters is None else follow(assignment, clusters)
                trace.append(LayerTrace(f"Layer {i + 1}", kind, tokens[:, 1:], grid_hw, assignment=assignment))
        return tokens, tuple(trace)

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """timm's hook for weight files of a custom format: the authors' containers."""
        from stvit.checkpoint import load_checkpoint

        load_checkpoint(self, checkpoint_path)


PAPER = {
    "paper_ids": "arXiv:2409.11923",
    "paper_name": "Agglomerative Token Clustering",
    "origin_url": "https://github.com/JoakimHaurum/ATC",
    "license": "mit",
}
RATES = ("07", "025", "05", "09")  # keep rates as the files' names write them; the first is the default
SHA256 = {
    ("tiny", "05"): "1ecd9baed51262740ae0d785f74ba585ad410b282763264a4e0c151b1cda1967",
    ("tiny", "07"): "d55f4358a3c2a8db477c80230b28d0cf60e6dc6bf24947ee3e485726820239e4",
    ("tiny", "09"): "cf797bee1f59b82573af0d347e9f1e1c12a5c07397bbc6c7379a1e0108ff3d94",
    ("small", "025"): "7e14656573b38ff170e7c2956ff27a0572a0481b42cc9fb0845c720dba5e8f5f",
    ("small", "05"): "632975e52c0d54101b1f33c2f3a24abfd058d487d6635e285b047a3c8e447fea",
    ("small", "07"): "557c698631e0db92a45b19569986623d1dca70bf5caa0954831d9f1ae53d517b",
    ("small", "09"): "357c9c82272f1feea69de34e5ff86fd5020ec011d1ad4a5a7ba7f6e6456d0aac",
    ("base", "025"): "b7038d0bb9ab966f9a06386ea5051c4b65ad6f5ae0a0b78326a2c911f6542a2c",
    ("base", "05"): "416bd7ff208e702500bfffb793a2aeb1045ff09fc235b08d96c2741d0a941260",
    ("base", "07"): "9c1f2a3c0cf4d2cfef6cd7d758c337a74a6367cfaa5efa7b0f680a50d54b6b25",
    ("base", "09"): "79c82e60542965f292a155576b167abea4f6863aa0326ded73ac11e35b9ce9be",
}


def _record(size: str, rate: str) -> ModelRecord:
    """Weights that the authors trained with average linkage and that keep rate."""
    return ModelRecord(
        **DEIT_PREPROCESSING,
        **PAPER,
        hf_hub_id=f"joakimbh/atc_{size}-im1k-average",
        hf_hub_filename=f"atc_{size}-im1k-{rate}-average.pth",
        custom_load=True,
        sha256=SHA256.get((size, rate)),
    )


default_cfgs = generate_default_cfgs(
    {f"atc_deit_{size}_patch16_224.average_{rate}_in1k": _record(size, rate) for size in DEIT_SIZES for rate in RATES}
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> ATC:
    return build_reducing_model(ATC, f"atc_deit_{size}_patch16_224", pretrained, **{**DEIT_SIZES[size], **kwargs})


@register_model
def atc_deit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> ATC:
    """ATC on DeiT-T."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def atc_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> ATC:
    """ATC on DeiT-S: 2.98 G multiply-adds at keep rate 0.7, clustering not counted."""
    return _create("small", pretrained, **kwargs)


@register_model
def atc_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> ATC:
    """ATC on DeiT-B."""
    return _create("base", pretrained, **kwargs)
