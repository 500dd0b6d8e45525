"""Detectors: from pixels to objects with masks, and to the regions that the backbone's tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from stvit.class_names import COCO_CLASSES
from stvit.detection import CascadeMaskRCNN
from stvit.detection.detector import TEST_SCALE, TEST_SCORE
from stvit.detection.preprocess import PreparedImage
from stvit.export.graph import FeaturePyramid

from .device import Compute
from .engines import Engine
from .preprocess import InputGeometry
from .regions import Wanted, regions_of_batch
from .results import DetectionResult
from .timing import Lap, no_lap


class Detector:
    """Cascade Mask R-CNN on one picture at a time.

    Args:
        network: in evaluation mode, on its device and in its precision.
        classes: names of its objects.
        proposals: most regions of a picture that its heads look at; by default the network's own ``num_proposals``,
            which is 1000 in the published detectors. The time of the heads is in proportion to them.
        compute: runs it on its device, one caller at a time; by default one of its own.
        engine: that runs backbone and feature pyramid, see :data:`stvit.predict.engines.ENGINES`.
        wait: make graphs before the first answer, instead of in the background.

    Attributes:
        engine: runs backbone and feature pyramid alone.

    Raises:
        ValueError: ``proposals`` below 1.
    """

    def __init__(
        self,
        network: CascadeMaskRCNN,
        *,
        classes: Sequence[str] = COCO_CLASSES,
        proposals: int | None = None,
        compute: Compute | None = None,
        engine: str = "eager",
        wait: bool = False,
    ) -> None:
        self.network, self.classes = network, classes
        self.proposals = network.num_proposals if proposals is None else proposals
        if self.proposals < 1:
            raise ValueError(f"proposals={proposals}: choose a whole number from 1 on")
        weight = next(network.parameters())
        self.device, self._precision = weight.device, weight.dtype
        self.compute = compute or Compute(self.device)
        self.engine = Engine(FeaturePyramid(network), engine, regions="assignment", compute=self.compute, wait=wait)

    def __call__(
        self,
        pixels: np.ndarray,
        *,
        scale: tuple[int, int] = TEST_SCALE,
        least_score: float = TEST_SCORE,
        regions: Wanted = "none",
        objects: bool = True,
        lap: Lap = no_lap,
    ) -> DetectionResult:
        """Detect the objects in a picture.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            scale: bounds of the long and the short side of the network's input, pixels.
            least_score: lower bound of the scores, exclusive.
            regions: regions of which layers to return; their attention maps are eager's alone.
            objects: whether to look for any, or to run backbone and feature pyramid alone.
            lap: told the steps: ``prepare``, ``backbone``, ``proposals``, ``heads``, ``masks``.
        """
        return self.compute.run(self._detect, pixels, scale, least_score, regions, objects, lap)

    def prepare(self, pixels: np.ndarray, scale: tuple[int, int]) -> PreparedImage:
        """A picture as the network sees it, on its device and in its precision."""
        prepared = self.network.prepare(pixels, scale)
        return replace(prepared, images=prepared.images.to(self._precision))

    def _detect(
        self,
        pixels: np.ndarray,
        scale: tuple[int, int],
        least_score: float,
        wanted: Wanted,
        objects: bool,
        lap: Lap,
    ) -> DetectionResult:
        network, prepared = self.network, self.prepare(pixels, scale)
        lap("prepare")
        answer = self.engine(prepared.images, wanted)
        lap("backbone")
        found = None
        if objects:
            features = [level.to(self._precision) for level in answer.outputs]
            found = network.detect(features, prepared, least_score, lap, self.proposals).cpu()
        (regions,) = regions_of_batch(answer.regions, 1)
        return DetectionResult(found, regions, geometry_of(prepared), self.classes, answer.engine)


def geometry_of(prepared: PreparedImage) -> InputGeometry:
    """How a picture became a detector's input."""
    return InputGeometry(prepared.source_hw, prepared.network_hw, (0, 0), tuple(prepared.images.shape[2:]))


def published_scale(short_side: int) -> tuple[int, int]:
    """The longest and the shortest side that the resized picture may have, in the published proportion."""
    long, short = TEST_SCALE
    return round(short_side * long / short), short_side
