"""Which networks and settings semantic tokens fit; where they do not, the reason."""

from __future__ import annotations

import math
import operator
from types import NoneType
from typing import Literal, get_args

from timm.layers import Attention, AttentionRope
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock, WindowAttention
from timm.models.vision_transformer import Block, VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn

from stvit.errors import UserError
from stvit.layers.pooling import PoolingName
from stvit.layers.reducing_vit import ReducingVisionTransformer
from stvit.models.stvit_r_swin import LAYERS_PER_UNIT

from .swin import SparseSwin
from .vit import SparseViT

Method = Literal["stvit", "stvit_r"]
KINDS = (VisionTransformer, Eva, SwinTransformer)


class CannotSparsify(UserError, ValueError):
    """A network, or the settings for it, that semantic tokens do not fit."""


def check_structure(model: nn.Module, method: Method) -> None:
    """Refuse networks that the layers of semantic tokens do not fit.

    Raises:
        CannotSparsify: see above.
    """
    reason = why_not(model, method)
    if reason:
        raise CannotSparsify(
            f"{type(model).__name__} cannot be sparsified: {reason}.", "See docs/sparsify.md for what can."
        )


def why_not(model: nn.Module, method: Method = "stvit") -> str | None:
    """The reason why a network cannot be sparsified; ``None`` if it can."""
    if method not in get_args(Method):
        return f"there is no method {method!r}: choose stvit or stvit_r"
    if isinstance(model, ReducingVisionTransformer | SparseViT | SparseSwin):
        return "it gives up image tokens already"
    if not isinstance(model, KINDS):
        return f"it is no VisionTransformer, Eva or SwinTransformer of timm{_part_that_is_one(model)}"
    base = next(kind for kind in KINDS if isinstance(model, kind))
    if getattr(model.forward_features, "__func__", None) is not base.forward_features:
        return "it has a forward_features of its own, which would not use the new layers"
    if base is SwinTransformer:
        return _why_not_swin(model, method)
    if method != "stvit":
        return "method 'stvit_r' is for Swin"
    if isinstance(model.patch_embed, HybridEmbed):
        return "most of a convolutional hybrid's work is done before its first layer"
    if not isinstance(model.patch_drop, nn.Identity | NoneType):
        return "patch_drop_rate drops image tokens in training: create it with patch_drop_rate=0"
    if getattr(model.attn_pool, "pos_embed", None) is not None:
        return "its attention pooling has positions of image tokens"
    if base is VisionTransformer:
        return _why_not_layers(model.blocks, Block, (Attention,))
    return _why_not_layers(model.blocks, EvaBlock, (EvaAttention, AttentionRope))


def _part_that_is_one(model: object) -> str:
    """Where a wrapper (compiled, parallel, a tower of a larger model) holds a network that can be sparsified."""
    parts = model.named_modules() if isinstance(model, nn.Module) else ()
    name = next((name for name, part in parts if isinstance(part, KINDS)), None)
    return f", but its part {name} is one: sparsify that" if name else ""


def _why_not_layers(layers: nn.Module, kind: type[nn.Module], attentions: tuple[type[nn.Module], ...]) -> str | None:
    for layer in layers:
        if type(layer).forward is not kind.forward:
            return f"its layers are of type {type(layer).__name__}, not pre-norm attention and feed-forward in turn"
        if type(layer.attn) not in attentions:
            return f"its attention is {type(layer.attn).__name__}"
        if getattr(layer.attn, "num_kv_groups", 1) > 1:
            return "its queries share keys in groups"
        if layer.attn.qkv is not None and type(layer.attn.qkv).forward is not nn.Linear.forward:
            return (
                f"its queries, keys and values come from {type(layer.attn.qkv).__name__}, no plain linear layer: merge "
                "adapters into the weights first"
            )
    return None


def _why_not_swin(model: SwinTransformer, method: Method) -> str | None:
    layers = [layer for stage in model.layers for layer in stage.blocks]
    if len(model.layers) != 4 or any(type(layer).forward is not SwinTransformerBlock.forward for layer in layers):
        return "it has not Swin's four stages of pre-norm layers"
    third = model.layers[2].blocks
    window, map_hw = third[0].window_size, third[0].input_resolution
    if window[0] != window[1]:
        return f"the windows of stage 3 are no squares: {window}"
    if window[0] > min(map_hw):
        return f"the windows of stage 3 are larger than its map of {map_hw[0]}x{map_hw[1]} tokens"
    if method == "stvit_r" and len(third) % LAYERS_PER_UNIT:
        return f"stage 3 has {len(third)} layers, not a multiple of the {LAYERS_PER_UNIT} of a dumbbell unit"
    return _why_not_layers(layers, SwinTransformerBlock, (WindowAttention,))


def whole_number(value: object, name: str) -> int:
    """An integer of any type.

    Raises:
        CannotSparsify: it is none.
    """
    try:
        if isinstance(value, bool):
            raise TypeError
        return operator.index(value)
    except TypeError:
        raise CannotSparsify(f"{name} is a whole number, not {str(value)[:40]!r}.") from None


def side_of_square(num_semantic_tokens: int, largest: int, of: str) -> int:
    """The root of a number of semantic tokens.

    Args:
        largest: root that fits.
        of: what they have to fit, in words.

    Raises:
        CannotSparsify: it has no whole root, or a larger one.
    """
    side = math.isqrt(max(num_semantic_tokens, 0))
    if not side or side**2 != num_semantic_tokens:
        fitting = [str(n**2) for n in (2, 3, 4, 6, 8) if n <= largest] or ["1"]
        raise CannotSparsify(
            f"{num_semantic_tokens} is no square number of semantic tokens.", f"Take e.g. {', '.join(fitting)}."
        )
    if side > largest:
        raise CannotSparsify(
            f"{num_semantic_tokens} semantic tokens do not fit {of}.",
            f"Choose a square number from 1 to {largest**2}.",
        )
    return side


def tokens_that_fit(model: nn.Module) -> tuple[int, str]:
    """The largest root of a number of semantic tokens for a network that can be sparsified, and what they have to fit,
    in words."""
    if isinstance(model, SwinTransformer):
        window = model.layers[2].blocks[0].window_size[0]
        return window, f"a {window}x{window} window"
    rows, columns = model.patch_embed.grid_size
    return min(rows, columns), f"the {rows}x{columns} image tokens"


def default_position(model: nn.Module, stgm_layers: int = 2) -> int:
    """Layers before the STGM: a third of those of a vision transformer, as in the paper's DeiT (4 of 12); of Swin, so
    many of stage 3 that half of the network's layers come before it, as in the paper's Swin-T, and in its Swin-S and
    Swin-B with the module moved forward (Table 2). Fewer where the STGM would not fit."""
    if isinstance(model, SwinTransformer):
        depths = [len(stage.blocks) for stage in model.layers]
        by_the_rule, depth = sum(depths) // 2 - sum(depths[:2]), depths[2]
    else:
        by_the_rule, depth = len(model.blocks) // 3, len(model.blocks)
    return max(min(by_the_rule, depth - stgm_layers), 0)


def check_position(model: nn.Module, position: int | None, stgm_layers: int, method: Method) -> None:
    """Refuse an STGM that does not fit the depth.

    Args:
        position: layers before it; ``None`` with ``stvit_r``, which has one in every unit.

    Raises:
        CannotSparsify: see above.
    """
    swin = isinstance(model, SwinTransformer)
    if stgm_layers < 2 or (swin and stgm_layers != 2):
        raise CannotSparsify(
            f"An STGM has {'2' if swin else 'at least 2'} layers, not {stgm_layers}.", "Set stgm_layers=2."
        )
    if method == "stvit_r":
        if position is not None:
            raise CannotSparsify("Method 'stvit_r' has an STGM in every six layers of stage 3.", "Name no position.")
        return
    depth, where = (len(model.layers[2].blocks), "stage 3") if swin else (len(model.blocks), "the network")
    if depth < stgm_layers:
        raise CannotSparsify(
            f"An STGM of {stgm_layers} layers does not fit {where} with its {depth}.",
            "Choose fewer stgm_layers." if depth > 1 else "Choose a deeper network.",
        )
    if not 0 <= position <= depth - stgm_layers:
        raise CannotSparsify(
            f"An STGM of {stgm_layers} layers after {position} does not fit {where} with its {depth} layers.",
            f"Choose stgm_position from 0 to {depth - stgm_layers}.",
        )


def check_pooling(pooling: PoolingName, model: nn.Module) -> None:
    """Refuse a pooling that there is not, or that belongs to one image size where the network takes any.

    Raises:
        CannotSparsify: see above.
    """
    if pooling not in get_args(PoolingName):
        raise CannotSparsify(f"There is no pooling {str(pooling)[:40]!r}.", "Choose average, max or intra_inter.")
    if pooling == "intra_inter" and not isinstance(model, SwinTransformer) and model.dynamic_img_size:
        raise CannotSparsify("Pooling 'intra_inter' belongs to one image size.", "Choose average or max.")
