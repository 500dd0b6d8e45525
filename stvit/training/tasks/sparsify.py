"""Training sparsified networks, with the original as teacher; see ``docs/sparsify.md``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from pydantic import Field
from timm.models._hub import save_config_for_hf
from timm.models._input import get_model_args
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.checkpoint import load_checkpoint
from stvit.errors import UserError
from stvit.factory import create_model
from stvit.measure.macs import count_macs
from stvit.predict.preprocess import Preprocessing
from stvit.pretrained.model_cards import load_card
from stvit.sparsify.convert import OPTIONS, REGISTERED, sparsify
from stvit.training.checkpoints import read_metrics
from stvit.training.datasets.classification import FolderPictures, ShardPictures, UnlabelledPictures
from stvit.training.recipe import DataPaths, Recipe, RecipeError, Table, read_table

from .classify import ClassifyTask

KINDS = {"folder": FolderPictures, "shards": ShardPictures, "pictures": UnlabelledPictures}


class SparsifyLoss(Table):
    """The recipe's ``loss``.

    Attributes:
        features: weight of the distance to the features that the semantic tokens replace.
        freeze_epochs: how long the layers before the STGM stay as they are; may be a fraction.
    """

    features: float = Field(1.0, ge=0)
    freeze_epochs: float = Field(0.0, ge=0)


class Outputs(NamedTuple):
    """Of one network: tokens after the last norm, pooled features (B, C), and logits (B, classes)."""

    tokens: Tensor
    pooled: Tensor
    logits: Tensor


class SparsifyTask(ClassifyTask):
    """A network of timm, sparsified, learns from the original and, where there are any, from labels.

    ``model_options`` of the recipe are ``of``, the name of the original, its options, and those of
    :func:`stvit.sparsify.convert.sparsify`. The original's weights are at the data path ``original``, a checkpoint or
    the card (.json) of a trained model, which brings ``of`` and the options; without it, they are the published ones.
    A run begins from its sparsified copy, or from the data path ``start``, the weights of a run before.

    Data of the kinds of classifiers, or ``pictures`` without labels: then it learns from the original alone.
    """

    kinds = KINDS
    may_skip_parameters = True  # those of frozen layers
    starts_trained = True

    def __init__(self, recipe: Recipe, paths: DataPaths) -> None:
        if recipe.model != REGISTERED:
            raise RecipeError(f"a recipe to sparsify has model = {REGISTERED!r}, not {recipe.model!r}")
        self.sparsifying = {name: recipe.model_options[name] for name in OPTIONS if name in recipe.model_options}
        self.original, options, classes = read_original(recipe, paths)
        self.loss = read_table(SparsifyLoss, recipe.loss, "loss")
        data = recipe.data
        if data["kind"] in KINDS:  # as the original saw its pictures
            seen = Preprocessing.of(self.original.pretrained_cfg)
            data = {"mean": seen.mean, "std": seen.std, **data}
        if data["kind"] == "pictures":  # of a recipe for labels that was changed
            data.pop("classes", None)
        super().__init__(recipe.model_copy(update={"model_options": options | self.sparsifying, "data": data}), paths)
        self.labelled = bool(self.data.num_classes)
        if not self.labelled:
            self.data.class_names = classes
        side = getattr(self.original.patch_embed, "img_size", None)
        if side and not getattr(self.original, "dynamic_img_size", False) and {*side} != {self.data.size}:
            made_for = f"the original was made for {side[0]}x{side[1]} pixels"
            square = side[0] == side[1]
            raise RecipeError(f"{made_for}: set data.size={side[0]}" if square else f"{made_for}, data are square")

    def expected_classes(self) -> int:
        """Those of the original; none are expected of data without labels."""
        return self.original.num_classes if self.data.num_classes else 0

    def trained(self, role: Literal["start", "teacher"]) -> nn.Module:
        """The original, whatever the recipe's table of this role says."""
        return self.original

    def build_model(self) -> nn.Module:
        """The sparsified original.

        Raises:
            RecipeError: the recipe names no teacher.
        """
        if self.recipe.teacher is None:
            raise RecipeError("a recipe to sparsify has a teacher, the original")
        model = sparsify(self.original, **self.sparsifying).requires_grad_(True)
        if start := self.paths.get("start"):
            load_checkpoint(model, start)
        return model

    def before_step(self, model: nn.Module, epoch: float) -> None:
        """Freeze the first layers, or let them learn."""
        model.frozen_start = epoch < self.loss.freeze_epochs

    def losses(self, model: nn.Module, batch: Any) -> dict[str, Tensor]:
        """Distance to the original's features, divergence from its probabilities and, with labels, cross-entropy."""
        images, labels = batch
        if self.mixup is not None:
            images, labels = self.mixup(images, labels)
        ours = outputs_of(model, images)
        with torch.no_grad():
            theirs = outputs_of(self.teacher, images)
        terms = {"features": self.loss.features * feature_distance(model, ours, theirs, self._grid(images))}
        weight = self.recipe.teacher.weight
        if model.num_classes:
            terms["distillation"] = weight * self.divergence(ours.logits.float(), theirs.logits.float())
        if self.labelled:
            terms["cross_entropy"] = (1 - weight) * self.entropy(ours.logits.float(), labels)
        return terms

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return tuple(self.original.patch_embed.dynamic_feat_size(tuple(images.shape[-2:])))

    def evaluate(
        self, model: nn.Module, batches: Iterator[Any], accelerator: Accelerator, split: str = "validation"
    ) -> dict[str, float]:
        """``cosine``, mean similarity of pooled features to the original's; with labels, what classifiers have, and the
        original's ``original_top1``."""
        sums = torch.zeros(6, device=accelerator.device)
        self.original.to(accelerator.device)
        for images, labels in batches:
            images, labels = images.to(accelerator.device), labels.to(accelerator.device)
            ours, theirs = outputs_of(model, images), outputs_of(self.original, images)
            cosine = F.cosine_similarity(ours.pooled.float(), theirs.pooled.float()).sum()
            scores, reference = ours.logits.new_zeros(4), ours.logits.new_zeros(4)
            if self.labelled:
                scores, reference = (self.score(one.logits.float(), labels) for one in (ours, theirs))
            scores[3] = len(labels)
            sums += torch.stack([*scores, reference[0], cosine])
        *scores, reference, cosine = accelerator.reduce(sums, reduction="sum")
        found = {"cosine": float(cosine / scores[3])}
        if self.labelled:
            found |= self.metrics(torch.stack(scores)) | {"original_top1": float(100 * reference / scores[3])}
        return found

    def finish(self, model: nn.Module, output: Path) -> None:
        """Leave timm's config beside the weights, and print what the run reached."""
        save_config_for_hf(model, str(output / "config.json"), {"label_names": list(self.data.class_names)})
        print(report(read_metrics(output), self.costs(model), self.recipe.batch_size))

    def costs(self, model: nn.Module) -> tuple[int, int]:
        """Multiply-adds of the original and of the model."""
        shape = (self.original.in_chans, self.data.size, self.data.size)
        return count_macs(self.original, shape), count_macs(model, shape)


def read_original(recipe: Recipe, paths: DataPaths) -> tuple[nn.Module, dict[str, Any], tuple[str, ...]]:
    """The trained network to sparsify; the arguments that build it, ``of`` among them: those of its card, and the
    recipe's in their place; and the classes of the card.

    Raises:
        RecipeError: neither the recipe nor a card names it, or its options or published weights cannot be used.
        UserError: its weights cannot be read, or are of another network.
    """
    weights = paths.get("original")
    options = {name: value for name, value in recipe.model_options.items() if name not in OPTIONS}
    of, classes = options.pop("of", None), ()
    if weights is not None and weights.suffix == ".json":
        network, card = load_card(weights, **options)
        of, options, classes = card.model, card.options, card.classes
    elif isinstance(of, str):
        network = _of_timm(of, weights, options)
    else:
        raise RecipeError("model_options.of names no network of timm to sparsify")
    return network.requires_grad_(False), {**get_model_args(network), "of": of, **options}, classes


def _of_timm(name: str, weights: Path | None, options: dict[str, Any]) -> nn.Module:
    try:
        return create_model(name, weights, pretrained=weights is None, **options)
    except UserError:
        raise
    except (OSError, RuntimeError, TypeError) as error:  # timm's downloads, and arguments that it does not know
        raise RecipeError(f"{name} cannot be built with its weights: {error}") from error


def outputs_of(network: nn.Module, images: Tensor) -> Outputs:
    """Tokens, pooled features and logits of one pass."""
    tokens = network.forward_features(images)
    return Outputs(tokens, network.forward_head(tokens, pre_logits=True), network.forward_head(tokens))


def feature_distance(model: nn.Module, ours: Outputs, theirs: Outputs, grid_hw: tuple[int, int]) -> Tensor:
    """Mean cosine distance of prefix tokens, of semantic tokens to the original's image tokens in the same bins, and of
    pooled features; every kind counts as much as the others.

    Args:
        model: the sparsified network.
        ours, theirs: of it and of the original.
        grid_hw: rows and columns of the original's image tokens, of networks without a token map.
    """
    pairs = [(ours.pooled, theirs.pooled)]
    if ours.tokens.ndim == 4:  # Swin
        pairs.append((ours.tokens, bin_means(theirs.tokens, tuple(ours.tokens.shape[1:3]))))
    else:
        prefix = model.num_prefix_tokens
        image_map = theirs.tokens[:, prefix:].unflatten(1, grid_hw)
        pairs.append((ours.tokens[:, prefix:], bin_means(image_map, model.semantic_grid_hw).flatten(1, 2)))
        if prefix:
            pairs.append((ours.tokens[:, :prefix], theirs.tokens[:, :prefix]))
    distances = [1 - F.cosine_similarity(own.float(), other.float(), dim=-1).mean() for own, other in pairs]
    return torch.stack(distances).mean()


def bin_means(token_map: Tensor, bins_hw: tuple[int, int]) -> Tensor:
    """(B, H, W, C) -> (B, h, w, C), means over adaptive bins."""
    return F.adaptive_avg_pool2d(token_map.permute(0, 3, 1, 2), bins_hw).permute(0, 2, 3, 1)


def report(lines: list[dict[str, Any]], macs: tuple[int, int], batch_size: int) -> str:
    """What a run reached, as text: the original, the copy before training and after every epoch, and how to go on.

    Args:
        lines: of the run's log.
        macs: multiply-adds of the original and of the model.
        batch_size: samples of a step.
    """
    evaluations = [line for line in lines if "evaluation" in line]
    labelled = "top1" in evaluations[0]["evaluation"]
    figure = "top-1 (%)" if labelled else "cosine"
    table = [f"{'':22} {figure:>10} {'cosine to the original':>23} {'G multiply-adds':>16} {'minutes':>8}"]

    def row(name: str, value: float, cosine: float, cost: int, seconds: float) -> str:
        shown = f"{value:.2f}" if labelled else f"{value:.4f}"
        return f"{name:22} {shown:>10} {cosine:23.4f} {cost / 1e9:16.3f} {seconds / 60:8.1f}"

    first = evaluations[0]["evaluation"]
    table.append(row("the original", first.get("original_top1", 1.0), 1.0, macs[0], 0.0))
    seconds, step = 0.0, 0
    for line in lines:
        if "samples_per_second" in line:
            seconds += (line["step"] - step) * batch_size / max(line["samples_per_second"], 0.1)
            step = line["step"]
        if "evaluation" not in line:
            continue
        found = line["evaluation"]
        name = f"after epoch {line['epoch']:g}" if line["step"] else "before training"
        table.append(row(name, found["top1"] if labelled else found["cosine"], found["cosine"], macs[1], seconds))
    table.append("To go on: the same command with another --output and --data start=OUTPUT/model.safetensors.")
    return "\n".join(table)
