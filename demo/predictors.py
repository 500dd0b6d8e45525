"""The page's models on one device: a picture file in, a frozen answer out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from demo.answers import ClassifyAnswer, DetectAnswer, DetectionTimes, SegmentAnswer, SegmentationTimes
from demo.model_cache import LoadedModel, ModelCache, first_that_fits, is_out_of_memory
from demo.registry import ModelSpec
from demo.service.batches import Batches
from demo.space.lent_models import LentCache, on_zero_gpu
from stvit.class_names import COCO_CLASSES, KINETICS400_CLASSES
from stvit.detection.preprocess import network_sizes
from stvit.errors import UserError
from stvit.predict.classifier import Classifier, imagenet_classes
from stvit.predict.clips import ClipClassifier, Sampling
from stvit.predict.detector import Detector, published_scale
from stvit.predict.device import Compute, best_precision, compute_in_one_place, device_name, keep_freed_memory
from stvit.predict.engines import Engine, candidates
from stvit.predict.engines.cache import GraphCache
from stvit.predict.media import SourceImage, read_image
from stvit.predict.preprocess import PreparedPicture, Preprocessing
from stvit.predict.segmenter import Segmenter
from stvit.predict.timing import FirstUse, timed
from stvit.predict.turns import SCRIPTS, current_lane
from stvit.pretrained.records import record

SHORT_SIDES = (800, 640, 480, 320)  # of a detector's input, the first as published
PROPOSALS_ON_CPU = 300  # regions that a detector's heads look at, where they take most of the time
LABEL_SIDES = (4096, 2048, 1024, 512)  # of the map of classes, where there is no memory for one of the picture's size
WARMUP_SIDE = 64
Answer = TypeVar("Answer")
Size = TypeVar("Size")


class BadSize(UserError, ValueError):
    """An input size that is not offered."""


class UnknownEngine(UserError, ValueError):
    """An engine that is not at hand."""


@dataclass(frozen=True)
class Picture:
    """A decoded image and the model's input made of it.

    Attributes:
        source: the upright image, (H, W, 3) uint8 RGB, and a note on how it was read.
        prepared: the input, and the way from its pixels back to those of the source.
        decode_ms: time to read and decode the file.
        preprocess_ms: time to resize and crop.
    """

    source: SourceImage
    prepared: PreparedPicture
    decode_ms: float
    preprocess_ms: float


@dataclass(frozen=True)
class ClassifyRun:
    """Two models on one picture; ``picture`` is as the model sees it, ``baseline_picture`` as the baseline does."""

    picture: Picture
    model: ClassifyAnswer
    baseline: ClassifyAnswer
    baseline_picture: Picture

    @property
    def drawn(self) -> tuple[Picture, ClassifyAnswer]:
        """The side whose tokens are drawn: the model, or the baseline where only that one reduces its tokens."""
        first = self.model.regions or not self.baseline.regions
        return (self.picture, self.model) if first else (self.baseline_picture, self.baseline)


@dataclass(frozen=True)
class DetectRun:
    """A picture and the objects that a detector found."""

    source: SourceImage
    result: DetectAnswer


@dataclass(frozen=True)
class SegmentRun:
    """A picture and the labels that a segmenter gave."""

    source: SourceImage
    result: SegmentAnswer


class Predictors:
    """Run the page's models on one device, one request at a time. Whatever takes the name of an engine takes one of
    ``engines`` and raises ``UnknownEngine`` for others.

    Args:
        precision: by default the device's fastest.
        engine: that runs their networks where a request names none, see :data:`stvit.predict.engines.ENGINES`.
    """

    def __init__(
        self, device: torch.device | None = None, precision: torch.dtype | None = None, engine: str = "eager"
    ) -> None:
        self.engine = engine
        self.device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.precision = precision or best_precision(self.device)
        self.model_cache = (LentCache if on_zero_gpu() else ModelCache)(self.device, self.precision)
        self.compute = Compute(self.device)
        self.batches = Batches(self.compute)
        self.first_use = FirstUse()

    @cached_property
    def engines(self) -> tuple[str, ...]:
        """The engines that a request may name: others compile for minutes on cores that answer."""
        if on_zero_gpu():  # a graph would go with the process of the call
            return (self.engine,)
        return tuple(dict.fromkeys(("auto", "eager", *candidates(self.device), self.engine)))

    def device_words(self) -> str:
        """Device and precision for people, e.g. ``"NVIDIA H200, bfloat16"``."""
        return f"{device_name(self.device, self.compute.lanes)}, {str(self.precision).removeprefix('torch.')}"

    @staticmethod
    def open_picture(path: str | Path, model: ModelSpec) -> Picture:
        """Decode an image file, and prepare it for a model.

        Raises:
            MediaError: not an image that can be read within the limits.
        """
        source, decode_ms = _decoded(path)
        return _prepared(source, decode_ms, model)

    @staticmethod
    def prepared_for(picture: Picture, prepared: ModelSpec, model: ModelSpec) -> Picture:
        """Prepare for another model what was prepared for one; returns the picture itself where both take it alike."""
        if preprocessing_of(prepared) == preprocessing_of(model):
            return picture
        return _prepared(picture.source, picture.decode_ms, model)

    def classify_file(
        self, path: str | Path, model: ModelSpec, baseline: ModelSpec, engine: str | None = None
    ) -> ClassifyRun:
        """Classify an image file with both models.

        Raises:
            MediaError: the file cannot be read as an image.
        """
        picture, result = self.classify_one(path, model, engine)
        seen = self.prepared_for(picture, model, baseline)
        return ClassifyRun(picture, result, self.classify(seen.prepared, baseline, engine), seen)

    def classify_one(
        self, path: str | Path, model: ModelSpec, engine: str | None = None
    ) -> tuple[Picture, ClassifyAnswer]:
        """Classify an image file with one model; raises as ``classify_file`` does."""
        picture = self.open_picture(path, model)
        return picture, self.classify(picture.prepared, model, engine)

    def classify(self, prepared: PreparedPicture, model: ModelSpec, engine: str | None = None) -> ClassifyAnswer:
        """Classify a prepared picture with one model; no predictions if it has no weights."""
        engine = self._engine(engine)
        work = partial(self._classify, self.model_cache.get(model), engine)
        return self._together((model.name, engine), tuple(prepared.image.shape[-2:]), prepared, work)

    def classify_batch(
        self, batch: Sequence[PreparedPicture], model: ModelSpec, engine: str | None = None
    ) -> list[ClassifyAnswer]:
        """Classify prepared pictures of one size with one model, all at once."""
        return self._classify(self.model_cache.get(model), engine, batch)

    def _together(
        self,
        requests: tuple[Hashable, ...],
        input_hw: tuple[int, int],
        item: Any,
        work: Callable[[Sequence[Any]], Sequence[Answer]],
    ) -> Answer:
        """Run a picture; in the scripts' lane with others that are alike. A visitor's runs alone: its times are
        shown."""
        if current_lane() == SCRIPTS:
            return self.batches.run(requests, input_hw, item, work)
        return work([item])[0]

    def _classify(
        self, loaded: LoadedModel, engine: str | None, batch: Sequence[PreparedPicture]
    ) -> list[ClassifyAnswer]:
        classifier = self.classifier(loaded, engine)
        if self.first_use(loaded.network):
            classifier.classify(batch[:1], regions="attention")
        results, laps_ms = self._with_room(
            loaded, lambda: timed(self.compute, classifier.classify, batch, regions="attention")
        )
        if loaded.problem:
            results = [replace(result, predictions=()) for result in results]
        about = {**self._origin(loaded), "model_ms": laps_ms["model"]}
        return [ClassifyAnswer(**vars(result), **about) for result in results]

    def classifier(self, loaded: LoadedModel, engine: str | None = None, *, all_names: bool = True) -> Classifier:
        """Return the model's classifier; its classes of ImageNet have all their names, or the usual one."""
        spec = loaded.spec
        all_names = all_names or spec.classes is not None
        options = {
            "preprocessing": preprocessing_of(spec),
            "classes": spec.classes or imagenet_classes(all_names=all_names),
            "scope": spec.bundled.scope if spec.bundled and not loaded.problem else None,
            **self._runs_on(engine),
        }
        return loaded.predictor(
            ("classify", all_names, options["engine"]), lambda: Classifier(loaded.network, **options)
        )

    def engine_of(self, network: nn.Module, engine: str | None, graphs: GraphCache) -> Engine:
        """Let an engine run a network that is not kept, without regions."""
        options = self._runs_on(engine)
        return Engine(network, options["engine"], compute=options["compute"], cache=graphs)

    def _runs_on(self, engine: str | None) -> dict[str, Any]:
        return {"compute": self.compute, "engine": self._engine(engine)}

    def _engine(self, name: str | None) -> str:
        """The engine that runs what names one, or none."""
        if name is None or (name == "auto" and name not in self.engines):
            return self.engine
        if name not in self.engines:
            raise UnknownEngine(f"There is no engine {str(name)[:20]!r} here.", f"Choose {', '.join(self.engines)}.")
        return name

    def detect_file(self, path: str | Path, model: ModelSpec, short_side: int, engine: str | None = None) -> DetectRun:
        """Detect the objects in an image file.

        Raises:
            MediaError: the file cannot be read as an image.
            BadSize: the size is not offered.
            OutOfMemory: not even the smallest size fits.
        """
        short_side = input_side(model, check_short_side(short_side))
        source, decode_ms = _decoded(path)
        result = self.detect(source.pixels, model, short_side, engine)
        return DetectRun(source, replace(result, times=replace(result.times, decode_ms=decode_ms)))

    def detect(self, pixels: np.ndarray, model: ModelSpec, short_side: int, engine: str | None = None) -> DetectAnswer:
        """Detect the objects in a picture, (H, W, 3) uint8 RGB; at a smaller size where memory is short.

        Raises:
            OutOfMemory: not even the smallest size fits.
        """
        engine = self._engine(engine)
        work = partial(self._detect, self.model_cache.get(model), engine, short_side)
        _, padded_hw = network_sizes(pixels.shape[:2], published_scale(short_side))
        return self._together((model.name, engine, short_side), padded_hw, pixels, work)

    def _detect(
        self, loaded: LoadedModel, engine: str, short_side: int, batch: Sequence[np.ndarray]
    ) -> list[DetectAnswer]:
        detector = self.detector(loaded, engine)
        if self.first_use(loaded.network):
            nothing = np.zeros((WARMUP_SIDE, WARMUP_SIDE, 3), np.uint8)  # for the network alone: it needs no graph
            self.compute.run(loaded.network.predict, nothing, published_scale(WARMUP_SIDE))
        alone = len(batch) == 1  # a batch that does not fit is run again one by one
        side, (results, laps_ms) = self._first_that_fits(
            loaded,
            sizes_from(short_side) if alone else (short_side,),
            lambda side: timed(self.compute, detector.detect, batch, scale=published_scale(side), regions="all"),
        )
        if loaded.problem:
            results = [replace(result, found=None) for result in results]
        about = {
            **self._origin(loaded),
            "asked_short_side": short_side,
            "short_side": side,
            "proposals": (detector.proposals, loaded.network.num_proposals),
            "times": DetectionTimes(0.0, **_milliseconds(laps_ms)),
        }
        return [DetectAnswer(**vars(result), **about) for result in results]

    def detector(self, loaded: LoadedModel, engine: str | None = None) -> Detector:
        """Return the model's detector; on a CPU its heads look at no more than ``PROPOSALS_ON_CPU`` regions."""
        own, classes = loaded.network.num_proposals, loaded.spec.classes or COCO_CLASSES
        proposals = min(own, PROPOSALS_ON_CPU) if self.device.type == "cpu" else own
        options = {"classes": classes, "proposals": proposals, **self._runs_on(engine)}
        return loaded.predictor(("detect", proposals, options["engine"]), lambda: Detector(loaded.network, **options))

    def segment_file(self, path: str | Path, model: ModelSpec, engine: str | None = None) -> SegmentRun:
        """Label every pixel of an image file with its class.

        Raises:
            MediaError: the file cannot be read as an image.
            OutOfMemory: not even the smallest map fits.
        """
        source, decode_ms = _decoded(path)
        result = self.segment(source.pixels, model, engine)
        return SegmentRun(source, replace(result, times=replace(result.times, decode_ms=decode_ms)))

    def segment(self, pixels: np.ndarray, model: ModelSpec, engine: str | None = None) -> SegmentAnswer:
        """Label every pixel of a picture, (H, W, 3) uint8 RGB, with its class; in coarser steps where memory is short.

        Raises:
            OutOfMemory: not even the smallest map fits.
        """
        engine, loaded = self._engine(engine), self.model_cache.get(model)
        input_hw = self.segmenter(loaded, engine).input_hw(pixels.shape[:2])
        return self._together((model.name, engine), input_hw, pixels, partial(self._segment, loaded, engine))

    def _segment(self, loaded: LoadedModel, engine: str, batch: Sequence[np.ndarray]) -> list[SegmentAnswer]:
        segmenter, sides = self.segmenter(loaded, engine), (None,)  # the longest of each picture
        if len(batch) == 1:  # a batch that does not fit is run again one by one
            longest = max(batch[0].shape[:2])
            sides = (longest, *(side for side in LABEL_SIDES if side < longest))
        if self.first_use(loaded.network):
            segmenter(batch[0], labelled_side=1)
        _, (results, laps_ms) = self._first_that_fits(
            loaded, sides, lambda side: timed(self.compute, segmenter.segment, batch, regions="all", labelled_side=side)
        )
        if loaded.problem:
            results = [replace(result, labels=None) for result in results]
        about = {**self._origin(loaded), "times": SegmentationTimes(0.0, **_milliseconds(laps_ms))}
        return [SegmentAnswer(**vars(result), **about) for result in results]

    def segmenter(self, loaded: LoadedModel, engine: str | None = None) -> Segmenter:
        """Return the model's segmenter."""
        spec = loaded.spec
        options = {"classes": spec.classes, "scale": (spec.input_size, spec.input_size), **self._runs_on(engine)}
        return loaded.predictor(("segment", options["engine"]), lambda: Segmenter(loaded.network, **options))

    def clip_classifier(self, loaded: LoadedModel, sampling: Sampling, engine: str | None = None) -> ClipClassifier:
        """Return the model's classifier of clips."""
        classes = loaded.spec.classes or KINETICS400_CLASSES
        options = {"sampling": sampling, "classes": classes, **self._runs_on(engine)}
        return loaded.predictor(("video", options["engine"]), lambda: ClipClassifier(loaded.network, **options))

    def _first_that_fits(
        self, loaded: LoadedModel, sizes: Sequence[Size], run: Callable[[Size], Answer]
    ) -> tuple[Size, Answer]:
        return first_that_fits(sizes, lambda size: self._with_room(loaded, partial(run, size)), self.device)

    def _with_room(self, loaded: LoadedModel, run: Callable[[], Answer]) -> Answer:
        """Run a model; where memory is short, once more without the others in memory."""
        try:
            return run()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        if not self.model_cache.make_room(loaded.spec):
            raise MemoryError
        return run()

    def _origin(self, loaded: LoadedModel) -> dict[str, str]:
        weights = f"{loaded.problem} {loaded.next_step}".strip() or loaded.weights
        return {"model": loaded.spec.name, "weights": weights, "device": self.device_words()}


def predictors_of_process() -> Predictors:
    """Prepare this process to run models, on its GPU where it has one, by the engine of ``STVIT_ENGINE``."""
    keep_freed_memory()
    predictors = Predictors(engine="eager" if on_zero_gpu() else os.environ.get("STVIT_ENGINE") or "auto")
    if predictors.device.type == "cpu":
        compute_in_one_place()
    return predictors


@lru_cache(maxsize=256)  # asked for five times a request, and timm copies the record each time
def preprocessing_of(model: ModelSpec) -> Preprocessing:
    """Return how the input of a classifier of the page is made."""
    if card := model.folder:
        return Preprocessing(card.input_size, card.crop_pct, card.interpolation, card.mean, card.std)
    published = Preprocessing.of(record(model.model).to_dict())
    return replace(published, input_size=model.input_size, crop_pct=model.crop_pct)


def check_short_side(value: object) -> int:
    """Return ``value`` if it is one of ``SHORT_SIDES``.

    Raises:
        BadSize: anything else.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value in SHORT_SIDES:
        return value
    offered = ", ".join(map(str, SHORT_SIDES))
    raise BadSize(f"An input size of {str(value)[:20]!r} is not offered.", f"Choose one of {offered}.")


def input_side(detector: ModelSpec, short_side: int) -> int:
    """Return the short side of a detector's input: the chosen one; that of training for bundled detectors, which
    know no objects of other sizes."""
    return detector.input_size if detector.bundled else short_side


def sizes_from(short_side: int) -> tuple[int, ...]:
    """Return the sizes to try: the chosen one, then smaller ones."""
    return (short_side, *(side for side in SHORT_SIDES if side < short_side))


def _decoded(path: str | Path) -> tuple[SourceImage, float]:
    start = time.perf_counter()
    return read_image(path), (time.perf_counter() - start) * 1e3


def _prepared(source: SourceImage, decode_ms: float, model: ModelSpec) -> Picture:
    start = time.perf_counter()
    prepared = preprocessing_of(model).prepare(source.pixels)
    return Picture(source, prepared, decode_ms, (time.perf_counter() - start) * 1e3)


def _milliseconds(laps_ms: dict[str, float]) -> dict[str, float]:
    """By step."""
    return {f"{step}_ms": value for step, value in laps_ms.items()}
