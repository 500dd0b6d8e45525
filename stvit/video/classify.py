"""Classifiers on frames: the best class, and the regions that their tokens stand for."""

from __future__ import annotations

import inspect
import time
from collections.abc import Hashable, Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import ImageNetInfo
from torch import Tensor, nn

from stvit.measure.macs import count_macs
from stvit.predict.device import Compute
from stvit.predict.regions import TokenRegions, last_region_layer, region_layers, regions_of
from stvit.trace import TokenTrace

from .types import FrameResult

BATCH_OF_CORE, LARGEST_BATCH = 8, 32
BATCH_OF_CORE_NARROW, NARROW = 16, 5_000_000  # where Python takes its time too: models with fewer parameters than this
NO_PREDICTIONS = "no weights: no predictions"


class Classifier:
    """A classifier on frames.

    Args:
        network: in evaluation mode, on its device and in its precision; (B, 3, H, W) -> (B, classes).
        label: what people call it.
        classes: names, in the order of its logits; by default those of ImageNet.
        input_size: side of its square input, pixels; by default what the network's ``pretrained_cfg`` says.
        crop_pct: share of a frame's shorter side that it sees; likewise.
        predicts: whether it has weights; without, it is run, but says nothing.
        regions: whether to find out which regions its tokens stand for; costs the attention maps.
        compute: runs it on its device, one caller at a time; by default one of its own.
        batch_size: frames at once; by default what suits the device.
    """

    def __init__(
        self,
        network: nn.Module,
        label: str,
        *,
        classes: Sequence[str] | None = None,
        input_size: int | None = None,
        crop_pct: float | None = None,
        predicts: bool = True,
        regions: bool = False,
        compute: Compute | None = None,
        batch_size: int | None = None,
    ) -> None:
        self._network, self.label = network, label
        self._classes = imagenet_classes() if classes is None else classes
        seen = network.pretrained_cfg
        self._input_size, self._crop_pct = input_size or seen["input_size"][-1], crop_pct or seen["crop_pct"]
        self.input_key: Hashable = (Classifier, self._input_size, self._crop_pct)
        self._predicts = predicts
        self._traced = regions and "return_trace" in inspect.signature(network.forward).parameters
        weight = next(network.parameters())
        self._device, self._precision = weight.device, weight.dtype
        self._compute = compute or Compute(self._device)
        narrow = sum(parameter.numel() for parameter in network.parameters()) < NARROW
        of_core = BATCH_OF_CORE_NARROW if narrow else BATCH_OF_CORE
        of_device = LARGEST_BATCH if self._device.type == "cuda" else of_core * self._compute.lanes
        self.batch_size = batch_size or min(of_device, LARGEST_BATCH)
        self.note = "" if predicts else NO_PREDICTIONS
        self.macs = 0
        mean, std = (torch.tensor(seen[key], device=self._device) for key in ("mean", "std"))
        self._mean, self._std = mean.view(3, 1, 1) * 255, std.view(3, 1, 1) * 255
        self._square, self._box_xyxy = np.s_[:, :], (0.0, 0.0, 1.0, 1.0)  # in a frame, from ``begin`` on
        self._warm: set[int] = set()  # numbers of parts that batches came in

    def begin(self, frame_hw: tuple[int, int]) -> None:
        self.macs = self.macs or count_macs(self._network, (3, self._input_size, self._input_size))
        side = max(1, round(min(frame_hw) * self._crop_pct))
        top, left = ((length - side) // 2 for length in frame_hw)
        self._square = np.s_[top : top + side, left : left + side]
        self._box_xyxy = float(left), float(top), float(left + side), float(top + side)

    def prepare(self, pixels: np.ndarray) -> Tensor:
        """(3, S, S) uint8: the central square of the frame, as the page's Classify tab takes it, to the next pixel."""
        square = torch.from_numpy(pixels[self._square]).permute(2, 0, 1)[None]
        return F.interpolate(square, (self._input_size, self._input_size), mode="bicubic", antialias=True)[0]

    def infer(self, batch: list[Tensor], *, compared: bool = False) -> list[FrameResult]:
        return self._compute.run(self._judge, batch, compared)

    def _judge(self, batch: list[Tensor], compared: bool) -> list[FrameResult]:
        each = self._compute.each
        parts = each(self._normalised, self._compute.parts(torch.stack(batch)))
        if len(parts) not in self._warm:
            each(lambda part: self._forward(part, self._traced), parts)
            self._warm.add(len(parts))
        start = time.perf_counter()
        outputs = each(lambda part: self._forward(part, self._traced and not compared), parts)
        model_ms = (time.perf_counter() - start) * 1e3 / len(batch)
        if self._traced and compared:
            traced = each(lambda part: self._forward(part, traced=True), parts)
            outputs = [(logits, trace) for (logits, _), (_, trace) in zip(outputs, traced, strict=True)]
        return [
            FrameResult(model_ms, model_ms, top1=best, regions=own, regions_xyxy=self._box_xyxy)
            for logits, trace in outputs
            for best, own in zip(self._best(logits), self._regions(trace, len(logits)), strict=True)
        ]

    def _normalised(self, frames: Tensor) -> Tensor:
        return ((frames.to(self._device) - self._mean) / self._std).to(self._precision)

    def _forward(self, images: Tensor, traced: bool) -> tuple[Tensor, TokenTrace | None]:
        logits, trace = self._network(images, return_trace=True) if traced else (self._network(images), None)
        return logits.float().cpu(), trace  # .cpu() waits for the device

    def _best(self, logits: Tensor) -> list[tuple[str, float] | None]:
        if not self._predicts:
            return [None] * len(logits)
        probabilities, classes = logits.softmax(dim=-1).max(dim=-1)
        return [
            (self._classes[index], min(probability, 1.0))
            for index, probability in zip(classes.tolist(), probabilities.tolist(), strict=True)
        ]

    def _regions(self, trace: TokenTrace | None, frames: int) -> Sequence[TokenRegions | None]:
        layer = last_region_layer(region_layers(trace)) if trace else None
        return [None] * frames if layer is None else regions_of(layer)


@cache
def imagenet_classes() -> tuple[str, ...]:
    """The first name of each of ImageNet's 1000 classes."""
    names = ImageNetInfo()
    return tuple(names.index_to_description(index).split(",")[0] for index in range(names.num_classes()))
