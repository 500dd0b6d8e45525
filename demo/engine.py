"""One run for each task: a file in, a frozen result out. Nothing here knows of the page."""

from __future__ import annotations

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from weakref import WeakSet

import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, ImageNetInfo
from torch import Tensor, nn

from demo.media import SourceImage, read_image
from demo.model_cache import ModelStore
from demo.registry import ModelSpec
from stvit import TokenTrace
from stvit.measure.timing import best_precision, device_name
from stvit.predict.device import Compute
from stvit.predict.preprocess import InputGeometry, preprocess
from stvit.predict.regions import region_layers, regions_of
from stvit.predict.results import Classification, Prediction

TOP_K = 5


@dataclass(frozen=True)
class Picture:
    """A decoded image and the model's input made of it.

    Attributes:
        source: the upright image, (H, W, 3) uint8 RGB, and a note on how it was read.
        images: (1, 3, H, W) float32 on the CPU, normalised, of the size that a model takes.
        geometry: the way from input pixels back to source pixels.
        decode_ms: time to read and decode the file.
        preprocess_ms: time to resize, crop and normalise.
    """

    source: SourceImage
    images: Tensor
    geometry: InputGeometry
    decode_ms: float
    preprocess_ms: float


@dataclass(frozen=True)
class ClassifyRun:
    """Two models on one picture; ``picture`` is as the model sees it, ``baseline_picture`` as the baseline does."""

    picture: Picture
    model: Classification
    baseline: Classification
    baseline_picture: Picture

    @property
    def drawn(self) -> tuple[Picture, Classification]:
        """The side whose tokens are drawn: the model, or the baseline where only that one reduces its tokens."""
        first = self.model.regions or not self.baseline.regions
        return (self.picture, self.model) if first else (self.baseline_picture, self.baseline)


class Engine:
    """Runs models on one device, one request at a time; in the precision that is fastest there, or a chosen one."""

    def __init__(self, device: torch.device | None = None, precision: torch.dtype | None = None) -> None:
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = precision or best_precision(self.device)
        self.store = ModelStore(self.device, self.precision)
        self.compute = Compute(self.device)
        self._warm: WeakSet[nn.Module] = WeakSet()

    def device_words(self) -> str:
        """Device and precision for people, e.g. ``"NVIDIA H200, bfloat16"``."""
        return f"{device_name(self.device, self.compute.lanes)}, {str(self.precision).removeprefix('torch.')}"

    def open_picture(self, path: str | Path, model: ModelSpec) -> Picture:
        """Decode an image file, and preprocess it for a model.

        Raises:
            MediaError: not an image that can be read within the limits; the message is for the user.
        """
        start = time.perf_counter()
        source = read_image(path)
        return _prepared(source, (time.perf_counter() - start) * 1e3, model)

    @staticmethod
    def prepared_for(picture: Picture, prepared: ModelSpec, model: ModelSpec) -> Picture:
        """A picture that was prepared for one model as another takes it; itself where both take it alike."""
        if (prepared.input_size, prepared.crop_pct) == (model.input_size, model.crop_pct):
            return picture
        return _prepared(picture.source, picture.decode_ms, model)

    def classify_file(self, path: str | Path, model: ModelSpec, baseline: ModelSpec) -> ClassifyRun:
        """Both models on the same image file.

        Raises:
            MediaError: the file cannot be read as an image.
        """
        picture, result = self.classify_one(path, model)
        seen = self.prepared_for(picture, model, baseline)
        return ClassifyRun(picture, result, self.classify(seen.images, baseline), seen)

    def classify_one(self, path: str | Path, model: ModelSpec) -> tuple[Picture, Classification]:
        """One model on an image file; raises as ``classify_file`` does."""
        picture = self.open_picture(path, model)
        return picture, self.classify(picture.images, model)

    def classify(self, images: Tensor, model: ModelSpec) -> Classification:
        """What one model says about one preprocessed image (1, 3, H, W); no predictions if it has no weights."""
        loaded = self.store.get(model)
        images = images.to(self.device, self.precision)
        logits, trace, model_ms = self.compute.run(self._judge, loaded.network, images)
        return Classification(
            model=model.name,
            predictions=() if loaded.problem else top_predictions(logits[0], model.classes),
            weights=f"{loaded.problem} {loaded.next_step}".strip() or loaded.weights,
            regions=tuple(regions_of(layer, attention=True)[0] for layer in region_layers(trace)) if trace else (),
            device=self.device_words(),
            model_ms=model_ms,
        )

    def first_use(self, network: nn.Module) -> bool:
        """Whether a network has not been asked for before; its first pass is slow and shall not be timed."""
        first = network not in self._warm
        self._warm.add(network)
        return first

    def _judge(self, network: nn.Module, images: Tensor) -> tuple[Tensor, TokenTrace | None, float]:
        if self.first_use(network):
            self._forward(network, images)
        start = time.perf_counter()
        logits, trace = self._forward(network, images)
        return logits, trace, (time.perf_counter() - start) * 1e3

    def _forward(self, network: nn.Module, images: Tensor) -> tuple[Tensor, TokenTrace | None]:
        traced = _returns_trace(type(network))
        output = network(images, return_trace=True) if traced else network(images)
        logits, trace = output if traced else (output, None)
        return logits.float().cpu(), trace  # .cpu() waits for the device


def _prepared(source: SourceImage, decode_ms: float, model: ModelSpec) -> Picture:
    start = time.perf_counter()
    images, geometry = preprocess(
        source.pixels,
        input_size=model.input_size,
        crop_pct=model.crop_pct,
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
    )
    return Picture(source, images, geometry, decode_ms, (time.perf_counter() - start) * 1e3)


def top_predictions(logits: Tensor, classes: Sequence[str] | None = None, k: int = TOP_K) -> tuple[Prediction, ...]:
    """The most probable classes of one row of logits, best first.

    Args:
        logits: (classes,).
        classes: their names; by default those of ImageNet.
        k: how many, at most as many as there are.
    """
    probabilities, indices = logits.softmax(dim=-1).clamp(max=1.0).topk(min(k, len(logits)))
    name_of = _imagenet().index_to_description if classes is None else classes.__getitem__
    return tuple(
        Prediction(index, name_of(index), probability)
        for index, probability in zip(indices.tolist(), probabilities.tolist(), strict=True)
    )


@cache
def _returns_trace(network_type: type[nn.Module]) -> bool:
    return "return_trace" in inspect.signature(network_type.forward).parameters


@cache
def _imagenet() -> ImageNetInfo:
    return ImageNetInfo()
