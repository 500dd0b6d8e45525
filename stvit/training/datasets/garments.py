"""What the data sets of garments have in common: their sources, and other samples in every epoch."""

from __future__ import annotations

from typing import Any

from stvit.training.recipe import Recipe
from stvit.training.tasks.task import MapData, Places
from weights.garments import SPLITS, Sources, difficulty_of
from weights.garments.items import DEBIAN_FOLDER


class GarmentData(MapData):
    """Garments on photographs; needs the place ``backgrounds`` and perhaps ``items``.

    Options: ``size``; ``train_samples`` in an epoch, ``validation_samples`` and ``test_samples``, by default as many as
    there are garments; ``curriculum``, the difficulties of the first epochs.
    """

    def __init__(self, recipe: Recipe, places: Places) -> None:
        self.size: int = recipe.data["size"]
        self.curriculum = recipe.data.get("curriculum", ())
        self.lengths = {split: recipe.data.get(f"{split}_samples") for split in SPLITS}
        photos, items = places.need("backgrounds"), places.get("items") or DEBIAN_FOLDER
        self.sources = {split: Sources.load(photos, split, items) for split in SPLITS}

    def samples(self, split: str, epoch: int) -> dict[str, Any]:
        """Which samples: the arguments of the data sets in :mod:`weights.garments` that depend on the epoch."""
        which: dict[str, Any] = {"length": self.lengths[split]}
        if split == "train":
            which |= {"seed": epoch, "difficulty": difficulty_of(epoch, self.curriculum)}
        return which
