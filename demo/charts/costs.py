"""Where the multiply-adds of two models go, layer by layer, as HTML that style.css colours in light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from html import escape
from itertools import groupby

import timm
import torch

import stvit
from demo.registry import ModelSpec
from stvit.measure.macs import LayerCost, Part, macs_by_layer, macs_by_part


@dataclass(frozen=True)
class CostOfModel:
    """Multiply-adds of a model for one image.

    Attributes:
        layers: what each layer spends, in order of execution.
        macs_as_published: the sum counted the papers' way.
    """

    layers: tuple[LayerCost, ...]
    macs_as_published: int

    @property
    def macs(self) -> int:
        """The sum that this implementation computes."""
        return sum(layer.macs for layer in self.layers)

    def token_counts(self) -> tuple[int, ...]:
        """Tokens of the layers, repetitions left out: (196, 16) for STViT-DeiT with 16 tokens."""
        counted = (layer.tokens for layer in self.layers if layer.tokens is not None)
        return tuple(tokens for tokens, _ in groupby(counted))


@lru_cache(maxsize=128)
def cost_of(spec: ModelSpec) -> CostOfModel:
    """Count the multiply-adds of a classifier, without weights."""
    with torch.device("meta"):
        network = timm.create_model(spec.model, **spec.options)
    shape = (3, spec.input_size, spec.input_size)
    return CostOfModel(merge_head(macs_by_layer(network, shape)), stvit.count_macs(network, shape, as_published=True))


def merge_head(layers: Sequence[LayerCost]) -> tuple[LayerCost, ...]:
    """Make one entry of norm and classifiers: apart they are too small to see."""
    body = tuple(layer for layer in layers if layer.part != "head")
    head = sum(layer.macs for layer in layers if layer.part == "head")
    return (*body, LayerCost("head", "head", head, None))


def breakdown(model: ModelSpec, baseline: ModelSpec) -> str:
    """Draw both models on one scale: a column for each layer, the tokens that it works on beneath, a table of the
    parts."""
    costs = cost_of(model), cost_of(baseline)
    tallest = max(layer.macs for cost in costs for layer in cost.layers)
    most = max(max(cost.token_counts()) for cost in costs)
    lanes = "".join(
        _lane(spec.label, side, cost, tallest, most)
        for spec, side, cost in zip((model, baseline), ("ours", "base"), costs, strict=True)
    )
    parts = [macs_by_part(cost.layers) for cost in costs]
    used = [part for part in parts[0] if parts[0][part] or parts[1][part]]
    return (
        f'<div class="card breakdown"><h4>Where the multiply-adds go</h4><div class="lanes">{lanes}</div>'
        f'<details><summary>By part</summary><p class="fine">Column height: multiply-adds of one layer, both models on '
        f"one scale. Steps beneath: tokens that the layer's feed-forward network processes, drawn by the side of "
        f"their grid.</p>{_table((model.label, baseline.label), used, parts, costs)}</details></div>"
    )


def _lane(label: str, side: str, cost: CostOfModel, tallest: int, most_tokens: int) -> str:
    columns = "".join(
        f'<i class="part {_slug(layer.part)}" style="--part:{layer.macs / tallest:.4f}" '
        f'title="{escape(_layer_words(number, layer))}"></i>'
        for number, layer in enumerate(cost.layers, start=1)
    )
    steps = "".join(
        _step(tokens, len(list(run)), most_tokens) for tokens, run in groupby(cost.layers, lambda layer: layer.tokens)
    )
    words = " → ".join(map(str, cost.token_counts()))
    return (
        f'<section class="lane" style="--columns:{len(cost.layers)}"><header><i class="dot {side}"></i>'
        f"<b>{escape(label)}</b><strong>{giga(cost.macs)} G</strong>{_as_published(cost)}</header>"
        f'<div class="columns" role="img" aria-label="Multiply-adds of {len(cost.layers)} layers of {escape(label)}">'
        f'{columns}</div><div class="steps" aria-hidden="true">{steps}</div>'
        f'<p class="tokens">Tokens: <b>{words}</b></p></section>'
    )


def _as_published(cost: CostOfModel) -> str:
    """The paper's count, where it says something else."""
    if giga(cost.macs) == giga(cost.macs_as_published):
        return ""
    return f"<small>counted the paper's way: {giga(cost.macs_as_published)} G</small>"


def _step(tokens: int | None, columns: int, most_tokens: int) -> str:
    if tokens is None:
        return f'<span style="--span:{columns}"></span>'
    height = (tokens / most_tokens) ** 0.5
    return f'<span style="--span:{columns}"><i style="--share:{height:.3f}"></i><b>{tokens}</b></span>'


def _layer_words(number: int, layer: LayerCost) -> str:
    tokens = "" if layer.tokens is None else f", {layer.tokens} tokens"
    return f"{number}. {layer.name} ({layer.part}{tokens}): {layer.macs / 1e9:.3f} G"


def _table(labels: Sequence[str], used: Sequence[Part], parts: Sequence[dict], costs: Sequence[CostOfModel]) -> str:
    heads = "".join(f'<th scope="col">{escape(label)}</th>' for label in labels)
    rows = "".join(
        f'<tr><th scope="row"><i class="part {_slug(part)}"></i>{part}</th>'
        + "".join(f"<td>{_share(spent[part], cost.macs)}</td>" for spent, cost in zip(parts, costs, strict=True))
        + "</tr>"
        for part in used
    )
    total = "".join(f"<td>{giga(cost.macs)} G</td>" for cost in costs)
    return (
        f'<div class="scroll"><table><caption>Multiply-adds by part</caption><thead><tr><th></th>{heads}</tr></thead>'
        f'<tbody>{rows}<tr class="total"><th scope="row">all</th>{total}</tr></tbody></table></div>'
    )


def _share(macs: int, of: int) -> str:
    return f"{giga(macs)} G <small>{macs / of:.0%}</small>" if macs else "<small>none</small>"


def _slug(part: str) -> str:
    return part.lower().replace(" ", "-")


def giga(macs: int) -> str:
    """Write multiply-adds in units of 10^9, without a false 0."""
    return f"{macs / 1e9:.2f}" if macs >= 5e6 else "< 0.01"
