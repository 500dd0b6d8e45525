"""Building models by name."""

from __future__ import annotations

from dataclasses import replace
from os import PathLike
from typing import Any

import timm
from timm.layers import to_2tuple
from torch import nn

from stvit.detection import detector  # noqa: F401 - this and the next two imports register all models
from stvit.models import (  # noqa: F401
    atc,
    avit,
    diffrate,
    dynamicswin,
    dynamicvit,
    evit,
    evo_vit,
    lvvit,
    stvit_deit,
    stvit_r_swin,
    stvit_swin,
    stvit_video_swin,
    tokenlearner,
    tome,
    video_swin,
)
from stvit.pretrained.build import with_verified_file
from stvit.pretrained.records import record
from stvit.segmentation import upernet  # noqa: F401
from stvit.sparsify import registered  # noqa: F401

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
        name: e.g. ``"stvit_r_swin_small_224"``, or any model of timm; with ``.tag`` for certain published weights,
            without it for those of :func:`stvit.pretrained.records.record`, whose preprocessing the model's
            ``pretrained_cfg`` holds.
        checkpoint: a released ``.pth`` or a safetensors file; loaded strictly and without running pickled code.
        pretrained: load the published weights, from the cache or the Hugging Face Hub, verified.
        use_ema: which weights of a checkpoint that also holds averaged ones, see
            :func:`stvit.checkpoint.read_checkpoint`.
        kwargs: options of the model, e.g. ``num_classes``.

    Raises:
        UnknownModel: timm knows no such model.
        WeightsUnavailable: the published weights cannot be fetched, or are not what they were.
        CheckpointError: the file is unsafe, unreadable, or does not fit the model.
        ValueError: both a checkpoint and ``pretrained`` are given.
    """
    if checkpoint is not None and pretrained:
        raise ValueError("give either a checkpoint or pretrained=True, not both")
    page = ""
    if ":" not in name and "pretrained_cfg" not in kwargs:  # timm's hf-hub: and local-dir: bring a config of their own
        found = record(name)
        page = found.source_url if found.repo or found.weights_page else ""
        found = with_verified_file(found) if pretrained else found
        if "img_size" in kwargs:
            found = replace(found, input_size=(3, *to_2tuple(kwargs["img_size"])))
        name, kwargs["pretrained_cfg"] = found.architecture, found
    model = timm.create_model(name, pretrained=pretrained, **kwargs)
    if checkpoint is not None:
        load_checkpoint(model, checkpoint, use_ema, page)
    return model.eval()
