"""COCO detection and instance segmentation: Cascade Mask R-CNN on dense STViT-R (paper, section 4.3 and Table 5)."""

from .detections import Detections
from .detector import CascadeMaskRCNN

__all__ = ["CascadeMaskRCNN", "Detections"]
