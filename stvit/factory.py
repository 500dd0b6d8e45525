"""Building models by name."""

from __future__ import annotations

from os import PathLike
from typing import Any

import timm
from torch import nn

from stvit.detection import detector  # noqa: F401 - this and the next two imports register all models
from stvit.models import (  # noqa: F401
    evit,
    lvvit,
    stvit_deit,
    stvit_r_swin,
    stvit_swin,
    stvit_video_swin,
    tome,
    video_swin,
)
from stvit.segmentation import upernet  # noqa: F401

from .checkpoint import load_checkpoint


def create_model(
    name: str,
    checkpoint: str | PathLike[str] | None = None,
    pretrained: bool = False,
    use_ema: bool | None = None,
    **kwargs: Any,
) -> nn.Module:
    """Build a model by its registered name, in evaluation mode.

    Args:
        name: e.g. ``"stvit_r_swin_small_224"``, or any model of timm.
        checkpoint: a released ``.pth`` or a safetensors file; loaded strictly and without running pickled code.
        pretrained: fetch the published weights from the Hugging Face Hub.
        use_ema: which weights of a checkpoint that also holds averaged ones, see
            :func:`stvit.checkpoint.read_checkpoint`.
        kwargs: options of the model, e.g. ``num_classes``.

    Raises:
        RuntimeError: timm knows no such model.
        CheckpointError: the file is unsafe, unreadable, or does not fit the model.
        ValueError: both a checkpoint and ``pretrained`` are given.
    """
    if checkpoint is not None and pretrained:
        raise ValueError("give either a checkpoint or pretrained=True, not both")
    model = timm.create_model(name, pretrained=pretrained, **kwargs)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, use_ema)
    return model.eval()
