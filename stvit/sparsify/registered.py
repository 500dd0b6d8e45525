"""The registered model ``sparsified``: another one of timm, sparsified, which timm builds and loads by this name."""

from __future__ import annotations

from typing import Any

import timm
from timm.models import register_model
from torch import nn

from stvit.layers.reducing_vit import NO_FEATURE_MAPS
from stvit.pretrained.build import build_model

from .convert import REGISTERED, sparsify
from .fit import Method


@register_model
def sparsified(pretrained: bool = False, method: Method = "stvit", **kwargs: Any) -> nn.Module:
    """A sparsified model of timm.

    Args:
        pretrained: load the weights of the config that timm hands over, e.g. of a model folder.
        method: see :func:`stvit.sparsify.convert.sparsify`, as for its other options.
        kwargs: ``of``, the registered name of the original; options of :func:`stvit.sparsify.convert.sparsify` and of
            the original.
    """
    if kwargs.get("features_only") and method != "stvit_r":
        raise ValueError(NO_FEATURE_MAPS.format(REGISTERED))
    feature_cfg = {"out_indices": (0, 1, 2, 3), "feature_cls": "getter"}
    return build_model(_sparsified, REGISTERED, pretrained, feature_cfg=feature_cfg, method=method, **kwargs)


def _sparsified(
    of: str,
    num_semantic_tokens: int = 16,
    stgm_position: int | None = None,
    stgm_layers: int = 2,
    method: Method = "stvit",
    pooling: str = "average",
    **options: Any,
) -> nn.Module:
    original = timm.create_model(of, **options)
    return sparsify(original, num_semantic_tokens, stgm_position, stgm_layers, method, pooling)
