"""Detectors: from pixels to objects with masks, and to the regions that the backbone's tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from torch import Tensor

from stvit.class_names import COCO_CLASSES
from stvit.detection import CascadeMaskRCNN
from stvit.detection.detections import Detections
from stvit.detection.detector import TEST_SCALE, TEST_SCORE
from stvit.detection.preprocess import PreparedImage
from stvit.detection.roi_heads import BOX_CELLS, MASK_CELLS, HeadRunners, MaskHeads
from stvit.export.graph import FeaturePyramid

from .device import Compute
from .engines import Engine, Engines
from .engines.backends import Shape
from .preprocess import InputGeometry
from .regions import Wanted, regions_of_batch
from .results import DetectionResult
from .timing import Lap, no_lap


class Detector:
    """Cascade Mask R-CNN on single pictures, or on several of one padded size.

    Four networks run by engines of their own: backbone with feature pyramid, the box heads one after the other, and the
    mask heads together. Only the proposals' head stays in eager PyTorch: it would need a graph for each of its five
    maps, and takes 0.91 of its time in OpenVINO on one core, where box heads take 0.82 and mask heads 0.80.

    Args:
        network: in evaluation mode, on its device and in its precision.
        classes: names of its objects.
        proposals: most regions of a picture that its heads look at; by default the network's own ``num_proposals``,
            which is 1000 in the published detectors. The time of the heads is in proportion to them.
        compute: runs it on its device, one caller at a time; by default one of its own.
        engine: that runs its networks, see :data:`stvit.predict.engines.ENGINES`.
        wait: make graphs before the first answer, instead of in the background.

    Attributes:
        pyramid: runs backbone and feature pyramid alone.
        engine: all that run its networks.

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
        runs_on = {"compute": self.compute, "wait": wait}
        self.pyramid = Engine(FeaturePyramid(network), engine, regions="assignment", **runs_on)
        self._box_heads = [Engine(head, engine, **runs_on) for head in network.roi_head.bbox_head]
        self._mask_heads = Engine(MaskHeads(network.roi_head.mask_head), engine, **runs_on)
        self.engine = Engines(self.pyramid, *self._box_heads, self._mask_heads)

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
        """Detect the objects in a picture (H, W, 3) uint8 RGB; options as of :meth:`detect`."""
        options = {"scale": scale, "least_score": least_score, "regions": regions, "objects": objects, "lap": lap}
        (result,) = self.detect([pixels], **options)
        return result

    def detect(
        self,
        pictures: Sequence[np.ndarray],
        *,
        scale: tuple[int, int] = TEST_SCALE,
        least_score: float = TEST_SCORE,
        regions: Wanted = "none",
        objects: bool = True,
        lap: Lap = no_lap,
    ) -> list[DetectionResult]:
        """Detect the objects in pictures: backbone and feature pyramid run on all at once, the heads on one after the
        other.

        Args:
            pictures: (H, W, 3) uint8 RGB; their padded inputs have one size, see
                :func:`stvit.detection.preprocess.network_sizes`.
            scale: bounds of the long and the short side of the network's input, pixels.
            least_score: lower bound of the scores, exclusive.
            regions: regions of which layers to return; their attention maps are eager's alone.
            objects: whether to look for any, or to run backbone and feature pyramid alone.
            lap: told the steps: ``prepare``, ``backbone``, ``proposals``, ``heads``, ``masks``.
        """
        return self.compute.run(self._detect, pictures, scale, least_score, regions, objects, lap)

    def recall(self, shape: Shape, wanted: Wanted = "none") -> str:
        """Read the graphs that are kept for inputs of a shape (1, 3, H, W), see :meth:`Engine.recall`; returns the
        engine that runs backbone and feature pyramid then."""
        channels = self.network.neck.fpn_convs[0].out_channels
        for engine in self._box_heads:
            engine.recall((self.proposals, channels, BOX_CELLS, BOX_CELLS))
        for objects in (1, 2):  # a single one, and any other number
            self._mask_heads.recall((objects, channels, MASK_CELLS, MASK_CELLS))
        return self.pyramid.recall(shape, wanted)

    def prepare(self, pixels: np.ndarray, scale: tuple[int, int]) -> PreparedImage:
        """A picture as the network sees it, on its device and in its precision."""
        prepared = self.network.prepare(pixels, scale)
        return replace(prepared, images=prepared.images.to(self._precision))

    def _detect(
        self,
        pictures: Sequence[np.ndarray],
        scale: tuple[int, int],
        least_score: float,
        wanted: Wanted,
        objects: bool,
        lap: Lap,
    ) -> list[DetectionResult]:
        prepared = [self.prepare(pixels, scale) for pixels in pictures]
        lap("prepare")
        answer = self.pyramid(torch.cat([one.images for one in prepared]), wanted)
        lap("backbone")
        maps = zip(*(level.split(1) for level in answer.outputs), strict=True)
        results = []
        for one, own, regions in zip(prepared, maps, regions_of_batch(answer.regions, len(prepared)), strict=True):
            found, ran = self._objects(own, one, least_score, lap) if objects else (None, "")
            results.append(DetectionResult(found, regions, geometry_of(one), self.classes, answer.engine, ran))
        return results

    def _objects(
        self, maps: Sequence[Tensor], prepared: PreparedImage, least_score: float, lap: Lap
    ) -> tuple[Detections, str]:
        """The objects in a picture's pyramid, and the names of the engines that ran the heads."""
        ran: set[str] = set()
        found = self.network.detect(maps, prepared, least_score, lap, self.proposals, self._heads(ran))
        return found.cpu(), " and ".join(sorted(ran))

    def _heads(self, ran: set[str]) -> HeadRunners:
        """The heads by their engines; the names of those that answer are added to ``ran``."""

        def run(engine: Engine, crops: Tensor) -> Tensor | tuple[Tensor, ...]:
            answer = engine(crops)
            ran.add(answer.engine)
            return answer.outputs

        return HeadRunners([partial(run, engine) for engine in self._box_heads], partial(run, self._mask_heads))


def geometry_of(prepared: PreparedImage) -> InputGeometry:
    """How a picture became a detector's input."""
    return InputGeometry(prepared.source_hw, prepared.network_hw, (0, 0), tuple(prepared.images.shape[2:]))


def published_scale(short_side: int) -> tuple[int, int]:
    """The longest and the shortest side that the resized picture may have, in the published proportion."""
    long, short = TEST_SCALE
    return round(short_side * long / short), short_side
