"""Classifiers: from pixels to classes, and to the regions that the tokens stand for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from inspect import signature
from typing import Literal

import numpy as np
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from stvit.trace import LayerTrace, TokenTrace

from .device import Compute
from .preprocess import PreparedPicture, Preprocessing
from .regions import TokenRegions, last_region_layer, region_layers, regions_of
from .results import Classification, Prediction
from .timing import Lap, no_lap

Wanted = Literal["none", "last", "all", "attention"]
"""Regions of which layers: of none, of the one that is shown, of all, of all with their attention maps."""

TOP_K = 5


class Classifier:
    """A classifier of pictures and of frames, one or many at a time.

    Args:
        network: in evaluation mode, on its device and in its precision; (B, 3, S, S) -> logits (B, classes), with
            ``return_trace=True`` also a :class:`stvit.TokenTrace` where it has one.
        preprocessing: how its input is made; by default as its ``pretrained_cfg`` says.
        classes: names in the order of its logits; by default those of ImageNet.
        compute: runs it on its device, one caller at a time; by default one of its own.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
        compute: Compute | None = None,
    ) -> None:
        self.network = network
        self.preprocessing = preprocessing or Preprocessing.of(getattr(network, "pretrained_cfg", {}))
        self.classes = imagenet_classes() if classes is None else classes
        weight = next(network.parameters())
        self.device, self._precision = weight.device, weight.dtype
        self.compute = compute or Compute(self.device)

    def __call__(self, pixels: np.ndarray, *, regions: Wanted = "attention") -> Classification:
        """Classify a picture (H, W, 3) uint8 RGB."""
        (result,) = self.classify([self.preprocessing.prepare(pixels)], regions=regions)
        return result

    def classify(
        self, batch: Sequence[PreparedPicture], *, regions: Wanted = "none", top_k: int = TOP_K, lap: Lap = no_lap
    ) -> list[Classification]:
        """Classify prepared pictures, all at once.

        Args:
            regions: regions of which layers to return; any costs the attention maps.
            top_k: predictions of each picture, as far as there are classes.
            lap: told ``"input"`` when the batch lies on the device, ``"model"`` after the forward pass.
        """
        return self.compute.run(self._classify, batch, regions, top_k, lap)

    def _classify(self, batch: Sequence[PreparedPicture], wanted: Wanted, top_k: int, lap: Lap) -> list[Classification]:
        each = self.compute.each
        parts = each(self._normalised, self.compute.parts(torch.stack([entry.image for entry in batch])))
        lap("input")
        traced = wanted != "none"
        outputs = each(lambda part: self._forward(part, traced), parts)
        lap("model")
        results = []
        for logits, trace in outputs:
            predictions, regions = self._predictions(logits, top_k), regions_of_batch(trace, len(logits), wanted)
            results += zip(predictions, regions, strict=True)
        return [Classification(*result, entry.geometry) for result, entry in zip(results, batch, strict=True)]

    def _normalised(self, images: Tensor) -> Tensor:
        return self.preprocessing.normalise(images.to(self.device)).to(self._precision)

    def _forward(self, images: Tensor, traced: bool) -> tuple[Tensor, TokenTrace | None]:
        logits, trace = forward(self.network, images, traced)
        return logits.float().cpu(), trace  # .cpu() waits for the device

    def _predictions(self, logits: Tensor, top_k: int) -> list[tuple[Prediction, ...]]:
        best = logits.softmax(dim=-1).clamp(max=1.0).topk(min(top_k, logits.shape[1]))
        return [
            tuple(Prediction(index, self.classes[index], value) for value, index in zip(*of_picture, strict=True))
            for of_picture in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


def forward(network: Callable[..., Tensor], images: Tensor, traced: bool) -> tuple[Tensor, TokenTrace | None]:
    """What a network makes of a batch, with its trace if that is asked for and it has one."""
    if traced and returns_trace(type(network)):
        return network(images, return_trace=True)
    return network(images), None


def regions_of_batch(trace: TokenTrace | None, batch_size: int, wanted: Wanted) -> list[tuple[TokenRegions, ...]]:
    """The wanted regions of every image of a batch, or of every token frame of its clips."""
    layers: Sequence[LayerTrace] = () if trace is None or wanted == "none" else region_layers(trace)
    if wanted == "last" and layers:
        layers = [last_region_layer(layers)]
    if not layers:
        return [()] * batch_size
    return list(zip(*(regions_of(layer, attention=wanted == "attention") for layer in layers), strict=True))


@cache
def returns_trace(network_type: type[nn.Module]) -> bool:
    """Whether networks of this type can say what their layers did."""
    return "return_trace" in signature(network_type.forward).parameters


@cache
def imagenet_classes(*, all_names: bool = True) -> tuple[str, ...]:
    """The names of each of ImageNet's 1000 classes, separated by commas, the usual one first; or that one alone."""
    names = ImageNetInfo()
    of_classes = (names.index_to_description(index) for index in range(names.num_classes()))
    return tuple(of_class if all_names else of_class.partition(",")[0] for of_class in of_classes)
