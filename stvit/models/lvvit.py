"""LV-ViT-S (Jiang et al., NeurIPS 2021, arXiv 2104.10858), and STViT and EViT applied to it.

A vision transformer with a convolutional patch embedding, residual branches divided by two, and a second head on the
image tokens, trained with a label for each of them. Parameters keep the authors' names.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

from timm.layers import PatchEmbed
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from stvit.layers.attention import init_weights
from stvit.layers.reducing_vit import FullTokenWeights, build_reducing_model, check_image_size
from stvit.pretrained.build import build_model

from .evit import EViT
from .stvit_deit import DEIT_PREPROCESSING, SemanticTokenViT


class ConvPatchEmbed(PatchEmbed):
    """Convolutions 7x7 of stride 2, 3x3, 3x3 with BatchNorm and ReLU, then patches: (B, 3, H, W) -> (B, N, C), or
    (B, h, w, C) where timm asks for a map."""

    def __init__(self, *, patch_size: int, in_chans: int, embed_dim: int, **options: Any) -> None:
        super().__init__(patch_size=patch_size, in_chans=in_chans, embed_dim=embed_dim, **options)
        width = 64
        self.conv1 = nn.Conv2d(in_chans, width, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU()
        self.proj = nn.Conv2d(width, embed_dim, patch_size // 2, stride=patch_size // 2)

    def forward(self, images: Tensor) -> Tensor:
        if self.strict_img_size:
            check_image_size(images, self.img_size)
        features = self.relu(self.bn1(self.conv1(images)))
        features = self.relu(self.bn2(self.conv2(features)))
        features = self.relu(self.bn3(self.conv3(features)))
        patches = self.proj(features)
        return patches.flatten(2).transpose(1, 2) if self.flatten else patches.permute(0, 2, 3, 1)


class ResidualScale(nn.Module):
    """A constant factor on a residual branch."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, branch: Tensor) -> Tensor:
        return branch * self.factor


def halve_residuals(layers: Iterable[nn.Module]) -> None:
    """Halve both residual branches of transformer layers."""
    for layer in layers:
        layer.ls1, layer.ls2 = ResidualScale(0.5), ResidualScale(0.5)


#: arguments of timm's VisionTransformer for LV-ViT-S
LVVIT_SMALL: dict[str, Any] = {
    "patch_size": 16,
    "embed_dim": 384,
    "depth": 16,
    "num_heads": 6,
    "mlp_ratio": 3.0,
    "qkv_bias": False,
    "embed_layer": ConvPatchEmbed,
    "norm_layer": partial(nn.LayerNorm, eps=1e-5),
}


class LVViT(FullTokenWeights, VisionTransformer):
    """LV-ViT with all its tokens.

    Logits are those of the class token plus half the largest of the image tokens', class by class, as in the authors'
    evaluation; their training on every token's own label is not here.

    Args:
        vit: arguments of timm's ``VisionTransformer``.
    """

    def __init__(self, **vit: Any) -> None:
        super().__init__(**vit)
        halve_residuals(self.blocks)
        self._add_auxiliary_head()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace both heads by fresh ones for ``num_classes`` classes; 0 removes them."""
        super().reset_classifier(num_classes, global_pool)
        self._add_auxiliary_head()

    def _add_auxiliary_head(self) -> None:
        self.aux_head = None
        if self.num_classes:
            like = {"device": self.cls_token.device, "dtype": self.cls_token.dtype}
            self.aux_head = nn.Linear(self.embed_dim, self.num_classes, **like)
            init_weights(self.aux_head)
            self.aux_head.train(self.training)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """(B, 1 + N, C) -> (B, num_classes), or the class token's (B, C)."""
        logits = super().forward_head(x, pre_logits)
        if pre_logits or self.aux_head is None:
            return logits
        return logits + 0.5 * self.aux_head(x[:, 1:]).amax(dim=1)


class EViTLVViT(LVViT, EViT):
    """LV-ViT that lets inattentive tokens go; its second head sees the tokens that are left."""


class STViTLVViT(SemanticTokenViT):
    """LV-ViT whose image tokens give way to semantic tokens.

    The paper's text leaves it to a supplement. Chosen here: five image-token layers, about the third of the depth that
    DeiT has; no class token and no second head, because semantic tokens have no labels; the mean of the tokens is
    classified, as in STViT-DeiT.
    """

    def __init__(self, *, stgm_position: int = 5, **options: Any) -> None:
        super().__init__(stgm_position=stgm_position, **options)
        halve_residuals(self.blocks)


# the authors' weights are on no hub that timm knows; a downloaded file loads under its own names
_cfg = {**DEIT_PREPROCESSING, "first_conv": "patch_embed.conv1"}
_two_heads = {**_cfg, "classifier": ("head", "aux_head")}
default_cfgs = generate_default_cfgs(
    {"lvvit_small_224": _two_heads, "evit_lvvit_small_224": _two_heads, "stvit_lvvit_small_224": _cfg}
)


@register_model
def lvvit_small_224(pretrained: bool = False, **kwargs: Any) -> LVViT:
    """LV-ViT-S: 26.15 M parameters; published 83.3 % top-1 at 6.6 G multiply-adds."""
    arguments = {"feature_cfg": {"out_indices": 3, "feature_cls": "getter"}, **LVVIT_SMALL, **kwargs}
    return build_model(LVViT, "lvvit_small_224", pretrained, **arguments)


@register_model
def evit_lvvit_small_224(pretrained: bool = False, **kwargs: Any) -> EViTLVViT:
    """EViT on LV-ViT-S: published 83.0 % top-1 at keep rate 0.7 and 4.7 G multiply-adds."""
    arguments = {"reduction_layers": (4, 8, 12), **LVVIT_SMALL, **kwargs}
    return build_reducing_model(EViTLVViT, "evit_lvvit_small_224", pretrained, **arguments)


@register_model
def stvit_lvvit_small_224(pretrained: bool = False, **kwargs: Any) -> STViTLVViT:
    """STViT on LV-ViT-S."""
    return build_reducing_model(STViTLVViT, "stvit_lvvit_small_224", pretrained, **{**LVVIT_SMALL, **kwargs})
