"""Predictors on the frames of a clip: prepared in one thread, run in another, with the time that each frame takes."""

from __future__ import annotations

import copy
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from torch import Tensor

from stvit.measure.macs import count_macs
from stvit.predict.classifier import Classifier
from stvit.predict.clips import ClipClassifier, Sampling, clip_indices, make_views, resize_short_side
from stvit.predict.detector import Detector
from stvit.predict.engines import Engine
from stvit.predict.preprocess import PreparedPicture
from stvit.predict.regions import TokenRegions
from stvit.predict.results import Classification, ClipClassification
from stvit.predict.timing import FirstUse, timed

from .decode import ClipReader
from .tracks import TRACKED_SCORE
from .types import ClipInfo, FrameResult, Limits, Window

BATCH_OF_CORE, LARGEST_BATCH = 8, 32
BATCH_OF_CORE_NARROW, NARROW = 16, 5_000_000  # where Python takes its time too: models with fewer parameters than this
NO_PREDICTIONS, NO_OBJECTS = "no weights: no predictions", "no weights: no objects"
BACKBONE = "backbone"
WINDOWS_PER_SPAN = 4  # how often a window is classified, in the time that a window lasts
LARGEST_BILINEAR = 2  # how much smaller frames may become without averaging, as in the published evaluation
MAX_SIDE = 1920


class FrameClassifier:
    """A classifier on frames.

    Args:
        classifier: runs in batches.
        label: what people call it.
        predicts: whether it has weights; without, it is run, but says nothing.
        regions: whether to find out which regions its tokens stand for; costs the attention maps.
        batch_size: frames at once; by default what suits the device.
    """

    def __init__(
        self,
        classifier: Classifier,
        label: str,
        *,
        predicts: bool = True,
        regions: bool = False,
        batch_size: int | None = None,
    ) -> None:
        self.classifier, self.label = classifier, label
        self.input_key: Hashable = (FrameClassifier, classifier.preprocessing)
        self.note, self.macs = "" if predicts else NO_PREDICTIONS, 0
        self._predicts, self._wanted = predicts, "last" if regions else "none"
        narrow = sum(parameter.numel() for parameter in classifier.network.parameters()) < NARROW
        of_core = BATCH_OF_CORE_NARROW if narrow else BATCH_OF_CORE
        of_device = LARGEST_BATCH if classifier.device.type == "cuda" else of_core * classifier.compute.lanes
        self.batch_size = batch_size or min(of_device, LARGEST_BATCH)
        self._first_use = FirstUse()

    def begin(self, frame_hw: tuple[int, int]) -> str:
        side = self.classifier.preprocessing.input_size
        self.macs = self.macs or count_macs(self.classifier.network, (3, side, side))
        recall = self.classifier.engine.recall
        engines = {recall((size, 3, side, side), self._wanted) for size in (1, self.batch_size)}  # the first goes alone
        return engines.pop() if len(engines) == 1 else "eager"

    def in_eager(self) -> None:
        self.classifier = copy.copy(self.classifier)  # others may use it as it is
        self.classifier.engine = Engine(self.classifier.network, "eager", compute=self.classifier.compute)

    def prepare(self, pixels: np.ndarray) -> PreparedPicture:
        return self.classifier.preprocessing.prepare(pixels, fast=True)

    def infer(self, batch: list[PreparedPicture], *, compared: bool = False) -> list[FrameResult]:
        return self.classifier.compute.run(self._infer, batch)

    def _infer(self, batch: list[PreparedPicture]) -> list[FrameResult]:
        classifier, wanted = self.classifier, self._wanted
        if self._first_use(classifier.network, len(batch) >= classifier.compute.lanes):
            classifier.classify(batch, regions=wanted)
        results, laps_ms = timed(classifier.compute, classifier.classify, batch, regions=wanted, top_k=1)
        model_ms = laps_ms["model"] / len(batch)
        return [self._frame_result(result, model_ms) for result in results]

    def _frame_result(self, result: Classification, model_ms: float) -> FrameResult:
        best = result.predictions[0]
        return FrameResult(
            model_ms,
            model_ms,
            top1=(best.label, best.probability) if self._predicts else None,
            in_scope=result.in_scope,
            regions=next(iter(result.regions), None),
            regions_xyxy=result.geometry.input_xyxy,
            engine=result.engine,
        )


class FrameDetector:
    """A detector on frames, one at a time. Two of them are compared by their backbones: all that comes after is the
    same.

    Args:
        detector: runs on one frame.
        label: what people call it.
        scale: bounds of the long and the short side of its input, pixels.
        predicts: whether it has weights; without, only its backbone is run, and its token regions are shown.
    """

    batch_size = 1
    input_key: Hashable = "frame"

    def __init__(self, detector: Detector, label: str, *, scale: tuple[int, int], predicts: bool = True) -> None:
        self.detector, self.label, self._scale = detector, label, scale
        self.note, self.macs = "" if predicts else NO_OBJECTS, 0
        self._predicts, self._wanted = predicts, "none" if predicts else "last"
        self._first_use = FirstUse()

    def begin(self, frame_hw: tuple[int, int]) -> str:
        prepared = self.detector.prepare(np.zeros((*frame_hw, 3), np.uint8), self._scale)
        self.macs = count_macs(self.detector.network.backbone, tuple(prepared.images.shape[1:]))
        return self.detector.recall(tuple(prepared.images.shape), self._wanted)

    def in_eager(self) -> None:
        run = self.detector
        self.detector = Detector(run.network, classes=run.classes, proposals=run.proposals, compute=run.compute)

    def prepare(self, pixels: np.ndarray) -> np.ndarray:
        return pixels

    def infer(self, batch: list[np.ndarray], *, compared: bool = False) -> list[FrameResult]:
        return [self.detector.compute.run(self._infer, pixels, compared) for pixels in batch]

    def _infer(self, pixels: np.ndarray, compared: bool) -> FrameResult:
        detector = self.detector
        if self._first_use(detector.network):
            detector(pixels, scale=self._scale, objects=False)
        result, laps_ms = timed(
            detector.compute,
            detector,
            pixels,
            scale=self._scale,
            least_score=TRACKED_SCORE,
            regions=self._wanted,
            objects=self._predicts,
        )
        model_ms = sum(ms for step, ms in laps_ms.items() if step != "prepare")
        return FrameResult(
            model_ms,
            laps_ms[BACKBONE] if compared else model_ms,
            found=result.found,
            regions=next(iter(result.regions), None),
            regions_xyxy=result.geometry.input_xyxy,
            names=result.classes,
            paced_part=BACKBONE if compared else "",
            counted_part=BACKBONE,
            engine=result.engine,
        )


@dataclass(frozen=True)
class Recent:
    """A prepared frame, with those before it that a window can reach.

    Attributes:
        index: of the frame.
        frames: up to ``Sampling.span``, each (3, size, size) uint8; the last is the frame itself.
    """

    index: int
    frames: tuple[Tensor, ...]


class WindowClassifier:
    """A clip model on a sliding window.

    Every batch of frames is classified by one pass over the window that ends with its last frame.

    Args:
        classifier: runs on one window.
        label: what people call it.
        predicts: whether it has weights; without, it is run, but says nothing.
        regions: whether to find out which regions its tokens stand for; costs the attention maps.
    """

    def __init__(self, classifier: ClipClassifier, label: str, *, predicts: bool = True, regions: bool = True) -> None:
        self.classifier, self.label = classifier, label
        self._sampling: Sampling = classifier.sampling
        self.batch_size = max(1, self._sampling.span // WINDOWS_PER_SPAN)
        self.input_key: Hashable = (WindowClassifier, self._sampling)
        self.note, self.macs = "" if predicts else NO_PREDICTIONS, 0
        self._predicts, self._wanted = predicts, "last" if regions else "none"
        self._recent: deque[Tensor] = deque(maxlen=self._sampling.span)
        self._next, self._top, self._left, self._side = 0, 0, 0, 1
        self._first_use = FirstUse()

    def begin(self, frame_hw: tuple[int, int]) -> str:
        size, length = self._sampling.size, self._sampling.length
        self.macs = self.macs or count_macs(self.classifier.network, (3, length, size, size))
        self._recent.clear()
        self._next, self._side = 0, min(frame_hw)
        self._top, self._left = ((sides - self._side) // 2 for sides in frame_hw)
        return self.classifier.engine.recall((1, 3, length, size, size), self._wanted)

    def in_eager(self) -> None:
        self.classifier = copy.copy(self.classifier)  # others may use it as it is
        self.classifier.engine = Engine(self.classifier.network, "eager", compute=self.classifier.compute)

    def prepare(self, pixels: np.ndarray) -> Recent:
        """The central square of the frame, as single-view inference takes it, and the frames before. Much larger frames
        are averaged, where the published evaluation, which the papers' views follow, leaves out pixels."""
        size, side = self._sampling.size, self._side
        square = pixels[self._top : self._top + side, self._left : self._left + side]
        far = side > LARGEST_BILINEAR * size
        small = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if far else cv2.INTER_LINEAR)
        self._recent.append(torch.from_numpy(small).permute(2, 0, 1))
        self._next += 1
        return Recent(self._next - 1, tuple(self._recent))

    def infer(self, batch: list[Recent], *, compared: bool = False) -> list[FrameResult]:
        """One window for the batch. ``pace_ms`` is what a frame takes where batches are full."""
        recent = batch[-1]
        first = recent.index + 1 - len(recent.frames)
        result, window_ms = self.classifier.compute.run(self._infer, recent.frames)
        scores = result.scores if self._predicts else None
        window = Window(first, recent.index, len(recent.frames) == self._sampling.span, scores, result.classes)
        best = next(iter(window.ranking(1)), None)
        box = tuple(map(float, (self._left, self._top, self._left + self._side, self._top + self._side)))
        model_ms, pace_ms = window_ms / len(batch), window_ms / self.batch_size
        answer = FrameResult(model_ms, pace_ms, top1=best, regions_xyxy=box, window=window, engine=result.engine)
        return [replace(answer, regions=self._regions_of(entry.index - first, result)) for entry in batch]

    def _regions_of(self, place: int, result: ClipClassification) -> TokenRegions | None:
        """What the tokens stand for in the frame at this place of the window."""
        if not result.regions:
            return None
        return result.regions[place // self._sampling.interval * len(result.regions) // self._sampling.length]

    def _infer(self, frames: Sequence[Tensor]) -> tuple[ClipClassification, float]:
        classifier, wanted = self.classifier, self._wanted
        if self._first_use(classifier.network):
            classifier.classify(frames, regions=wanted)
        result, laps_ms = timed(classifier.compute, classifier.classify, frames, regions=wanted)
        return result, laps_ms["model"]

    def classify_views(
        self, info: ClipInfo, num_frames: int, clips: int = 4, crops: int = 3, limits: Limits | None = None
    ) -> Window:
        """The whole clip by the papers' views: it is read once more, and only the frames of the views are kept.

        Args:
            info: of the clip.
            num_frames: frames that it really has.
            clips, crops: 4 and 3 for the published accuracies, 1 and 1 for a single view.

        Raises:
            VideoError: the file cannot be read again.
        """
        size = self._sampling.size
        indices = clip_indices(num_frames, clips, self._sampling.length, self._sampling.interval)
        used, places = indices.unique(return_inverse=True)
        wanted = set(used.tolist())
        frames = [
            resize_short_side(torch.from_numpy(frame.picture.rgb())[None], size)
            for frame in ClipReader(info, MAX_SIDE, limits)
            if frame.index in wanted
        ]
        result = self.classifier.classify_views(make_views(torch.cat(frames), places, crops, size))
        return Window(0, num_frames - 1, True, result.scores, result.classes)
