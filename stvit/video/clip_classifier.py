"""Clip models on a sliding window of frames: the current action, and what the tokens of every frame stand for."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from stvit.class_names import KINETICS400_CLASSES
from stvit.measure.macs import count_macs
from stvit.predict.clip_views import (
    CLIP_LENGTH,
    DEVIATION,
    FRAME_INTERVAL,
    MEAN,
    SIZE,
    classify_views,
    clip_indices,
    make_views,
    resize_short_side,
)
from stvit.predict.device import Compute
from stvit.predict.regions import TokenRegions, last_region_layer, region_layers, regions_of
from stvit.trace import TokenTrace

from .classify import NO_PREDICTIONS
from .decode import ClipReader
from .types import ClipInfo, FrameResult, Limits, Window

WINDOWS_PER_SPAN = 4  # how often a window is judged, in the time that a window lasts
LARGEST_BILINEAR = 2  # how much smaller frames may become without averaging, as in the published evaluation
MAX_SIDE = 1920


@dataclass(frozen=True)
class Sampling:
    """The windows of a clip model; by default those of the paper.

    Attributes:
        length: frames of a window.
        interval: frames of the clip from one frame of a window to the next.
        size: side of the square input, pixels.
    """

    length: int = CLIP_LENGTH
    interval: int = FRAME_INTERVAL
    size: int = SIZE

    @property
    def span(self) -> int:
        """Frames of the clip that a window reaches over."""
        return self.length * self.interval


@dataclass(frozen=True)
class Recent:
    """A prepared frame, with those before it that a window can reach.

    Attributes:
        index: of the frame.
        frames: up to ``Sampling.span``, each (3, size, size) uint8; the last is the frame itself.
    """

    index: int
    frames: tuple[Tensor, ...]


class ActionClassifier:
    """A clip classifier on a sliding window.

    Every batch of frames is judged by one pass over the window that ends with its last frame. Until the clip is as long
    as a window, what there is of it is played in a loop, as Video Swin does with short videos.

    Args:
        network: in evaluation mode, on its device and in its precision; (B, 3, T, H, W) -> (B, classes).
        label: what people call it.
        sampling: how it was trained to look at clips.
        classes: names, in the order of its logits.
        predicts: whether it has weights; without, it is run, but says nothing.
        regions: whether to find out which regions its tokens stand for; costs the attention maps.
        compute: runs it on its device, one caller at a time; by default one of its own.

    Raises:
        ValueError: not as many names as classes.
    """

    def __init__(
        self,
        network: nn.Module,
        label: str,
        *,
        sampling: Sampling | None = None,
        classes: Sequence[str] = KINETICS400_CLASSES,
        predicts: bool = True,
        regions: bool = True,
        compute: Compute | None = None,
    ) -> None:
        if len(classes) != network.num_classes:
            raise ValueError(f"{label} has {network.num_classes} classes, but {len(classes)} names were given")
        self._network, self.label = network, label
        self._sampling, self._classes = sampling or Sampling(), classes
        self._predicts = predicts
        self._traced = regions and "return_trace" in inspect.signature(network.forward).parameters
        weight = next(network.parameters())
        self._device, self._precision = weight.device, weight.dtype
        self._compute = compute or Compute(self._device)
        self.batch_size = max(1, self._sampling.span // WINDOWS_PER_SPAN)
        self.input_key: Hashable = (ActionClassifier, self._sampling)
        self.note = "" if predicts else NO_PREDICTIONS
        self.macs = 0
        self._mean, self._deviation = (
            torch.tensor(values, device=self._device).view(3, 1, 1, 1) * 255 for values in (MEAN, DEVIATION)
        )
        self._recent: deque[Tensor] = deque(maxlen=self._sampling.span)
        self._next, self._top, self._left, self._side = 0, 0, 0, 1
        self._warm = False

    def begin(self, frame_hw: tuple[int, int]) -> None:
        size, length = self._sampling.size, self._sampling.length
        self.macs = self.macs or count_macs(self._network, (3, length, size, size))
        self._recent.clear()
        self._next, self._side = 0, min(frame_hw)
        self._top, self._left = ((sides - self._side) // 2 for sides in frame_hw)

    def prepare(self, pixels: np.ndarray) -> Recent:
        """The central square of the frame, as single-view inference takes it, and the frames before."""
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
        places = [entry.index - first for entry in batch]
        logits, regions, window_ms = self._compute.run(self._judge, recent.frames, places, compared)
        scores = logits[0].softmax(dim=-1).numpy() if self._predicts else None
        window = Window(first, recent.index, len(recent.frames) == self._sampling.span, scores, self._classes)
        best = next(iter(window.ranking(1)), None)
        box = tuple(map(float, (self._left, self._top, self._left + self._side, self._top + self._side)))
        model_ms, pace_ms = window_ms / len(batch), window_ms / self.batch_size
        return [
            FrameResult(model_ms, pace_ms, top1=best, regions=own, regions_xyxy=box, window=window) for own in regions
        ]

    def _judge(
        self, frames: tuple[Tensor, ...], places: list[int], compared: bool
    ) -> tuple[Tensor, list[TokenRegions | None], float]:
        clips = self._clips(frames)
        if not self._warm:
            self._forward(clips, self._traced)
            self._warm = True
        start = time.perf_counter()
        logits, trace = self._forward(clips, self._traced and not compared)
        window_ms = (time.perf_counter() - start) * 1e3
        if self._traced and compared:
            _, trace = self._forward(clips, traced=True)
        return logits, self._regions(trace, places), window_ms

    def judge_views(
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
        views = make_views(torch.cat(frames), places, crops, size)
        of_views = [self._compute.run(classify_views, self._network, view, 1) for view in views.split(1)]
        scores = torch.stack(of_views).mean(dim=0).cpu().numpy()
        return Window(0, num_frames - 1, True, scores, self._classes)

    def _clips(self, frames: tuple[Tensor, ...]) -> Tensor:
        """(1, 3, T, H, W), normalised, from the frames of a window."""
        (indices,) = clip_indices(len(frames), 1, self._sampling.length, self._sampling.interval)
        clip = torch.stack([frames[index] for index in indices.tolist()], dim=1).to(self._device)
        return ((clip - self._mean) / self._deviation).to(self._precision)[None]

    def _forward(self, clips: Tensor, traced: bool) -> tuple[Tensor, TokenTrace | None]:
        logits, trace = self._network(clips, return_trace=True) if traced else (self._network(clips), None)
        return logits.float().cpu(), trace  # .cpu() waits for the device

    def _regions(self, trace: TokenTrace | None, places: list[int]) -> list[TokenRegions | None]:
        """What the tokens stand for in the frames at these places of the window."""
        layer = last_region_layer(region_layers(trace)) if trace else None
        if layer is None:
            return [None] * len(places)
        of_frames = regions_of(layer)
        return [of_frames[place // self._sampling.interval * layer.frames // self._sampling.length] for place in places]
