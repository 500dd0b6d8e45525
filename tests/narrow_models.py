"""Models of the registered kinds, but narrow, so that a picture or a clip takes a moment."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any

import torch

import stvit
from demo.registry import Registry
from tests.sure_detector import make_sure

DETECTOR = "stvit_r_swin_small_cascade_mask_rcnn"
_CLASSIFIER: dict[str, Any] = {"embed_dim": 16, "depths": (1, 1, 6, 1), "num_heads": (1, 2, 4, 8)}
NARROW_DETECTOR: dict[str, Any] = _CLASSIFIER | {"fpn_channels": 16, "box_hidden": 32}
_CLIP_MODEL: dict[str, Any] = {"embed_dim": 8, "depths": (1, 1, 4, 1), "num_heads": (1, 2, 4, 8)}

CLASSIFIERS = dict.fromkeys(("stvit_r_swin_small_224", "swin_small_patch4_window7_224"), _CLASSIFIER)
DETECTORS = {
    f"{kind}_{size}_cascade_mask_rcnn": NARROW_DETECTOR
    for kind in ("stvit_r_swin", "swin")
    for size in ("small", "base")
}
CLIP_MODELS = dict.fromkeys(("stvit_video_swin_tiny", "video_swin_tiny"), _CLIP_MODEL)


def narrowed(registry: Registry, *options: Mapping[str, Mapping[str, Any]]) -> Registry:
    """A registry with some of its models made narrow: ``CLASSIFIERS``, ``DETECTORS`` or ``CLIP_MODELS``."""
    more = {name: values for part in options for name, values in part.items()}
    return Registry(replace(spec, options={**spec.options, **more.get(spec.name, {})}) for spec in registry)


@cache
def detector_checkpoint() -> bytes:
    """Weights for ``DETECTOR`` that make it sure of something in any picture, in the published container."""
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        detector = stvit.create_model(DETECTOR, **NARROW_DETECTOR)
        make_sure(detector)
    buffer = io.BytesIO()
    state = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    torch.save({"meta": {"epoch": 36}, "state_dict": state, "optimizer": {}}, buffer)
    return buffer.getvalue()
