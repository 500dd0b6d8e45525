"""Classify clips: from the frames of a video to the views that Video Swin looks at, and from their logits to an answer.

A view is a clip of 32 frames, every second one of the video, cropped to a square. The published accuracies use 4x3
views, 4 clips spread over the video times 3 crops along the longer side; one clip and one crop are the fast choice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stvit.class_names import KINETICS400_CLASSES

from .device import Compute
from .engines import Engine
from .regions import Wanted, regions_of_batch
from .results import ClipClassification
from .timing import Lap, no_lap

CLIP_LENGTH = 32  # frames of a view
FRAME_INTERVAL = 2  # frames of the video from one frame of a view to the next
SIZE = 224  # side of a view in pixels
MEAN = (0.485, 0.456, 0.406)  # RGB in 0..1, as for ImageNet
DEVIATION = (0.229, 0.224, 0.225)


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


def clip_indices(
    num_frames: int, clips: int = 4, clip_length: int = CLIP_LENGTH, frame_interval: int = FRAME_INTERVAL
) -> Tensor:
    """Which frames of a video make up each clip.

    The video is cut into as many equal parts as there are clips, of possible first frames; each clip starts in the
    middle of its part. A video that is shorter than a clip is played in a loop from its first frame on.

    Args:
        num_frames: frames of the video.
        clips: number of clips.
        clip_length: frames of a clip.
        frame_interval: frames of the video from one frame of a clip to the next.

    Returns:
        (clips, clip_length) int64.

    Raises:
        ValueError: one of the numbers is not positive.
    """
    _check_positive(num_frames=num_frames, clips=clips, clip_length=clip_length, frame_interval=frame_interval)
    starts = max(num_frames - clip_length * frame_interval + 1, 0)
    first = torch.tensor([(2 * i + 1) * starts // (2 * clips) for i in range(clips)])
    return (first[:, None] + torch.arange(clip_length) * frame_interval) % num_frames


def make_views(frames: Tensor, indices: Tensor, crops: int = 3, size: int = SIZE) -> Tensor:
    """Cut views out of a video and normalise them.

    A video need not be decoded as a whole: with ``used, indices = clip_indices(...).unique(return_inverse=True)``, the
    frames ``used`` are all that it takes.

    Args:
        frames: (T, H, W, 3) uint8, RGB.
        indices: (clips, clip_length) int64, positions in ``frames``, see :func:`clip_indices`.
        crops: squares along the longer side; 1 takes the middle.
        size: side of a view in pixels; the shorter side of the frames is resized to it.

    Returns:
        (clips * crops, 3, clip_length, size, size) float32 with ImageNet mean and deviation, the crops of a clip
        together.

    Raises:
        ValueError: not RGB frames, or ``crops`` or ``size`` is not positive.
    """
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != torch.uint8 or 0 in frames.shape:
        raise ValueError(
            f"frames must be (T, H, W, 3) uint8 in RGB, got {tuple(frames.shape)} {frames.dtype}: stack the decoded "
            "frames of the video without scaling them"
        )
    _check_positive(crops=crops, size=size)
    used, places = indices.unique(return_inverse=True)
    squares = crop_squares(resize_short_side(frames[used], size), crops)
    return normalise(squares[:, places].transpose(0, 1).flatten(0, 1).permute(0, 4, 1, 2, 3))


def normalise(clips: Tensor) -> Tensor:
    """(B, 3, T, H, W) uint8 RGB -> float32 with ImageNet mean and deviation."""
    mean, deviation = (torch.tensor(values, device=clips.device).view(3, 1, 1, 1) * 255 for values in (MEAN, DEVIATION))
    return clips.float().sub_(mean).div_(deviation)


def resize_short_side(frames: Tensor, size: int) -> Tensor:
    """(T, H, W, 3) uint8 -> (T, H', W', 3) uint8, whose shorter side has ``size`` pixels: bilinear without
    antialiasing, as in the published evaluation.

    Only one frame at a time is held in floating point, so many frames of high resolution take little memory.
    """
    H, W = frames.shape[1:3]
    hw = tuple(int(side * size / min(H, W) + 0.5) for side in (H, W))
    resized = frames.new_empty(len(frames), *hw, 3)
    for frame, target in zip(frames, resized, strict=True):
        planes = frame.permute(2, 0, 1).unsqueeze(0).float()
        scaled = F.interpolate(planes, hw, mode="bilinear", align_corners=False)
        target.copy_(scaled.squeeze(0).round_().permute(1, 2, 0))
    return resized


def crop_squares(frames: Tensor, crops: int) -> Tensor:
    """(T, H, W, 3) -> (crops, T, S, S, 3), S the shorter side: squares at equal distances along the longer side; a
    single one stands in the middle."""
    H, W = frames.shape[1:3]
    size, slack = min(H, W), abs(H - W)
    starts = [slack // 2] if crops == 1 else [i * (slack // (crops - 1)) for i in range(crops)]
    return torch.stack([frames.narrow(1 if H > W else 2, start, size) for start in starts])


def average_views(logits: Tensor) -> Tensor:
    """Logits of the views of one video (V, classes) -> its probabilities (classes,), the mean of the views'."""
    return logits.softmax(dim=-1).mean(dim=0)


def _check_positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise ValueError(f"{name}={number}: must be 1 or more")


class ClipClassifier:
    """A clip model on one window of frames at a time.

    Args:
        network: in evaluation mode, on its device and in its precision; (B, 3, T, H, W) -> (B, classes).
        sampling: how it was trained to look at clips.
        classes: names, in the order of its logits.
        compute: runs it on its device, one caller at a time; by default one of its own.
        engine: that runs it, see :data:`stvit.predict.engines.ENGINES`.
        wait: make graphs before the first answer, instead of in the background.

    Attributes:
        engine: runs the network alone.

    Raises:
        ValueError: not as many names as classes.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        sampling: Sampling | None = None,
        classes: Sequence[str] = KINETICS400_CLASSES,
        compute: Compute | None = None,
        engine: str = "eager",
        wait: bool = False,
    ) -> None:
        if len(classes) != network.num_classes:
            raise ValueError(f"the model has {network.num_classes} classes, but {len(classes)} names were given")
        self.network, self.classes, self.sampling = network, classes, sampling or Sampling()
        self.device = next(network.parameters()).device
        self.compute = compute or Compute(self.device)
        self.engine = Engine(network, engine, regions="assignment", compute=self.compute, wait=wait)

    def classify(self, frames: Sequence[Tensor], *, regions: Wanted = "none", lap: Lap = no_lap) -> ClipClassification:
        """Classify a window.

        Args:
            frames: consecutive ones of the clip, each (3, size, size) uint8; where they are fewer than a window reaches
                over, they are played in a loop, as Video Swin does with short videos.
            regions: regions of which layers to return; in eager, any costs the attention maps.
            lap: told ``"input"`` when the window lies on the device, ``"model"`` after the forward pass.
        """
        return self.compute.run(self._classify, frames, regions, lap)

    def _classify(self, frames: Sequence[Tensor], wanted: Wanted, lap: Lap) -> ClipClassification:
        (indices,) = clip_indices(len(frames), 1, self.sampling.length, self.sampling.interval)
        clip = torch.stack([frames[index] for index in indices.tolist()], dim=1).to(self.device)
        images = normalise(clip[None])
        lap("input")
        answer = self.engine(images, wanted)
        probabilities = average_views(answer.outputs.float()).cpu()  # waits for the device
        lap("model")
        shown = [regions[-1] for regions in regions_of_batch(answer.regions, 1) if regions]
        return ClipClassification(probabilities.numpy(), self.classes, answer.engine, tuple(shown))

    def classify_views(self, views: Tensor, at_once: int = 1) -> ClipClassification:
        """Classify a whole clip by the papers' views (V, 3, T, H, W), see :func:`make_views`; the device is held for a
        number of them at once."""
        answers = [self.engine(part.to(self.device)) for part in views.split(at_once)]
        probabilities = average_views(torch.cat([answer.outputs.float() for answer in answers]))
        return ClipClassification(probabilities.cpu().numpy(), self.classes, answers[-1].engine)
