"""Build models whose ``pretrained=True`` loads weights through the resolver."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from timm.models import PretrainedCfg, build_model_with_cfg
from torch import nn

from .records import ModelRecord, record
from .resolve import resolve

logger = logging.getLogger(__name__)


def with_verified_file(found: ModelRecord) -> ModelRecord:
    """The record with the path of its verified weights, which timm then loads instead of downloading them itself.

    Weights that are not on the Hub are left to timm, unverified.

    Raises:
        WeightsUnavailable: see :func:`stvit.pretrained.resolve.resolve`.
    """
    if found.repo is None and found.has_weights:
        logger.warning("The weights of %s come from %s and are not verified.", found.name, found.url or found.file)
        return found
    as_published = found.custom_load and found.filename.endswith(".pth")  # what the model's load_pretrained reads
    return replace(found, file=str(resolve(found).path), custom_load=as_published)


def build_model(
    model: Callable[..., nn.Module],
    variant: str,
    pretrained: bool,
    pretrained_cfg: str | dict[str, Any] | PretrainedCfg | None = None,
    device: torch.device | str | None = None,
    dtype: torch.dtype | None = None,
    **kwargs: Any,
) -> nn.Module:
    """timm's ``build_model_with_cfg``, but for the weights of a registered config, which are verified.

    A config of the caller's own (an object, or ``file`` in ``pretrained_cfg_overlay``) is taken as it is.

    Args:
        device, dtype: of the parameters; timm passes them to every model.

    Raises:
        WeightsUnavailable: see :func:`stvit.pretrained.resolve.resolve`.
    """
    own_file = "file" in (kwargs.get("pretrained_cfg_overlay") or {})
    if pretrained and not own_file and (pretrained_cfg is None or isinstance(pretrained_cfg, str)):
        pretrained_cfg = with_verified_file(record(f"{variant}.{pretrained_cfg}" if pretrained_cfg else variant))
    with nullcontext() if device is None else torch.device(device):
        network = build_model_with_cfg(model, variant, pretrained, pretrained_cfg=pretrained_cfg, **kwargs)
    return network if dtype is None else network.to(dtype)
