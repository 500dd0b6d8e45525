"""Segmenters: from pixels to the class of every pixel, and to the regions that the backbone's tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stvit.export.graph import PixelScores
from stvit.segmentation import UperNet, label_map
from stvit.segmentation.score_maps import resize, scaled_hw

from .device import Compute
from .engines import Engine
from .preprocess import InputGeometry
from .regions import Wanted, regions_of_batch
from .results import SegmentationResult
from .timing import Lap, no_lap

TOKEN_STRIDE = 16  # pixels of the input between image tokens of the third stage


class Segmenter:
    """UperNet on single pictures, or on several whose inputs have one size, prepared as :meth:`UperNet.predict` does.

    Args:
        network: in evaluation mode, on its device and in its precision.
        classes: names in the order of its logits, at most 256.
        scale: bounds of the long and the short side of its input, pixels.
        compute: runs it on its device, one caller at a time; by default one of its own.
        engine: that runs backbone and head, see :data:`stvit.predict.engines.ENGINES`.
        wait: make graphs before the first answer, instead of in the background.

    Attributes:
        engine: runs backbone and head alone.
    """

    def __init__(
        self,
        network: UperNet,
        *,
        classes: Sequence[str],
        scale: tuple[int, int],
        compute: Compute | None = None,
        engine: str = "eager",
        wait: bool = False,
    ) -> None:
        self.network, self.classes, self.scale = network, classes, scale
        self.device = next(network.parameters()).device
        self.compute = compute or Compute(self.device)
        self.engine = Engine(PixelScores(network), engine, regions="assignment", compute=self.compute, wait=wait)

    def __call__(
        self,
        pixels: np.ndarray,
        *,
        regions: Wanted = "none",
        labelled_side: int | None = None,
        lap: Lap = no_lap,
    ) -> SegmentationResult:
        """Label every pixel of a picture (H, W, 3) uint8 RGB; options as of :meth:`segment`."""
        (result,) = self.segment([pixels], regions=regions, labelled_side=labelled_side, lap=lap)
        return result

    def segment(
        self,
        pictures: Sequence[np.ndarray],
        *,
        regions: Wanted = "none",
        labelled_side: int | None = None,
        lap: Lap = no_lap,
    ) -> list[SegmentationResult]:
        """Label every pixel of pictures, backbone and head on all at once.

        Args:
            pictures: (H, W, 3) uint8 RGB; their inputs have one size, see :meth:`input_hw`.
            regions: regions of which layers to return; their attention maps are eager's alone.
            labelled_side: longest side of the map of classes; that of the picture by default. A smaller one takes less
                memory, and is enlarged by repeating its pixels.
            lap: told the steps: ``prepare``, ``model``, ``labels``.
        """
        return self.compute.run(self._segment, pictures, regions, labelled_side, lap)

    def input_hw(self, source_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of the network's input for a picture of some size."""
        return scaled_hw(source_hw, self.scale)

    def _segment(
        self, pictures: Sequence[np.ndarray], wanted: Wanted, labelled_side: int | None, lap: Lap
    ) -> list[SegmentationResult]:
        images = torch.cat([self.network.prepare(pixels, self.scale) for pixels in pictures])
        lap("prepare")
        answer = self.engine(images, wanted)
        input_hw = tuple(images.shape[2:])
        scores = resize(answer.outputs, input_hw).float()
        lap("model")
        results = []
        for pixels, own, regions in zip(
            pictures, scores.split(1), regions_of_batch(answer.regions, len(pictures)), strict=True
        ):
            source_hw, side = pixels.shape[:2], labelled_side or max(pixels.shape[:2])
            on_grid_hw = tuple(-(-length // TOKEN_STRIDE) * TOKEN_STRIDE for length in input_hw)
            geometry = InputGeometry(source_hw, input_hw, (0, 0), on_grid_hw)
            labels = _labels(own, source_hw, side)
            results.append(SegmentationResult(labels, self.classes, regions, geometry, side, answer.engine))
        lap("labels")
        return results


def _labels(scores: Tensor, source_hw: tuple[int, int], side: int) -> np.ndarray:
    """Scores (1, K, h, w) -> the class of every pixel of the picture, (H, W) uint8."""
    labels = label_map(scores, scaled_hw(source_hw, (side, side)))[0].byte().cpu().numpy()
    rows, columns = (np.arange(new) * old // new for new, old in zip(source_hw, labels.shape, strict=True))
    return labels.take(rows, axis=0).take(columns, axis=1)
