"""One narrow model of every family, on the token grid of the real ones, at a fraction of their cost."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from stvit.models.atc import ATC
from stvit.models.avit import AViT
from stvit.models.diffrate import DiffRate
from stvit.models.dynamicswin import DynamicSwin
from stvit.models.dynamicvit import DynamicViT
from stvit.models.evit import EViT
from stvit.models.evo_vit import EvoViT
from stvit.models.lvvit import LVVIT_SMALL, EViTLVViT, LVViT, STViTLVViT
from stvit.models.stvit_deit import SemanticTokenViT
from stvit.models.stvit_r_swin import STViTRSwin
from stvit.models.stvit_swin import STViTSwin
from stvit.models.tokenlearner import TokenLearnerViT
from stvit.models.tome import ToMe

VIT = {"img_size": 112, "patch_size": 8, "embed_dim": 24, "depth": 6, "num_heads": 3, "num_classes": 7}
LVVIT = {**LVVIT_SMALL, **VIT}
SWIN = {"embed_dim": 16, "depths": (2, 2, 6, 2), "num_heads": (1, 2, 4, 8), "num_classes": 7}

FAMILIES: dict[str, Callable[..., nn.Module]] = {
    "stvit_deit": lambda **k: SemanticTokenViT(**{**VIT, "stgm_position": 2, **k}),
    "evit_deit": lambda **k: EViT(**{**VIT, "reduction_layers": (1, 3), **k}),
    "tome_deit": lambda **k: ToMe(**{**VIT, **k}),
    "lvvit": lambda **k: LVViT(**{**LVVIT, **k}),
    "stvit_lvvit": lambda **k: STViTLVViT(**{**LVVIT, "stgm_position": 2, **k}),
    "evit_lvvit": lambda **k: EViTLVViT(**{**LVVIT, "reduction_layers": (1, 3), **k}),
    "stvit_swin": lambda **k: STViTSwin(**{**SWIN, "stgm_position": 2, **k}),
    "stvit_r_swin": lambda **k: STViTRSwin(**{**SWIN, **k}),
    "dynamicvit_deit": lambda **k: DynamicViT(**{**VIT, "reduction_layers": (1, 3), **k}),
    "dynamicswin": lambda **k: DynamicSwin(**{**SWIN, "decisions": (1, 2, 3), **k}),
    "evo_vit_deit": lambda **k: EvoViT(**{**VIT, "global_pool": "avg", "selection_layers": (2, 4), **k}),
    "avit": lambda **k: AViT(**{**VIT, **k}),
    "atc_deit": lambda **k: ATC(**{**VIT, "reduction_layers": (1, 3), **k}),
    "diffrate_deit": lambda **k: DiffRate(**{**VIT, "schedule": "0.004G", **k}),
    "tokenlearner_deit": lambda **k: TokenLearnerViT(**{**VIT, **k}),
}


def narrow(family: str, **options: Any) -> nn.Module:
    """A model of the family with fixed random weights, in evaluation mode."""
    torch.manual_seed(0)
    model = FAMILIES[family](**options)
    with torch.no_grad():
        for parameter in model.parameters():  # so that nothing is zero, one, or too small to be seen
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def images_for(model: nn.Module, batch: int = 2) -> torch.Tensor:
    """Random images of the size that a narrow model takes."""
    torch.manual_seed(1)
    size = 224 if isinstance(model, STViTSwin | STViTRSwin | DynamicSwin) else 112
    return torch.randn(batch, 3, size, size)
