"""Agglomerative clustering of tokens in batched tensor code, on whatever device the tokens are."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Linkage = Literal["average", "complete", "single"]


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
    distances = distances.detach().clone().diagonal_scatter(distances.new_full((B, T), torch.inf), dim1=1, dim2=2)
    sizes = distances.new_ones(B, T)
    batch = torch.arange(B, device=distances.device)
    heads = torch.arange(T, device=distances.device).repeat(B, 1)  # first member of each token's cluster
    for _ in range(T - num_clusters):
        closest = distances.flatten(1).argmin(dim=1)
        # Of the two equal entries argmin takes the first, so ``first`` is the cluster with the earlier first member.
        first, second = closest // T, closest % T
        merged = _linked(
            distances[batch, first], distances[batch, second], sizes[batch, first], sizes[batch, second], linkage
        )
        merged[batch, first] = merged[batch, second] = torch.inf
        distances[batch, first] = distances[batch, :, first] = merged
        distances[batch, second] = distances[batch, :, second] = torch.inf
        sizes[batch, first] += sizes[batch, second]
        heads = torch.where(heads == second[:, None], first[:, None], heads)
    is_head = heads == torch.arange(T, device=heads.device)
    return (is_head.cumsum(dim=1) - 1).gather(1, heads)


def _linked(a: Tensor, b: Tensor, size_a: Tensor, size_b: Tensor, linkage: Linkage) -> Tensor:
    """(B, T) distances of the union of two clusters from all others (Lance and Williams's update)."""
    if linkage == "average":
        return (size_a[:, None] * a + size_b[:, None] * b) / (size_a + size_b)[:, None]
    if linkage == "complete":
        return torch.maximum(a, b)
    if linkage == "single":
        return torch.minimum(a, b)
    raise ValueError(f"linkage={linkage!r}: choose average, complete or single")
