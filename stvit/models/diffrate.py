"""DiffRate (Chen et al., ICCV 2023, arXiv 2305.17997): how many tokens every layer prunes and merges is a schedule.

Written after the paper and the behaviour of the released code. It adds no parameters and needs no training: weights of
timm's or Meta's DeiT run as they are. Schedules are made here, by a rule or by a search, not taken from the authors.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Sequence
from typing import Any

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block, checkpoint_filter_fn
from torch import Tensor
from torch.nn import functional as F

from stvit.layers.reducing_vit import (
    FullTokenWeights,
    ReducingVisionTransformer,
    attend_and_score,
    build_reducing_model,
)
from stvit.pretrained.records import ModelRecord
from stvit.trace import LayerTrace, follow

from .evit import full_token_cfg
from .stvit_deit import DEIT_SIZES

Schedule = tuple[
    tuple[int, ...], tuple[int, ...]
]  # tokens left after pruning and after merging, the class token counted
BUDGETS = {"small": "2.9G", "base": "11.5G"}
FEWEST = 3  # tokens that a layer leaves at least in schedules that are made here


class DiffRateBlock(Block):
    """timm's transformer layer; between attention and feed-forward network it prunes and merges the least attended."""

    def forward(
        self, tokens: Tensor, sizes: Tensor | None, num_kept: int, num_left: int
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Run the layer.

        Args:
            tokens: (B, T, C), class token first.
            sizes: (B, T, 1), how often each counts as a key; ``None`` while all count once.
            num_kept: tokens after pruning, the class token counted.
            num_left: tokens after merging.

        Returns:
            (B, num_left, C), their sizes, and (B, T) where each went, -1 for pruned ones; ``None`` if all went on.
        """
        bias = None if sizes is None else sizes.log().to(tokens.dtype)[:, None, None, :, 0]
        attended, scores = attend_and_score(self.attn, self.norm1(tokens), bias)
        tokens, moved = tokens + self.drop_path1(self.ls1(attended)), None
        if num_left < tokens.shape[1]:
            order = F.pad(scores.argsort(dim=1, descending=True) + 1, (1, 0))  # the class token stays first
            sizes = tokens.new_ones(*tokens.shape[:2], 1) if sizes is None else sizes
            kept = order[:, :num_kept]
            tokens, sizes, target = merge_lowest(_taken(tokens, kept), _taken(sizes, kept), num_left)
            moved = order.new_full(order.shape, -1).scatter(1, kept, target)
        return tokens + self.drop_path2(self.ls2(self.mlp(self.norm2(tokens)))), sizes, moved


def merge_lowest(tokens: Tensor, sizes: Tensor, num_left: int) -> tuple[Tensor, Tensor, Tensor]:
    """Merge the last of (B, T, C) tokens into the most similar of the first, the class token excepted.

    A merged token is the plain mean of its members; its size grows by the size of each member times their cosine
    similarity, which may be negative, but stays above 0.

    Returns:
        Tokens (B, num_left, C), their sizes (B, num_left, 1), and (B, T) where each token went.
    """
    stay, go = tokens[:, :num_left], tokens[:, num_left:]
    similarity = F.normalize(go, dim=-1) @ F.normalize(stay, dim=-1).transpose(1, 2)
    similarity[..., 0] = -torch.inf
    closeness, target = similarity.max(dim=-1, keepdim=True)
    wide = target.expand_as(go)
    summed = stay.scatter_add(1, wide, go)
    members = torch.ones_like(stay[..., :1]).scatter_add(1, target, torch.ones_like(closeness))
    grown = sizes[:, :num_left].scatter_add(1, target, sizes[:, num_left:] * closeness)
    grown = grown.clamp_min(torch.finfo(grown.dtype).tiny)  # its logarithm is taken
    here = torch.arange(num_left, device=tokens.device).expand(tokens.shape[0], -1)
    return summed / members, grown, torch.cat([here, target[..., 0]], dim=1)


def _taken(values: Tensor, index: Tensor) -> Tensor:
    return values.gather(1, index[..., None].expand(-1, -1, values.shape[-1]))


class DiffRate(FullTokenWeights, ReducingVisionTransformer):
    """A vision transformer with class token that prunes and merges image tokens by a schedule.

    Args:
        schedule: tokens that are left after pruning and after merging in every layer, the class token counted; or a
            budget such as ``"2.9G"`` multiply-adds, for which :func:`even_schedule` makes one.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``.

    Raises:
        ValueError: the schedule does not fit the number of layers or tokens, rises, or the budget cannot be met.
    """

    def __init__(self, *, schedule: str | Sequence[Sequence[int]] = "2.9G", **vit: Any) -> None:
        super().__init__(block_fn=DiffRateBlock, **vit)
        self.schedule = self.checked(schedule)

    def checked(self, schedule: str | Sequence[Sequence[int]]) -> Schedule:
        """A schedule that fits the model; raises as the class does."""
        num_tokens, depth = self.pos_embed.shape[1], len(self.blocks)
        if isinstance(schedule, str):
            projection = self.patch_embed.proj.weight.numel() * self.patch_embed.num_patches
            outside = projection + self.embed_dim * self.num_classes
            return even_schedule(num_tokens, depth, self.embed_dim, budget_macs(schedule), outside)
        try:
            pruned, merged = (tuple(map(operator.index, counts)) for counts in schedule)
        except (TypeError, ValueError):  # no lists, other than two, or not of whole numbers
            pruned, merged = (), ()
        if {len(pruned), len(merged)} != {depth}:
            raise ValueError(
                f"the schedule must be a budget such as '2.9G', or two lists of {depth} whole numbers: the tokens that "
                "are left in every layer after pruning, and after merging, the class token counted"
            )
        before = (num_tokens, *merged[:-1])
        for i, (enter, kept, left) in enumerate(zip(before, pruned, merged, strict=True)):
            if not 2 <= left <= kept <= enter:
                raise ValueError(
                    f"layer {i + 1} of the schedule leaves {kept} of {enter} tokens after pruning and {left} after "
                    "merging: no count may be larger than the one before it, nor below 2, the class token and another"
                )
        return pruned, merged

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 1 + N, C) -> the tokens that are left, and what every layer did if asked for."""
        trace, sizes = [], None
        represented = torch.arange(1, tokens.shape[1], device=tokens.device).expand(tokens.shape[0], -1)
        for i, (block, num_kept, num_left) in enumerate(zip(self.blocks, *self.schedule, strict=True)):
            tokens, sizes, moved = self.run_layer(block, tokens, sizes, num_kept, num_left)
            if return_trace:
                kind = "image" if moved is None else "reduction"
                represented = represented if moved is None else follow(represented, moved)
                assignment = torch.where(represented < 0, -1, represented - 1)
                trace.append(LayerTrace(f"Layer {i + 1}", kind, tokens[:, 1:], grid_hw, assignment=assignment))
        return tokens, tuple(trace)


def budget_macs(name: str) -> float:
    """``"2.9G"``, or ``"2.9"`` as the authors name it -> 2.9e9 multiply-adds.

    Raises:
        ValueError: no such number.
    """
    number = re.fullmatch(r"(\d+(\.\d+)?)\s*[Gg]?", name.strip(), flags=re.ASCII)
    if not number:
        raise ValueError(f"schedule={name!r}: write a budget such as '2.9G', or two lists of counts")
    return float(number[1]) * 1e9


def layer_macs(entering: int, left: int, dim: int) -> int:
    """Multiply-adds of a layer's matrix products: attention on the tokens that enter, the rest on those left."""
    return 4 * entering * dim**2 + 2 * entering**2 * dim + 8 * left * dim**2


def schedule_macs(schedule: Schedule, num_tokens: int, dim: int) -> int:
    """Multiply-adds of all layers under a schedule, patch embedding and classifier left out."""
    entering = (num_tokens, *schedule[1][:-1])
    return sum(layer_macs(before, left, dim) for before, left in zip(entering, schedule[1], strict=True))


def even_schedule(num_tokens: int, depth: int, dim: int, macs: float, outside: int = 0) -> Schedule:
    """The same share of tokens goes on from every layer, half of the others pruned and half merged.

    Args:
        macs: the most that may be computed.
        outside: how much of that is needed outside of the layers.

    Raises:
        ValueError: not even the fewest tokens are cheap enough.
    """

    def cost(schedule: Schedule) -> int:
        return schedule_macs(schedule, num_tokens, dim) + outside

    def of_share(share: float) -> Schedule:
        merged = [max(FEWEST, int(num_tokens * share ** (i + 1))) for i in range(depth)]
        entering = [num_tokens, *merged[:-1]]
        pruned = [left + (before - left) // 2 for before, left in zip(entering, merged, strict=True)]
        return tuple(pruned), tuple(merged)

    low, high = 0.0, 1.0
    if (least := cost(of_share(low))) > macs:
        raise ValueError(
            f"a budget of {macs / 1e9:.3g} G multiply-adds is too small: {FEWEST} tokens from the first layer on take "
            f"{least / 1e9:.3g} G"
        )
    if cost(of_share(high)) <= macs:
        return of_share(high)
    for _ in range(40):
        share = (low + high) / 2
        low, high = (share, high) if cost(of_share(share)) <= macs else (low, share)
    return of_share(low)


@torch.no_grad()
def search_schedule(model: DiffRate, images: Tensor, proposals: int = 200, seed: int = 0) -> Schedule:
    """Look for a schedule of the same cost whose answers are closer to those of all tokens; the model's is the start.

    Each proposal takes some tokens away earlier or later, or prunes where it merged. It is accepted when the divergence
    of the class probabilities on the images falls and the multiply-adds do not rise. The model takes the schedule.

    Args:
        images: (B, 3, H, W), normalised; a few dozen of the kind that will be classified.
        proposals: forward passes that are spent.
    """
    num_tokens, depth = model.pos_embed.shape[1], len(model.blocks)
    best, budget = model.schedule, schedule_macs(model.schedule, num_tokens, model.embed_dim)
    everything = ((num_tokens,) * depth,) * 2
    generator = torch.Generator().manual_seed(seed)

    def probabilities(schedule: Schedule) -> Tensor:
        model.schedule = schedule
        return model(images).float().log_softmax(dim=-1)

    wanted = probabilities(everything)
    divergence = F.kl_div(probabilities(best), wanted, log_target=True, reduction="batchmean")
    for _ in range(proposals):
        proposed = _changed(best, num_tokens, generator)
        if proposed == best or schedule_macs(proposed, num_tokens, model.embed_dim) > budget:
            continue
        found = F.kl_div(probabilities(proposed), wanted, log_target=True, reduction="batchmean")
        if found < divergence:
            best, divergence = proposed, found
    model.schedule = best
    return best


def _changed(schedule: Schedule, num_tokens: int, generator: torch.Generator) -> Schedule:
    """A neighbour of a schedule: two layers' counts move against each other, or a layer prunes another share."""
    pruned, merged = map(list, schedule)
    first, second, step, share = torch.randint(0, 1 << 20, (4,), generator=generator).tolist()
    first, second, step = first % len(merged), second % len(merged), 1 + step % 8
    merged[first] += step
    merged[second] -= step
    ceiling = num_tokens
    for i, left in enumerate(merged):
        merged[i] = min(max(left, FEWEST), ceiling)
        pruned[i] = min(max(pruned[i], merged[i]), ceiling)
        ceiling = merged[i]
    entering = (num_tokens, *merged)[second]
    pruned[second] = merged[second] + share % (entering - merged[second] + 1)
    return tuple(pruned), tuple(merged)


TITLE = "DiffRate: Differentiable Compression Rate for Efficient Vision Transformers"
PUBLISHED = {  # the authors' own figures
    "small": {"top1": 79.538, "gmacs": 2.905},
    "base": {"top1": 81.498, "gmacs": 11.517},
}
default_cfgs = generate_default_cfgs(
    {
        f"diffrate_deit_{size}_patch16_224.fb_in1k": ModelRecord(
            **full_token_cfg(size, "arXiv:2305.17997", TITLE),
            published=PUBLISHED[size],
            published_note="with the authors' schedule, not this one",
        )
        for size in BUDGETS
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> DiffRate:
    defaults = {"schedule": BUDGETS[size], "pretrained_filter_fn": checkpoint_filter_fn}
    variant = f"diffrate_deit_{size}_patch16_224"
    return build_reducing_model(DiffRate, variant, pretrained, **{**defaults, **DEIT_SIZES[size], **kwargs})


@register_model
def diffrate_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> DiffRate:
    """DiffRate on DeiT-S, untrained: published 79.5 % top-1 at 2.9 G multiply-adds with the authors' schedule."""
    return _create("small", pretrained, **kwargs)


@register_model
def diffrate_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> DiffRate:
    """DiffRate on DeiT-B, untrained: published 81.5 % top-1 at 11.5 G multiply-adds with the authors' schedule."""
    return _create("base", pretrained, **kwargs)
