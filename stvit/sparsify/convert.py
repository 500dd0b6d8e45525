"""``sparsify``: a copy of a trained network of timm whose later layers process a few semantic tokens."""

from __future__ import annotations

import copy
import math
from functools import cache
from types import NoneType
from typing import Any, Literal

import torch
from timm.layers import Attention, AttentionRope
from timm.models._input import get_model_args
from timm.models.eva import Eva, EvaAttention, EvaBlock
from timm.models.swin_transformer import SwinTransformer, SwinTransformerBlock
from timm.models.vision_transformer import Block, VisionTransformer
from timm.models.vision_transformer_hybrid import HybridEmbed
from torch import nn

from stvit.errors import UserError
from stvit.layers.pooling import PoolingName, fitting_layout, initial_centres
from stvit.layers.reducing_vit import ReducingVisionTransformer
from stvit.layers.stgm import GlobalSTGMLayer, WholeMapSTGMLayer
from stvit.models.stvit_r_swin import LAYERS_PER_UNIT

from .adopt import EvaGlobalSTGMLayer, EvaWholeMapSTGMLayer, adopt
from .swin import SemanticOnlyStage, SparseStage, SparseSwin, dumbbell_stage, semantic_stage
from .vit import SparseEva, SparseViT, Traced

Method = Literal["stvit", "stvit_r"]
REGISTERED = "sparsified"  # the registered model that builds them again, see ``registered.py``
OPTIONS = ("num_semantic_tokens", "stgm_position", "stgm_layers", "method", "pooling")  # its own, beside the original's


class CannotSparsify(UserError, ValueError):
    """A network, or the settings for it, that semantic tokens do not fit."""


def sparsify(
    model: nn.Module,
    num_semantic_tokens: int = 16,
    stgm_position: int | None = None,
    stgm_layers: int = 2,
    method: Method = "stvit",
    pooling: PoolingName = "average",
) -> nn.Module:
    """Copy a network of timm and let its later layers process semantic tokens.

    The copy begins with the weights of the original and has its class's interface: head, ``num_features``,
    ``forward_features`` (with the semantic tokens in the place of the image tokens), ``reset_classifier``, parameter
    names, saving and loading. ``forward(images, return_trace=True)`` also says what every layer did.

    Args:
        model: a ``VisionTransformer``, ``Eva`` or ``SwinTransformer``, or an own subclass of one; left as it is.
        num_semantic_tokens: a square number: of the whole image, or of Swin, in each of its windows.
        stgm_position: layers before the semantic token generation module; of Swin, layers of stage 3 before it. By
            default those that the paper chooses, see :func:`default_position`.
        stgm_layers: layers of the module, at least 2; of Swin always 2.
        method: ``stvit``, or ``stvit_r`` (Swin alone), which recovers full resolution after every six layers of
            stage 3.
        pooling: what the tokens begin as: ``average`` or ``max`` of their bin of the map, or ``intra_inter`` (paper,
            Eq. 4 and 5), which is learned and belongs to one image size.

    Raises:
        CannotSparsify: the network has another structure, or the settings do not fit it; says which.
    """
    side = math.isqrt(max(num_semantic_tokens, 0))
    if side**2 != num_semantic_tokens or not side:
        raise CannotSparsify(
            f"{num_semantic_tokens} is no square number of semantic tokens.", "Take e.g. 16, 36 or 64."
        )
    check_structure(model, method)
    position = default_position(model) if stgm_position is None else stgm_position
    check_position(model, position, stgm_layers, method)
    args = {"num_semantic_tokens": num_semantic_tokens, "method": method, "pooling": pooling}
    args |= {"stgm_layers": stgm_layers} | ({"stgm_position": position} if method == "stvit" else {})
    sparse = copy.deepcopy(model)
    if isinstance(model, SwinTransformer):
        sparsify_swin(sparse, side, position, method, pooling)
    else:
        sparsify_vit(sparse, side, position, stgm_layers, pooling)
    if architecture := getattr(model, "pretrained_cfg", {}).get("architecture"):
        sparse.pretrained_cfg = {**model.pretrained_cfg, "architecture": REGISTERED}
        sparse.default_cfg = sparse.pretrained_cfg
        sparse._model_args = {**get_model_args(model), "of": architecture, **args}
    return sparse


def default_position(model: nn.Module) -> int:
    """Layers before the STGM: a third of those of a vision transformer, as in the paper's DeiT (4 of 12); of Swin, so
    many of stage 3 that half of the network's layers come before it, as in the paper's Swin-T, and in its Swin-S and
    Swin-B with the module moved forward (Table 2)."""
    if isinstance(model, SwinTransformer):
        depths = [len(stage.blocks) for stage in model.layers]
        return max(sum(depths) // 2 - sum(depths[:2]), 0)
    return len(model.blocks) // 3


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
    if isinstance(model, ReducingVisionTransformer | SparseViT | SparseSwin):
        return "it gives up image tokens already"
    if not isinstance(model, VisionTransformer | Eva | SwinTransformer):
        return "it is no VisionTransformer, Eva or SwinTransformer of timm"
    base = next(kind for kind in (VisionTransformer, Eva, SwinTransformer) if isinstance(model, kind))
    if type(model).forward_features is not base.forward_features:
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
    block, attentions = (
        (Block, (Attention,)) if base is VisionTransformer else (EvaBlock, (EvaAttention, AttentionRope))
    )
    for layer in model.blocks:
        if type(layer).forward is not block.forward:
            return f"its layers are of type {type(layer).__name__}, not pre-norm attention and feed-forward in turn"
        if type(layer.attn) not in attentions:
            return f"its attention is {type(layer.attn).__name__}"
        if getattr(layer.attn, "num_kv_groups", 1) > 1:
            return "its queries share keys in groups"
    return None


def _why_not_swin(model: SwinTransformer, method: Method) -> str | None:
    if method not in ("stvit", "stvit_r"):
        return f"there is no method {method!r}: choose stvit or stvit_r"
    layers = [layer for stage in model.layers for layer in stage.blocks]
    if len(model.layers) != 4 or any(type(layer).forward is not SwinTransformerBlock.forward for layer in layers):
        return "it has not Swin's four stages of pre-norm layers"
    third = model.layers[2].blocks
    if third[0].window_size[0] != third[0].window_size[1]:
        return f"the windows of stage 3 are no squares: {third[0].window_size}"
    if method == "stvit_r" and len(third) % LAYERS_PER_UNIT:
        return f"stage 3 has {len(third)} layers, not a multiple of the {LAYERS_PER_UNIT} of a dumbbell unit"
    return None


def check_position(model: nn.Module, position: int, stgm_layers: int, method: Method) -> None:
    """Refuse an STGM that does not fit the depth.

    Raises:
        CannotSparsify: see above.
    """
    swin = isinstance(model, SwinTransformer)
    depth = len(model.layers[2].blocks) if swin else len(model.blocks)
    if stgm_layers < 2 or (swin and stgm_layers != 2):
        raise CannotSparsify(
            f"An STGM has {'2' if swin else 'at least 2'} layers, not {stgm_layers}.", "Set stgm_layers=2."
        )
    if method == "stvit" and not 0 <= position <= depth - stgm_layers:
        where = "stage 3" if swin else "the network"
        raise CannotSparsify(
            f"An STGM of {stgm_layers} layers after {position} does not fit {where} with its {depth} layers.",
            f"Choose stgm_position from 0 to {depth - stgm_layers}."
            if depth >= stgm_layers
            else "Choose a deeper network.",
        )


def sparsify_vit(sparse: nn.Module, side: int, position: int, stgm_layers: int, pooling: PoolingName) -> None:
    """Replace layers of a copy of a ``VisionTransformer`` or ``Eva``, and make it a sparse one.

    Raises:
        CannotSparsify: too many tokens for the map, or a pooling that does not fit.
    """
    grid_hw, eva = tuple(sparse.patch_embed.grid_size), isinstance(sparse, Eva)
    if side > min(grid_hw):
        raise CannotSparsify(
            f"{side**2} semantic tokens do not fit the {grid_hw[0]}x{grid_hw[1]} image tokens.",
            f"Choose a square number from 1 to {min(grid_hw) ** 2}.",
        )
    if pooling == "intra_inter" and sparse.dynamic_img_size:
        raise CannotSparsify("Pooling 'intra_inter' belongs to one image size.", "Choose average or max.")
    layers = sparse.blocks[position : position + stgm_layers]
    weight = layers[0].norm1.weight
    like = {"device": weight.device, "dtype": weight.dtype}
    centres = initial_centres(pooling, sparse.embed_dim, grid_hw, side, fitting_layout(grid_hw, side)).to(**like)
    kinds = (EvaWholeMapSTGMLayer, EvaGlobalSTGMLayer) if eva else (WholeMapSTGMLayer, GlobalSTGMLayer)
    blocks = list(sparse.blocks)
    blocks[position] = adopt(kinds[0], layers[0], pooling=centres, num_prefix_tokens=sparse.num_prefix_tokens)
    for i, block in enumerate(layers[1:], start=1):
        guides = nn.Parameter(torch.zeros(1, side**2, sparse.embed_dim, **like)) if i == 1 else None
        blocks[position + i] = adopt(kinds[1], block, global_centres=guides, centres_in_keys=False)
    for i, block in enumerate(blocks):
        sparse.blocks[i] = block
    sparse.stgm_position, sparse.stgm_layers, sparse.semantic_grid_hw = position, stgm_layers, (side, side)
    become(sparse, SparseEva if eva else SparseViT)


def sparsify_swin(sparse: SwinTransformer, side: int, position: int, method: Method, pooling: PoolingName) -> None:
    """Replace stages of a copy of a ``SwinTransformer``, and make it a sparse one.

    Raises:
        CannotSparsify: too many tokens for a window.
    """
    blocks = list(sparse.layers[2].blocks)
    window = blocks[0].window_size[0]
    if side > window:
        raise CannotSparsify(
            f"{side**2} semantic tokens do not fit a {window}x{window} window.",
            f"Choose a square number from 1 to {window**2}.",
        )
    if method == "stvit_r":
        stage = dumbbell_stage(blocks, side, pooling)
    else:
        stage = semantic_stage(blocks, sparse.layers[3].downsample, position, side, pooling)
        sparse.layers[3] = SemanticOnlyStage(sparse.layers[3].blocks)
    sparse.layers[2] = SparseStage(sparse.layers[2].downsample, stage)
    become(sparse, SparseSwin)


def become(model: nn.Module, kind: type) -> None:
    """Put a class before the one that a model has."""
    base = type(model)
    own_forward = base.forward not in (VisionTransformer.forward, Eva.forward, SwinTransformer.forward)
    model.__class__ = sparse_class(base, (kind,) if own_forward else (Traced, kind))


@cache
def sparse_class(base: type, before: tuple[type, ...]) -> type:
    """The class of a sparsified model; it can be pickled."""

    def rebuild(self: nn.Module) -> tuple[Any, ...]:
        return empty, (base, before), self.__dict__

    named = f"Sparse[{base.__module__}.{base.__qualname__}]"  # by which cached graphs are told apart
    attributes = {"__module__": __name__, "__qualname__": named, "__doc__": before[-1].__doc__, "__reduce__": rebuild}
    return type(f"Sparse{base.__name__}", (*before, base), attributes)


def empty(base: type, before: tuple[type, ...]) -> nn.Module:
    """A sparsified model without its state, for pickle."""
    kind = sparse_class(base, before)
    return kind.__new__(kind)
