"""STViT-DeiT: a DeiT whose fifth and sixth layers turn image tokens into a few semantic tokens (paper, section 3.1).

The authors published no code for it. What the paper leaves open is chosen so that the published FLOPs come out; the
docstring of :class:`SemanticTokenViT` names each choice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NoReturn, get_args

import torch
from timm.models import generate_default_cfgs, register_model
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from stvit.init_weights import init_from_state_dict
from stvit.layers.attention import init_weights
from stvit.layers.pooling import LearnedCentres, PoolingName, fitting_layout, initial_centres
from stvit.layers.reducing_vit import ReducingVisionTransformer, build_reducing_model
from stvit.layers.stgm import GlobalSTGMLayer, WholeMapSTGMLayer
from stvit.pretrained.records import PUBLISHED_CROP, ModelRecord, classifier_figures
from stvit.trace import LayerTrace

Initialisation = Literal["both", "spatial", "global", "learned_position"]
ONE_SIZE = "the STGM belongs to one image size: create the model with img_size= instead"


class SemanticTokenViT(ReducingVisionTransformer):
    """A vision transformer of three parts: image-token layers, STGM, semantic-token layers.

    All layers are in ``blocks`` under timm's numbers; those of the STGM have ``q`` and ``kv`` in place of ``qkv``. The
    head is the final norm, the mean over the semantic tokens, and a linear layer.

    Choices where the paper is silent or ambiguous: keys of the first STGM layer are the image tokens alone (Eq. 1), of
    the later ones ``Concat(S, X)`` (Eq. 2); layers after the second add no further G; the residual of the second is S
    without G (Eq. 2); no class token; no LayerScale (timm's ``init_values`` turns it on, in all layers).

    Args:
        num_semantic_tokens: M, a square number; the tokens start as the centres of sqrt(M) x sqrt(M) bins of the map.
        stgm_layers: layers of the STGM, at least 2; more of them take the place of semantic-token layers (Table 8).
        stgm_position: number of image-token layers before the STGM.
        pooling: spatial initialisation: ``intra_inter`` (Eq. 4 and 5), or parameter-free ``average`` or ``max``.
        initialisation: ``both`` pooled centres and G (the paper's choice), only one of them (``spatial``; ``global``
            puts G in the place of the pooled centres), or ``learned_position``, G on queries and keys (Table 7).
        class_token_in_base: let a class token pass through the image-token layers and end there. The paper's FLOPs of
            DeiT-T and -B include one, those of DeiT-S do not.
        vit: arguments of timm's ``VisionTransformer``, e.g. ``img_size``, ``num_classes``, ``drop_path_rate``.

    Raises:
        ValueError: the STGM does not fit the depth, M is no square number or too large for the image, an unknown
            pooling or initialisation, or ``dynamic_img_size``.
    """

    def __init__(
        self,
        *,
        num_semantic_tokens: int = 16,
        stgm_layers: int = 2,
        stgm_position: int = 4,
        pooling: PoolingName = "intra_inter",
        initialisation: Initialisation = "both",
        class_token_in_base: bool = False,
        global_pool: str = "avg",
        **vit: Any,
    ) -> None:
        if vit.get("dynamic_img_size"):
            raise ValueError(ONE_SIZE)
        # no prefix is left when the head pools, so there is none to leave out
        prefix = {"class_token": class_token_in_base, "pool_include_prefix": True}
        super().__init__(**vit, **prefix, global_pool=global_pool, fc_norm=False)
        grid_hw, depth = self.patch_embed.grid_size, len(self.blocks)
        side = math.isqrt(max(num_semantic_tokens, 0))
        if side**2 != num_semantic_tokens or not 0 < side <= min(grid_hw):
            raise ValueError(
                f"{num_semantic_tokens} semantic tokens do not fit a {grid_hw[0]}x{grid_hw[1]} map: choose a square "
                f"number from 1 to {min(grid_hw) ** 2}"
            )
        if stgm_layers < 2 or not 0 <= stgm_position <= depth - stgm_layers:
            raise ValueError(
                f"an STGM of {stgm_layers} layers after {stgm_position} image-token layers does not fit: choose at "
                f"least 2 and no more than the network's {depth} layers in all"
            )
        self.stgm_position, self.stgm_layers, self.semantic_grid_hw = stgm_position, stgm_layers, (side, side)
        replaced = list(self.blocks[stgm_position : stgm_position + stgm_layers])
        layer = {"layer_scale": vit.get("init_values")}
        layer |= {"attn_drop": vit.get("attn_drop_rate", 0.0), "proj_drop": vit.get("proj_drop_rate", 0.0)}
        stgm = build_stgm(replaced, grid_hw, side, pooling, initialisation, layer)
        for i, stgm_layer in enumerate(stgm, start=stgm_position):
            self.blocks[i] = stgm_layer

    def run_layers(
        self, tokens: Tensor, grid_hw: tuple[int, int], return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, prefix + N, C) -> semantic tokens (B, M, C) and, if asked for, what every layer did."""
        first, end = self.stgm_position, self.stgm_position + self.stgm_layers
        trace, weights = [], None
        for i, layer in enumerate(self.blocks):
            if i == first:
                image_tokens = tokens[:, self.num_prefix_tokens :]
                tokens, weights = self.run_layer(layer, image_tokens, grid_hw, return_trace)
            elif first < i < end:
                tokens, weights = self.run_layer(layer, tokens, image_tokens, return_trace)
            else:
                tokens = self.run_layer(layer, tokens)
            if return_trace:
                trace.append(self._trace_layer(i, tokens, weights))
        return tokens, tuple(trace)

    def _trace_layer(self, i: int, tokens: Tensor, weights: Tensor | None) -> LayerTrace:
        """What layer ``i`` (from 0) did."""
        image_hw, semantic_hw = self.patch_embed.grid_size, self.semantic_grid_hw
        if i < self.stgm_position:
            return LayerTrace(f"Layer {i + 1}", "image", tokens[:, self.num_prefix_tokens :], image_hw)
        if i >= self.stgm_position + self.stgm_layers:
            return LayerTrace(f"Layer {i + 1}", "semantic", tokens, image_hw, semantic_hw)
        on_image = weights[..., -math.prod(image_hw) :]  # semantic keys come first
        return LayerTrace(f"STGM {i - self.stgm_position + 1}", "stgm", tokens, image_hw, semantic_hw, on_image)

    def init_from(self, full_token: Mapping[str, Tensor]) -> list[str]:
        """Initialise from a trained full-token model of the same sizes and image size, e.g. timm's DeiT.

        The STGM takes the weights of the layers it replaces, with ``qkv`` split into ``q`` and ``kv``. A class token
        and an auxiliary head that this model lacks are left out.

        Returns:
            Names of the parameters that the full-token model has nothing for; they keep their initial values.

        Raises:
            ValueError: the names or shapes are not those of such a model; nothing is changed.
        """
        state = split_stgm_attention(full_token, range(self.stgm_position, self.stgm_position + self.stgm_layers))
        if self.cls_token is None and state.pop("cls_token", None) is not None:
            state["pos_embed"] = state["pos_embed"][:, 1:]
        state = {name: tensor for name, tensor in state.items() if not name.startswith("aux_head.")}
        new = [name for name in self.state_dict() if ".pooling." in name or "global_centres" in name]
        init_from_state_dict(self, state, new, f"the full-token model of {type(self).__name__}")
        return new

    def set_input_size(self, *args: Any, **kwargs: Any) -> NoReturn:
        """Not available: the pooling of the STGM belongs to one size.

        Raises:
            ValueError: always.
        """
        raise ValueError(ONE_SIZE)

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        centres = {name for name, _ in self.named_parameters() if name.endswith("global_centres")}
        return super().no_weight_decay() | centres


def build_stgm(
    replaced: list[Block],
    grid_hw: tuple[int, int],
    side: int,
    pooling: PoolingName,
    initialisation: Initialisation,
    layer: Mapping[str, Any],
) -> list[nn.Module]:
    """STGM layers of the sizes of the layers that they replace; arguments as for :class:`SemanticTokenViT`, and further
    ones of a :class:`CrossAttentionLayer`.

    Raises:
        ValueError: unknown pooling or initialisation.
    """
    if initialisation not in get_args(Initialisation):
        raise ValueError(f"unknown initialisation {initialisation!r}: choose {', '.join(get_args(Initialisation))}")
    dim, num_heads = replaced[0].norm1.normalized_shape[0], replaced[0].attn.num_heads
    if initialisation == "global":
        centres: nn.Module = LearnedCentres(dim, side)
    else:
        centres = initial_centres(pooling, dim, grid_hw, side, fitting_layout(grid_hw, side))
    first, *later = [{**sizes_of(block), **layer} for block in replaced]
    layers: list[nn.Module] = [WholeMapSTGMLayer(dim, num_heads, centres, **first)]
    guides = {
        "num_global_centres": side**2 if initialisation in ("both", "learned_position") else 0,
        "centres_in_keys": initialisation == "learned_position",
    }
    for i, sizes in enumerate(later):
        layers.append(GlobalSTGMLayer(dim, num_heads, **({} if i else guides), **sizes))
    return [stgm_layer.apply(init_weights) for stgm_layer in layers]


def sizes_of(block: Block) -> dict[str, Any]:
    """The arguments that make a :class:`CrossAttentionLayer` the size of a layer of timm's."""
    return {
        "mlp_ratio": block.mlp.fc1.out_features / block.mlp.fc1.in_features,
        "qkv_bias": block.attn.qkv.bias is not None,
        "drop_path": getattr(block.drop_path1, "drop_prob", 0.0),
        "norm_eps": block.norm1.eps,
    }


def split_stgm_attention(state_dict: Mapping[str, Tensor], layers: range) -> dict[str, Tensor]:
    """Rename ``blocks.N.attn.qkv`` to ``q`` and ``kv`` for these layers N: the first third is the query's."""
    split = dict(state_dict)
    for i in layers:
        for kind in ("weight", "bias"):
            qkv = split.pop(f"blocks.{i}.attn.qkv.{kind}", None)
            if qkv is not None:
                dim = qkv.shape[0] // 3
                split[f"blocks.{i}.attn.q.{kind}"], split[f"blocks.{i}.attn.kv.{kind}"] = qkv[:dim], qkv[dim:]
    return split


#: arguments of timm's VisionTransformer for each size of DeiT
DEIT_SIZES: dict[str, dict[str, int]] = {
    "tiny": {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3},
    "small": {"patch_size": 16, "embed_dim": 384, "depth": 12, "num_heads": 6},
    "base": {"patch_size": 16, "embed_dim": 768, "depth": 12, "num_heads": 12},
}
#: how DeiT and what descends from it is evaluated
DEIT_PREPROCESSING: dict[str, Any] = {
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "fixed_input_size": True,
    "crop_pct": PUBLISHED_CROP,
    "interpolation": "bicubic",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "patch_embed.proj",
    "classifier": "head",
}
STVIT_PAPER = {
    "paper_ids": "arXiv:2303.08685",
    "paper_name": "Making Vision Transformers Efficient from A Token Sparsification View",
}
PUBLISHED = {  # Table 1
    "tiny": classifier_figures(72.2, 0.53, 5511),
    "small": classifier_figures(79.8, 1.91, 2891),
    "base": classifier_figures(81.8, 7.31, 1308),
}
# no trained weights were ever published
default_cfgs = generate_default_cfgs(
    {
        f"stvit_deit_{size}_patch16_224": ModelRecord(
            **DEIT_PREPROCESSING, **STVIT_PAPER, published=figures, published_note="16 semantic tokens"
        )
        for size, figures in PUBLISHED.items()
    }
)


def _create(size: str, pretrained: bool, **kwargs: Any) -> SemanticTokenViT:
    variant = f"stvit_deit_{size}_patch16_224"
    return build_reducing_model(SemanticTokenViT, variant, pretrained, **{**DEIT_SIZES[size], **kwargs})


@register_model
def stvit_deit_tiny_patch16_224(pretrained: bool = False, **kwargs: Any) -> SemanticTokenViT:
    """STViT-DeiT-T: published 72.2 % top-1 with 16 semantic tokens at 0.53 G multiply-adds (Table 1)."""
    return _create("tiny", pretrained, **kwargs)


@register_model
def stvit_deit_small_patch16_224(pretrained: bool = False, **kwargs: Any) -> SemanticTokenViT:
    """STViT-DeiT-S: published 79.8 % top-1 with 16 semantic tokens at 1.91 G multiply-adds (Table 1)."""
    return _create("small", pretrained, **kwargs)


@register_model
def stvit_deit_base_patch16_224(pretrained: bool = False, **kwargs: Any) -> SemanticTokenViT:
    """STViT-DeiT-B: published 81.8 % top-1 with 16 semantic tokens at 7.31 G multiply-adds (Table 1)."""
    return _create("base", pretrained, **kwargs)
