"""``sparsify``: a copy of a trained network of timm whose later layers process a few semantic tokens."""

from __future__ import annotations

import copy
from functools import cache
from typing import Any

import torch
from timm.models._input import get_model_args
from timm.models.eva import Eva
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from stvit.layers.pooling import PoolingName, fitting_layout, initial_centres
from stvit.layers.stgm import GlobalSTGMLayer, WholeMapSTGMLayer

from .adopt import EvaGlobalSTGMLayer, EvaWholeMapSTGMLayer, adopt
from .fit import (
    CannotSparsify,
    Method,
    check_pooling,
    check_position,
    check_structure,
    default_position,
    side_of_square,
    tokens_that_fit,
    whole_number,
)
from .swin import SemanticOnlyStage, SparseStage, SparseSwin, dumbbell_stage, semantic_stage
from .vit import SparseEva, SparseViT, Traced

REGISTERED = "sparsified"  # the registered model that builds them again, see ``registered.py``
OPTIONS = ("num_semantic_tokens", "stgm_position", "stgm_layers", "method", "pooling")  # its own, beside the original's


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
            default those that the paper chooses, see :func:`stvit.sparsify.fit.default_position`.
        stgm_layers: layers of the module, at least 2; of Swin always 2.
        method: ``stvit``, or ``stvit_r`` (Swin alone), which recovers full resolution after every six layers of
            stage 3.
        pooling: what the tokens begin as: ``average`` or ``max`` of their bin of the map, or ``intra_inter`` (paper,
            Eq. 4 and 5), which is learned and belongs to one image size.

    Raises:
        CannotSparsify: the network has another structure, or the settings do not fit it; says which.
    """
    check_structure(model, method)
    check_pooling(pooling, model)
    num_semantic_tokens = whole_number(num_semantic_tokens, "num_semantic_tokens")
    side = side_of_square(num_semantic_tokens, *tokens_that_fit(model))
    stgm_layers = whole_number(stgm_layers, "stgm_layers")
    if stgm_position is not None:
        stgm_position = whole_number(stgm_position, "stgm_position")
    elif method == "stvit":
        stgm_position = default_position(model, stgm_layers)
    check_position(model, stgm_position, stgm_layers, method)
    sparse = copy_of(model)
    if not isinstance(model, SwinTransformer):
        sparsify_vit(sparse, side, stgm_position, stgm_layers, pooling)
    else:
        sparsify_swin(sparse, side, stgm_position, pooling)
    if architecture := getattr(model, "pretrained_cfg", {}).get("architecture"):
        args = {"num_semantic_tokens": num_semantic_tokens, "stgm_position": stgm_position, "stgm_layers": stgm_layers}
        args |= {"method": method, "pooling": pooling}
        sparse.pretrained_cfg = {**model.pretrained_cfg, "architecture": REGISTERED}
        sparse.default_cfg = sparse.pretrained_cfg
        kept = {name: value for name, value in args.items() if value is not None}
        sparse._model_args = {**get_model_args(model), "of": architecture, **kept}
    return sparse


def copy_of(model: nn.Module) -> nn.Module:
    """A deep copy.

    Raises:
        CannotSparsify: it has attributes that cannot be copied, such as weights that are computed of others.
    """
    try:
        return copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition(". ")[0].rstrip(".")
        raise CannotSparsify(
            f"{type(model).__name__} cannot be copied: {reason}.", "Give it plain parameters, and attributes of data."
        ) from error


def sparsify_vit(sparse: nn.Module, side: int, position: int, stgm_layers: int, pooling: PoolingName) -> None:
    """Replace layers of a copy of a ``VisionTransformer`` or ``Eva``, and make it a sparse one."""
    grid_hw, eva = tuple(sparse.patch_embed.grid_size), isinstance(sparse, Eva)
    layers = sparse.blocks[position : position + stgm_layers]
    weight = next(layers[0].parameters())
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


def sparsify_swin(sparse: SwinTransformer, side: int, position: int | None, pooling: PoolingName) -> None:
    """Replace stages of a copy of a ``SwinTransformer``, and make it a sparse one; with recovery where there is no
    position."""
    blocks = list(sparse.layers[2].blocks)
    if position is None:
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
        return empty, (base, before), self.__getstate__()  # without a compiled forward, which is the original's

    named = f"Sparse[{base.__module__}.{base.__qualname__}]"  # by which cached graphs are told apart
    attributes = {"__module__": __name__, "__qualname__": named, "__doc__": before[-1].__doc__, "__reduce__": rebuild}
    return type(f"Sparse{base.__name__}", (*before, base), attributes)


def empty(base: type, before: tuple[type, ...]) -> nn.Module:
    """A sparsified model without its state, for pickle."""
    kind = sparse_class(base, before)
    return kind.__new__(kind)
