"""``python -m weights.garments.scope --backgrounds DIR``: teach the bundled classifiers of garments what is none.

Fits the row of :class:`stvit.pretrained.scope.ScopeRow` for every one, on garments and photographs of the training
split, and writes it into its card with what it refuses and accepts of those held out. Of the photographs, the row alone
is kept. Bundling a model anew drops its row.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.errors import UserError
from stvit.predict.preprocess import Preprocessing
from stvit.pretrained.model_cards import BundledCard, BundledModels, load_card, write_card
from stvit.pretrained.scope import ScopeRow

from .bundle import FOLDER
from .compose import Draws, draw_background, to_uint8
from .datasets import GarmentClassification
from .sources import DEBIAN_FOLDER, SPLITS, Sources

GARMENTS = {"train": 3000, "validation": 1500, "test": 1500}
CROPS = 1500  # of photographs, as garments are seen on
REFUSED = 0.05  # of the validation split's garments: what the threshold may cost
DECAY = 1e-3  # of the squared weights, features standardised
STEPS = 200
BATCH = 100
STREAM = 77  # of random numbers, see Draws
DIGITS = 5


@dataclass(frozen=True)
class Samples:
    """Pictures of the garments that a classifier knows and of nothing that it knows, (N, 3, S, S) uint8; or the
    features (N, C) that it makes of them.

    Attributes:
        train, validation, test: garments by split.
        whole, crops: photographs of the training split as a visitor sends them, and parts of them.
        held_out: whole photographs of the other splits.
    """

    train: Tensor
    validation: Tensor
    test: Tensor
    whole: Tensor
    crops: Tensor
    held_out: Tensor


def compose(sources: dict[str, Sources], preprocessing: Preprocessing) -> Samples:
    """Compose the garments and prepare the photographs as a classifier takes them."""
    side = preprocessing.input_size
    photos = {split: source.backgrounds.photos for split, source in sources.items()}
    known = {split: GarmentClassification(sources[split], side, length=length) for split, length in GARMENTS.items()}
    parts = (draw_background(photos["train"], (side, side), Draws(0, STREAM, index)) for index in range(CROPS))
    whole = _prepared(photos["train"], preprocessing)
    return Samples(
        **{split: torch.stack([pictures[i][0] for i in range(len(pictures))]) for split, pictures in known.items()},
        whole=torch.cat([whole, whole.flip(-1)]),
        crops=torch.stack(list(map(to_uint8, parts))),
        held_out=_prepared([*photos["validation"], *photos["test"]], preprocessing),
    )


def _prepared(photos: Sequence[Tensor], preprocessing: Preprocessing) -> Tensor:
    return torch.stack([preprocessing.resize(photo.permute(1, 2, 0).numpy()) for photo in photos])


@torch.no_grad()
def features(network: nn.Module, pictures: Samples, preprocessing: Preprocessing) -> Samples:
    """Return what the last layer of a classifier takes, for all pictures."""

    def of(images: Tensor) -> Tensor:
        parts = map(preprocessing.normalise, images.split(BATCH))
        return torch.cat([network.forward_head(network.forward_features(part), pre_logits=True) for part in parts])

    return Samples(**{name: of(images) for name, images in vars(pictures).items()})


def fit(found: Samples) -> ScopeRow:
    """Fit the row of a classifier to its features by logistic regression, with a threshold that ``REFUSED`` of the
    validation split's garments are below; measure it on what was held out."""
    weight, bias = logistic_row(found.train, [found.whole, found.crops])
    bias = bias - (found.validation @ weight + bias).quantile(REFUSED)
    below, above = found.test @ weight + bias < 0, found.held_out @ weight + bias >= 0
    return ScopeRow(
        weight=tuple(float(f"{value:.{DIGITS}g}") for value in weight.tolist()),
        bias=float(f"{bias.item():.{DIGITS}g}"),
        refused=round(100 * below.float().mean().item(), 1),
        known_samples=len(below),
        accepted=round(100 * above.float().mean().item(), 1),
        other_samples=len(above),
        measured_on="garments of the test split, and photographs without garments that were held out",
    )


def logistic_row(known: Tensor, others: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Fit weight (C,) and bias () that score ``known`` features (N, C) above 0 and others below; the known count as
    much as all others, and each group of those the same."""
    every = torch.cat([known, *others])
    mean, deviation = every.mean(0), every.std(0) + 1e-6
    weights = torch.full((len(every),), 0.5 / len(known))
    weights[len(known) :] = torch.cat([torch.full((len(one),), 0.5 / len(others) / len(one)) for one in others])
    wanted = torch.cat([torch.ones(len(known)), torch.zeros(len(every) - len(known))])
    inputs, row = (every - mean) / deviation, torch.zeros(every.shape[1] + 1, requires_grad=True)
    optimizer = torch.optim.LBFGS([row], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        errors = F.binary_cross_entropy_with_logits(inputs @ row[:-1] + row[-1], wanted, weights, reduction="sum")
        (total := errors + DECAY * row[:-1].square().sum()).backward()
        return total

    optimizer.step(loss)
    weight = row[:-1].detach() / deviation
    return weight, row[-1].detach() - weight @ mean


def teach(card: BundledCard, sources: dict[str, Sources]) -> BundledCard:
    """Fit the row of a bundled classifier and write it into its card; returns the card."""
    path = card.path.with_suffix(".json")
    network, _ = load_card(path)
    preprocessing = Preprocessing.of(network.pretrained_cfg)
    row = fit(features(network, compose(sources, preprocessing), preprocessing))
    entries = json.loads(path.read_text(encoding="utf-8"))
    return write_card(card.path, {**entries, "scope": row.model_dump()}, BundledCard)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m weights.garments.scope", description=__doc__)
    parser.add_argument("--backgrounds", type=Path, required=True, help="folder of photographs without garments")
    parser.add_argument("--items", type=Path, default=Path(DEBIAN_FOLDER), help="folder of Fashion-MNIST's files")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of the cards (default: weights/bundled)")
    options = parser.parse_args(arguments)
    try:
        sources = {split: Sources.load(options.backgrounds, split, options.items) for split in SPLITS}
        for card in BundledModels(options.folder).of_task("classify"):
            scope = teach(card, sources).scope
            print(f"{card.name}: refuses {scope.refused} % of garments, accepts {scope.accepted} % of photographs")
    except UserError as error:
        print(f"weights.garments.scope: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
