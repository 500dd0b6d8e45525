"""Narrow models on clips, on the token maps of the real ones, at a fraction of their cost."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stvit.models.stvit_video_swin import STViTVideoSwin
from stvit.models.video_swin import VideoSwin

SIZES = {"embed_dim": 16, "depths": (2, 2, 4, 2), "num_heads": (1, 2, 4, 8), "num_classes": 7}
SMALL_PATCHES = {"patch_size": (2, 2, 2)}  # the maps of larger frames at a fraction of their cost


def spread(model: nn.Module) -> nn.Module:
    """Move all parameters from their initial values, so that nothing is zero, one, or too small to be seen."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def full_token(**options: Any) -> VideoSwin:
    return spread(VideoSwin(**{**SIZES, **options}))


def with_semantic_tokens(**options: Any) -> STViTVideoSwin:
    return spread(STViTVideoSwin(**{**SIZES, "stgm_position": 1, "img_size": 112, **options}))


NARROW = {"video_swin": full_token, "stvit_video_swin": with_semantic_tokens}


def clips(*shape: int) -> Tensor:
    torch.manual_seed(1)
    return torch.randn(shape)
