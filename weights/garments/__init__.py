"""Training data that can be had anywhere: Fashion-MNIST garments composed with photographs, every label exact.

The garments come with Debian's package ``dataset-fashion-mnist`` or from torchvision's download (see :mod:`.items`);
the photographs may be any folder of pictures. ``python -m weights.garments preview`` shows what comes out.
"""

from .backgrounds import BackgroundError, Backgrounds, load_backgrounds
from .datasets import MOTIONS, GarmentClassification, GarmentClips, GarmentScenes, Sources, difficulty_of
from .idx import IdxError, read_idx
from .items import CLASS_NAMES, SPLITS, Items, Split, load_items
from .scene_annotations import CATEGORIES, coco_annotations

__all__ = [
    "CATEGORIES",
    "CLASS_NAMES",
    "MOTIONS",
    "SPLITS",
    "BackgroundError",
    "Backgrounds",
    "GarmentClassification",
    "GarmentClips",
    "GarmentScenes",
    "IdxError",
    "Items",
    "Sources",
    "Split",
    "coco_annotations",
    "difficulty_of",
    "load_backgrounds",
    "load_items",
    "read_idx",
]
