"""Segmenters: from pixels to the class of every pixel, and to the regions that the backbone's tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

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
    """UperNet on one picture at a time, prepared as :meth:`UperNet.predict` does.

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
        """Label every pixel of a picture.

        Args:
            pixels: (H, W, 3) uint8 RGB.
            regions: regions of which layers to return; their attention maps are eager's alone.
            labelled_side: longest side of the map of classes; that of the picture by default. A smaller one takes less
                memory, and is enlarged by repeating its pixels.
            lap: told the steps: ``prepare``, ``model``, ``labels``.
        """
        return self.compute.run(self._segment, pixels, regions, labelled_side or max(pixels.shape[:2]), lap)

    def _segment(self, pixels: np.ndarray, wanted: Wanted, side: int, lap: Lap) -> SegmentationResult:
        network, source_hw = self.network, pixels.shape[:2]
        images = network.prepare(pixels, self.scale)
        lap("prepare")
        answer = self.engine(images, wanted)
        input_hw = tuple(images.shape[2:])
        scores = resize(answer.outputs, input_hw).float()
        lap("model")
        labels = label_map(scores, scaled_hw(source_hw, (side, side)))[0].byte().cpu().numpy()
        rows, columns = (np.arange(new) * old // new for new, old in zip(source_hw, labels.shape, strict=True))
        labels = labels.take(rows, axis=0).take(columns, axis=1)
        lap("labels")
        on_grid_hw = tuple(-(-length // TOKEN_STRIDE) * TOKEN_STRIDE for length in input_hw)
        geometry = InputGeometry(source_hw, input_hw, (0, 0), on_grid_hw)
        (regions,) = regions_of_batch(answer.regions, 1)
        return SegmentationResult(labels, self.classes, regions, geometry, side, answer.engine)
