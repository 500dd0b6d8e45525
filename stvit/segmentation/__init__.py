"""Semantic segmentation: UperNet on STViT-R-Swin and on full-token Swin (paper, Table 14)."""

from .score_maps import IGNORE_INDEX, SlidingWindow, average_probabilities, label_map, segmentation_loss, sliding_logits
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
