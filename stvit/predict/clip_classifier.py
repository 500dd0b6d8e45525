"""Clip models: from the frames of a window to an action, and to the regions that the tokens stand for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stvit.class_names import KINETICS400_CLASSES
from stvit.trace import TokenTrace

from .classifier import Wanted, forward, regions_of_batch
from .clip_views import Sampling, classify_views, clip_indices, normalise
from .device import Compute
from .results import ClipClassification
from .timing import Lap, no_lap


class ClipClassifier:
    """A clip model on one window of frames at a time.

    Args:
        network: in evaluation mode, on its device and in its precision; (B, 3, T, H, W) -> (B, classes).
        sampling: how it was trained to look at clips.
        classes: names, in the order of its logits.
        compute: runs it on its device, one caller at a time; by default one of its own.

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
    ) -> None:
        if len(classes) != network.num_classes:
            raise ValueError(f"the model has {network.num_classes} classes, but {len(classes)} names were given")
        self.network, self.classes, self.sampling = network, classes, sampling or Sampling()
        weight = next(network.parameters())
        self.device, self._precision = weight.device, weight.dtype
        self.compute = compute or Compute(self.device)

    def classify(self, frames: Sequence[Tensor], *, regions: Wanted = "none", lap: Lap = no_lap) -> ClipClassification:
        """Classify a window.

        Args:
            frames: consecutive ones of the clip, each (3, size, size) uint8; where they are fewer than a window reaches
                over, they are played in a loop, as Video Swin does with short videos.
            regions: regions of which layers to return; any costs the attention maps.
            lap: told ``"input"`` when the window lies on the device, ``"model"`` after the forward pass.
        """
        return self.compute.run(self._classify, frames, regions, lap)

    def _classify(self, frames: Sequence[Tensor], wanted: Wanted, lap: Lap) -> ClipClassification:
        (indices,) = clip_indices(len(frames), 1, self.sampling.length, self.sampling.interval)
        clip = torch.stack([frames[index] for index in indices.tolist()], dim=1).to(self.device)
        images = normalise(clip[None]).to(self._precision)
        lap("input")
        logits, trace = self._forward(images, wanted != "none")
        lap("model")
        shown = [regions[-1] for regions in regions_of_batch(trace, 1, wanted) if regions]
        return ClipClassification(logits[0].softmax(dim=-1).numpy(), self.classes, tuple(shown))

    def _forward(self, clips: Tensor, traced: bool) -> tuple[Tensor, TokenTrace | None]:
        logits, trace = forward(self.network, clips, traced)
        return logits.float().cpu(), trace  # .cpu() waits for the device

    def classify_views(self, views: Tensor) -> ClipClassification:
        """Classify a whole clip by the papers' views (V, 3, T, H, W), see :func:`.clip_views.make_views`; the device is
        held for one at a time."""
        of_views = [self.compute.run(classify_views, self.network, view, 1) for view in views.split(1)]
        return ClipClassification(torch.stack(of_views).mean(dim=0).cpu().numpy(), self.classes)
