"""Vision transformers whose number of tokens falls from layer to layer, on top of timm's."""

from __future__ import annotations

from numbers import Real
from typing import Any, NamedTuple, NoReturn

import torch
from timm.models.vision_transformer import Attention, VisionTransformer, checkpoint_filter_fn
from torch import Tensor, nn

from stvit.layers.attention import attend, merge_heads, split_heads
from stvit.pretrained.build import build_model
from stvit.trace import LayerTrace, TokenTrace

from .timm_training import RecomputedLayers

NO_FEATURE_MAPS = (
    "{} gives up image tokens on the way, so it has no feature maps: call the model with return_trace=True for the "
    "tokens of every layer, or take features from a full-token or STViT-R model"
)


class TrainingOutputs(NamedTuple):
    """What a model learns from.

    Attributes:
        logits: (B, num_classes).
        auxiliary_logits: (B, num_classes) of a second head that learns from the same labels; ``None`` without one.
        losses: further terms by name, weighted as the model's paper does.
    """

    logits: Tensor
    auxiliary_logits: Tensor | None = None
    losses: dict[str, Tensor] = {}  # noqa: RUF012  read only


class ReducingVisionTransformer(RecomputedLayers, VisionTransformer):
    """timm's vision transformer with fewer and fewer tokens; subclasses say how in :meth:`run_layers`.

    Parameters keep timm's names, so trained DeiT weights fit wherever a layer is the same.
    """

    def forward(self, images: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """Classify normalised images.

        Args:
            images: (B, 3, H, W) with ImageNet mean and deviation, of the size that the model was made for, or with
                ``dynamic_img_size=True`` of any multiple of the patch size.
            return_trace: also return what every layer did to the tokens.

        Returns:
            Logits (B, num_classes), and the :class:`TokenTrace` if asked for.

        Raises:
            ValueError: images of another size.
        """
        tokens, layers = self.run_layers(self.embed(images), self._grid_of(images), return_trace)
        logits = self.forward_head(self.norm(tokens))
        return (logits, TokenTrace(layers)) if return_trace else logits

    def forward_training(self, images: Tensor) -> TrainingOutputs:
        """What :meth:`forward` gives, and what else the model learns from; images as there."""
        return TrainingOutputs(self(images))

    def forward_features(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> the normalised tokens that are left, class token first if there is one."""
        return self.norm(self.run_layers(self.embed(images), self._grid_of(images))[0])

    def embed(self, images: Tensor) -> Tensor:
        """Images -> (B, prefix + N, C): class token if there is one, then image tokens in raster order."""
        if not self.dynamic_img_size:
            check_image_size(images, self.patch_embed.img_size)
        return self.norm_pre(self.patch_drop(self._pos_embed(self.patch_embed(images))))

    def _grid_of(self, images: Tensor) -> tuple[int, int]:
        """Rows and columns of the image tokens."""
        return self.patch_embed.dynamic_feat_size(tuple(images.shape[-2:]))

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """Embedded tokens of an image-token grid -> the tokens after the last layer and, if asked for, what every
        layer did."""
        raise NotImplementedError

    def forward_intermediates(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not available: the tokens do not stay a map.

        Raises:
            ValueError: always.
        """
        raise ValueError(NO_FEATURE_MAPS.format(type(self).__name__))


class FullTokenWeights:
    """For models that have the parameters of a full-token model, under the same names."""

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Published names are ours; a position table made for another image size is resampled, as timm does it. Weights
        with a distillation token are left as they are, so that what does not fit is named."""
        return state_dict if "dist_token" in state_dict else checkpoint_filter_fn(state_dict, self)


def self_attention(
    attention: Attention, normalised: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Self-attention of one of timm's layers, with what a choice among the tokens may need.

    Args:
        attention: of the layer.
        normalised: (B, T, C).
        bias: added to the scaled logits; broadcasts to (B, heads, T, T).

    Returns:
        (B, T, C), and the queries and keys, (B, heads, T, d) each.
    """
    q, k, v = split_heads(attention.qkv(normalised), attention.num_heads, parts=3)
    dropout = attention.attn_drop.p if attention.training else 0.0
    attended, _ = attend(q, k, v, bias=bias, dropout=dropout, fused=attention.fused_attn)
    return attention.proj_drop(attention.proj(merge_heads(attended))), q, k


def attend_and_score(attention: Attention, normalised: Tensor, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Self-attention, and how strongly the class token attends to every other token.

    The one row that the scores need is computed apart, so that all the rest can stay in the fused kernel.

    Args:
        attention, bias: as of :func:`self_attention`.
        normalised: (B, 1 + T, C), class token first.

    Returns:
        (B, 1 + T, C), and (B, T) softmax weights, averaged over the heads.
    """
    attended, q, k = self_attention(attention, normalised, bias)
    logits = q[:, :, :1] * attention.scale @ k.transpose(-2, -1)
    if bias is not None:
        logits = logits + bias[:, :, :1]
    exact = torch.promote_types(logits.dtype, torch.float32)  # half precision would make many scores equal
    class_weights = logits.softmax(dim=-1, dtype=exact)
    return attended, class_weights[:, :, 0, 1:].mean(dim=1)


def build_reducing_model(model: type[nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """``build_model`` for networks without feature maps.

    Raises:
        ValueError: ``features_only`` is asked for.
    """
    if kwargs.get("features_only"):
        raise ValueError(NO_FEATURE_MAPS.format(variant))
    return build_model(model, variant, pretrained, **kwargs)


def check_share(name: str, value: object, usual: str, above: float = 0.0) -> None:
    """Refuse an option that is no share of the tokens.

    Args:
        name, value: of the option.
        usual: what the method's paper uses.
        above: the share has to be larger.

    Raises:
        ValueError: it is no number above that and at most 1.
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not above < value <= 1:
        raise ValueError(f"{name}={value!r}: choose a share above {above:g} and at most 1; the paper uses {usual}")


def check_image_size(images: Tensor, expected_hw: tuple[int, int]) -> None:
    """Refuse images of another size than the model was made for.

    Raises:
        ValueError: see above.
    """
    height, width = images.shape[-2:]
    if (height, width) != tuple(expected_hw):
        raise ValueError(
            f"the model was made for {expected_hw[0]}x{expected_hw[1]} pixels, the images have {height}x{width}: "
            "resize them, or create the model with img_size="
        )
