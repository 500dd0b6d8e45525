"""Segmenters: from pixels to the class of every pixel, and to the regions that the backbone's tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from stvit.segmentation import UperNet, label_map
from stvit.segmentation.score_maps import resize, scaled_hw

from .classifier import Wanted, forward, regions_of_batch
from .device import Compute
from .preprocess import InputGeometry
from .results import SegmentationResult
from .timing import Lap, no_lap

TOKEN_STRIDE = 16  # pixels of the input between image tokens of the third stage


class Segmenter:
    """UperNet on one picture at a time, prepared as :meth:`UperNet.predict` does.

    Args:
        network: in evaluation mode, on its device and in its precision.
        classes: names in the order of its logits, at most 256.
        scale: bounds of the long and the short side of its input, pixels.
        compute: runs it on its device, one caller at a time; by default one of its own.
    """

    def __init__(
        self,
        network: UperNet,
        *,
        classes: Sequence[str],
        scale: tuple[int, int],
        compute: Compute | None = None,
    ) -> None:
        self.network, self.classes, self.scale = network, classes, scale
        self.device = next(network.parameters()).device
        self.compute = compute or Compute(self.device)

    def __call__(
        self,
        pixels: np.ndarray,
        *,
        regions: Wanted = "none",
        labelled_side: int | None = None,
        lap: Lap = no_lap,
    ) -> SegmentationResult:
        """Label every pixel of a picture.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            regions: regions of which layers to return; any costs a pass of the backbone of its own.
            labelled_side: longest side of the map of classes; that of the picture by default. A smaller one takes less
                memory, and is enlarged by repeating its pixels.
            lap: told the steps: ``prepare``, ``regions``, ``backbone``, ``head``, ``labels``.
        """
        return self.compute.run(self._segment, pixels, regions, labelled_side or max(pixels.shape[:2]), lap)

    def _segment(self, pixels: np.ndarray, wanted: Wanted, side: int, lap: Lap) -> SegmentationResult:
        network, source_hw = self.network, pixels.shape[:2]
        images = network.prepare(pixels, self.scale)
        lap("prepare")
        regions = ()
        if wanted != "none":
            (regions,) = regions_of_batch(forward(network.backbone, images, traced=True)[1], 1, wanted)
            lap("regions")
        maps = network.backbone(images)
        lap("backbone")
        input_hw = tuple(images.shape[2:])
        scores = resize(network.head(maps), input_hw).float()
        lap("head")
        labels = label_map(scores, scaled_hw(source_hw, (side, side)))[0].byte().cpu().numpy()
        rows, columns = (np.arange(new) * old // new for new, old in zip(source_hw, labels.shape, strict=True))
        labels = labels.take(rows, axis=0).take(columns, axis=1)
        lap("labels")
        on_grid_hw = tuple(-(-length // TOKEN_STRIDE) * TOKEN_STRIDE for length in input_hw)
        geometry = InputGeometry(source_hw, input_hw, (0, 0), on_grid_hw)
        return SegmentationResult(labels, self.classes, regions, geometry, side)
