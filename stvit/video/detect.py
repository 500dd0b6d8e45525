"""Detectors on frames: objects with masks."""

from __future__ import annotations

import time
from collections.abc import Hashable, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stvit.class_names import COCO_CLASSES
from stvit.detection import CascadeMaskRCNN, Detections
from stvit.detection.preprocess import PreparedImage
from stvit.measure.macs import count_macs
from stvit.predict.device import Compute
from stvit.predict.regions import TokenRegions, last_region_layer, region_layers, regions_of

from .types import FrameResult

LEAST_SCORE = 0.3  # what the tracker gets; less sure objects help it to keep an identity
NO_OBJECTS = "no weights: no objects"
BACKBONE = "backbone"


class Detector:
    """Cascade Mask R-CNN on frames, one at a time. Two of them are compared by their backbones: all that comes after is
    the same.

    Args:
        detector: in evaluation mode, on its device and in its precision.
        label: what people call it.
        scale: bounds of the long and the short side of its input, pixels.
        classes: names of its objects.
        predicts: whether it has weights; without, only its backbone is run, and its token regions are shown.
        compute: runs it on its device, one caller at a time; by default one of its own.
    """

    batch_size = 1
    input_key: Hashable = "frame"

    def __init__(
        self,
        detector: CascadeMaskRCNN,
        label: str,
        *,
        scale: tuple[int, int],
        classes: Sequence[str] = COCO_CLASSES,
        predicts: bool = True,
        compute: Compute | None = None,
    ) -> None:
        self._detector, self._scale, self._classes = detector, scale, classes
        self.label, self._predicts = label, predicts
        weight = next(detector.parameters())
        self._device, self._precision = weight.device, weight.dtype
        self._compute = compute or Compute(self._device)
        self.note = "" if predicts else NO_OBJECTS
        self.macs = 0
        self._warm = False

    def begin(self, frame_hw: tuple[int, int]) -> None:
        prepared = self._detector.prepare(np.zeros((*frame_hw, 3), np.uint8), self._scale)
        self.macs = count_macs(self._detector.backbone, tuple(prepared.images.shape[1:]))

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def infer(self, batch: list[np.ndarray], *, compared: bool = False) -> list[FrameResult]:
        return [self._compute.run(self._judge, pixels, compared) for pixels in batch]

    def _judge(self, pixels: np.ndarray, compared: bool) -> FrameResult:
        prepared = self._detector.prepare(pixels, self._scale)
        prepared = replace(prepared, images=prepared.images.to(self._precision))
        if not self._warm:
            self._detector.extract_features(prepared.images)
            self._warm = True
        start = self._now()
        features = self._detector.extract_features(prepared.images)
        backbone_ms = (self._now() - start) * 1e3
        found = self._find(features, prepared) if self._predicts else None
        model_ms = (self._now() - start) * 1e3
        regions = None if self._predicts else self._regions(prepared)
        return FrameResult(
            model_ms,
            backbone_ms if compared else model_ms,
            found=found,
            regions=regions,
            regions_xyxy=self._grid_xyxy(prepared),
            names=self._classes,
            paced_part=BACKBONE if compared else "",
            counted_part=BACKBONE,
        )

    def _find(self, features: tuple[Tensor, ...], prepared: PreparedImage) -> Detections:
        proposals = self._detector.propose(features, prepared.network_hw)
        boxes, scores, labels = self._detector.classify(features, proposals, prepared, LEAST_SCORE)
        masks = self._detector.segment(features, boxes, labels, prepared)
        tensors = (boxes.cpu(), scores.cpu(), labels.cpu(), masks.float().cpu())
        return Detections(*tensors, prepared.source_hw)

    def _regions(self, prepared: PreparedImage) -> TokenRegions | None:
        _, trace = self._detector.backbone(prepared.images, return_trace=True)
        layer = last_region_layer(region_layers(trace))
        return None if layer is None else regions_of(layer)[0]

    @staticmethod
    def _grid_xyxy(prepared: PreparedImage) -> tuple[float, float, float, float]:
        """Where the padded input lies, in pixels of the frame."""
        height, width = prepared.images.shape[2:]
        x, y = prepared.scale_factors.tolist()[:2]
        return 0.0, 0.0, width / x, height / y

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()
