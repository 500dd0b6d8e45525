"""Semantic segmentation: UperNet on STViT-R-Swin and on full-token Swin (paper, Table 14)."""

from .inference import SlidingWindow, average_probabilities, label_map, sliding_logits
from .losses import IGNORE_INDEX, segmentation_loss
from .upernet import UperNet

__all__ = [
    "IGNORE_INDEX",
    "SlidingWindow",
    "UperNet",
    "average_probabilities",
    "label_map",
    "segmentation_loss",
    "sliding_logits",
]
