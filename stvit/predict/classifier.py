"""Classifiers: from pixels to classes, and to the regions that the tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from timm.data import ImageNetInfo
from torch import Tensor, nn

from stvit.pretrained.scope import ScopeRow

from .device import Compute
from .engines import Engine
from .preprocess import PreparedPicture, Preprocessing
from .regions import Wanted, regions_of_batch
from .results import Classification, Prediction
from .scope import with_scope_row
from .timing import Lap, no_lap

TOP_K = 5


class Classifier:
    """A classifier of pictures and of frames, one or many at a time.

    Args:
        network: in evaluation mode, on its device and in its precision; (B, 3, S, S) -> logits (B, classes), with
            ``return_trace=True`` also a :class:`stvit.TokenTrace` where it has one.
        preprocessing: how its input is made; by default as its ``pretrained_cfg`` says.
        classes: names in the order of its logits; by default those of ImageNet.
        compute: runs it on its device, one caller at a time; by default one of its own.
        engine: that runs it, see :data:`stvit.predict.engines.ENGINES`; its graphs also return all regions.
        wait: make graphs before the first answer, instead of in the background.
        scope: row that scores whether a picture shows any of the classes; without one, no picture is refused.

    Attributes:
        engine: runs the network alone.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        preprocessing: Preprocessing | None = None,
        classes: Sequence[str] | None = None,
        compute: Compute | None = None,
        engine: str = "eager",
        wait: bool = False,
        scope: ScopeRow | None = None,
    ) -> None:
        self.network = with_scope_row(network, scope) if scope else network
        self._scores_scope = scope is not None
        self.preprocessing = preprocessing or Preprocessing.of(getattr(network, "pretrained_cfg", {}))
        self.classes = imagenet_classes() if classes is None else classes
        self.device = next(network.parameters()).device
        self.compute = compute or Compute(self.device)
        self.engine = Engine(self.network, engine, regions="attention", compute=self.compute, wait=wait)

    def __call__(self, pixels: np.ndarray, *, regions: Wanted = "attention") -> Classification:
        """Classify a picture (H, W, 3) uint8 RGB."""
        (result,) = self.classify([self.preprocessing.prepare(pixels)], regions=regions)
        return result

    def classify(
        self, batch: Sequence[PreparedPicture], *, regions: Wanted = "none", top_k: int = TOP_K, lap: Lap = no_lap
    ) -> list[Classification]:
        """Classify prepared pictures, all at once.

        Args:
            regions: regions of which layers to return; in eager, any costs the attention maps.
            top_k: predictions of each picture, as far as there are classes.
            lap: told ``"input"`` when the batch lies on the device, ``"model"`` after the forward pass.
        """
        return self.compute.run(self._classify, batch, regions, top_k, lap)

    def _classify(self, batch: Sequence[PreparedPicture], wanted: Wanted, top_k: int, lap: Lap) -> list[Classification]:
        images = torch.stack([entry.image for entry in batch]).to(self.device)
        images = self.preprocessing.normalise(images)
        lap("input")
        answer = self.engine(images, wanted)
        logits = answer.outputs.float().cpu()  # waits for the device
        lap("model")
        scores: Sequence[float | None] = [None] * len(batch)
        if self._scores_scope:
            logits, scores = logits[:, :-1], logits[:, -1].tolist()
        results = zip(self._predictions(logits, top_k), regions_of_batch(answer.regions, len(batch)), strict=True)
        return [
            Classification(*result, entry.geometry, answer.engine, score)
            for result, entry, score in zip(results, batch, scores, strict=True)
        ]

    def _predictions(self, logits: Tensor, top_k: int) -> list[tuple[Prediction, ...]]:
        best = logits.softmax(dim=-1).clamp(max=1.0).topk(min(top_k, logits.shape[1]))
        return [
            tuple(Prediction(index, self.classes[index], value) for value, index in zip(*of_picture, strict=True))
            for of_picture in zip(best.values.tolist(), best.indices.tolist(), strict=True)
        ]


@cache
def imagenet_classes(*, all_names: bool = True) -> tuple[str, ...]:
    """The names of each of ImageNet's 1000 classes, separated by commas, the usual one first; or that one alone."""
    names = ImageNetInfo()
    of_classes = (names.index_to_description(index) for index in range(names.num_classes()))
    return tuple(of_class if all_names else of_class.partition(",")[0] for of_class in of_classes)
