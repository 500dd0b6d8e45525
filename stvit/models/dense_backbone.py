"""Backbones for dense tasks, any input size: STViT-R-Swin with windowed semantic tokens, and full-token Swin beside it
(paper, section 3.3 and Tables 5 and 14).

The dense layout differs from the classifier's: keys of both STGM layers are image tokens alone, the residual is always
there, and recovery attends the semantic tokens of the neighbouring windows. The released code projects every
overlapping copy of a key (242 G multiply-adds for the small model at 800x1333, where the paper counts 134 G); here each
token is projected once, padding is not projected at all, and tokens outside of the map are one key: 132.2 G, with the
same output.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stvit.init_weights import init_from_state_dict, number_merging_by_source
from stvit.layers.attention import CrossAttentionLayer, SemanticLayer, attend, init_weights
from stvit.layers.pooling import AdaptivePooling
from stvit.layers.swin_layers import ConvStem, PatchMerging, PatchStem, SwinLayer, SwinStage, swin_layers
from stvit.layers.timm_training import LayerGroups, RecomputedLayers, stage_groups, swin_groups
from stvit.layers.windows import (
    gather_by_rows,
    pad_to_multiple,
    scatter_without_halo,
    window_partition,
    window_reverse,
)
from stvit.trace import LayerTrace, TokenTrace

from .dense_checkpoint import GLOBAL_NEIGHBOURHOOD, SPATIAL_NEIGHBOURHOOD, Strip, VisibleKeys, visible_keys
from .stvit_r_swin import CENTRES, LAYERS_PER_UNIT, RECOMPUTED, UNIT_LAYERS, WINDOW, DumbbellStage, rename_released

LAYER_SCALE = 1e-5
GATHERED_BYTES = 2**23  # of keys and values at once; larger pieces do not stay in a processor's cache
CLASSIFIER_ONLY = re.compile(r"^(norm|head)\.|\.pooling\.|\.global_centres$")


class DenseSTGMLayer(CrossAttentionLayer):
    """STGM layer (Eq. 1 and 2): a window's semantic tokens attend the image tokens in a square around the window.

    Args:
        dim: channels C.
        num_heads: attention heads.
        neighbourhood: side of the square in image tokens, w_k.
        layer: arguments of :class:`CrossAttentionLayer`.
    """

    kind = "stgm"

    def __init__(self, dim: int, num_heads: int, *, neighbourhood: int, **layer: Any) -> None:
        super().__init__(dim, num_heads, **layer)
        self.neighbourhood = neighbourhood

    def forward(
        self, semantic_windows: Tensor, image_map: Tensor, visible: Tensor | None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Update the semantic tokens.

        Args:
            semantic_windows: (B, nW, m*m, C).
            image_map: (B, H, W, C), not padded.
            visible: see :class:`VisibleKeys`.

        Returns:
            (B, nW, m*m, C) and, if asked for, the softmax weights (B, nW, m*m, K), head-averaged.
        """
        heads, B, C = self.attn.num_heads, image_map.shape[0], image_map.shape[-1]
        outside = heads_first(self.keys_values(self.norm1(image_map.new_zeros(B, 1, 1, C))), 2 * heads)
        keys_values = heads_first(self.keys_values(self.norm1(image_map)), 2 * heads)
        queries = heads_first(self.attn.q(self.norm1(semantic_windows)), heads)
        rows, all_weights, first = [], [], 0
        for around in gather_by_rows(keys_values, WINDOW, self.neighbourhood, outside, GATHERED_BYTES):
            keys, values = around.unflatten(0, (B, 2, heads)).unbind(1)
            windows = slice(first, first + around.shape[1])
            attended, weights = attend(
                queries[:, windows],
                keys.flatten(0, 1),
                values.flatten(0, 1),
                bias=None if visible is None else visible[windows].to(queries.dtype),
                dropout=self.attn.attn_drop if self.training else 0.0,
                fused=self.attn.fused and not return_attention,
            )
            rows.append(attended)
            all_weights.append(weights)
            first = windows.stop
        attended = self.ls1(self.attn.proj_drop(self.attn.proj(heads_last(torch.cat(rows, dim=1), heads))))
        tokens = self.feed_forward(semantic_windows + self.drop_path(attended))
        if not return_attention:
            return tokens, None
        return tokens, torch.cat(all_weights, dim=1).unflatten(0, (B, heads)).mean(1)


def heads_first(tokens: Tensor, heads: int) -> Tensor:
    """(B, r, c, heads * d) -> (B * heads, r, c, d)."""
    return tokens.unflatten(-1, (heads, -1)).permute(0, 3, 1, 2, 4).flatten(0, 1)


def heads_last(tokens: Tensor, heads: int) -> Tensor:
    """(B * heads, r, c, d) -> (B, r, c, heads * d), the inverse of :func:`heads_first`."""
    return tokens.unflatten(0, (-1, heads)).permute(0, 2, 3, 1, 4).flatten(3)


class DenseRecoveryLayer(CrossAttentionLayer):
    """Recovery (Eq. 6): image tokens attend the semantic tokens of their window and of those up to four away."""

    kind = "recovery"

    def forward(
        self, image_map: Tensor, semantic_map: Tensor, strips: tuple[Strip, ...], return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) image and (B, h, w, C) semantic tokens -> (B, H, W, C) and, if asked for, the softmax weights
        (B, H*W, h*w), head-averaged, without those on tokens outside of the map."""
        queries, keys_values = self.norm1(image_map), self.keys_values(self.norm1(semantic_map))
        outside = self.keys_values(self.norm1(image_map.new_zeros(image_map.shape[0], 1, image_map.shape[-1])))
        rows, maps = [], []
        for strip in strips:
            attended, weights = self.attend_from(
                None,
                queries[:, strip.queries].flatten(1, 2),
                torch.cat([keys_values[:, strip.keys].flatten(1, 2), outside], dim=1),
                return_attention,
                strip.bias.to(queries.dtype),
            )
            rows.append(attended)
            if return_attention:
                whole = weights.new_zeros(*attended.shape[:2], *semantic_map.shape[1:3])
                whole[:, :, strip.keys] = weights.mean(1)[..., :-1].unflatten(-1, (-1, semantic_map.shape[2]))
                maps.append(whole.flatten(2))
        recovered = image_map + self.drop_path(torch.cat(rows, dim=1).view(image_map.shape))
        return self.feed_forward(recovered), torch.cat(maps, dim=1) if return_attention else None


class DenseDumbbellUnit(nn.Module):
    """Image-token layer, two STGM layers, local and global semantic-token layers, recovery; see
    :class:`stvit.layers.recovery.DumbbellUnit` for its counterpart at one image size.

    Args:
        dim: channels C.
        num_heads: attention heads.
        drop_paths: stochastic depth of the six layers.
        drop: ``attn_drop`` and ``proj_drop`` of all layers.
    """

    def __init__(self, dim: int, num_heads: int, drop_paths: list[float], **drop: float) -> None:
        super().__init__()
        sizes = {"dim": dim, "num_heads": num_heads, "layer_scale": LAYER_SCALE, **drop}
        rates = iter(drop_paths)
        self.image_layer = SwinLayer(dim, num_heads, window_size=WINDOW, drop_path=next(rates), **drop)
        self.pooling = AdaptivePooling(CENTRES, "max")
        self.stgm_spatial = DenseSTGMLayer(neighbourhood=SPATIAL_NEIGHBOURHOOD, drop_path=next(rates), **sizes)
        self.stgm_global = DenseSTGMLayer(neighbourhood=GLOBAL_NEIGHBOURHOOD, drop_path=next(rates), **sizes)
        self.semantic_local = SemanticLayer(drop_path=next(rates), **sizes)
        self.semantic_global = SemanticLayer(drop_path=next(rates), **sizes)
        self.recovery = DenseRecoveryLayer(drop_path=next(rates), **sizes)

    def forward(
        self, image_map: Tensor, visible: VisibleKeys, number: int = 1, return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, H, W, C) -> (B, H, W, C) and, if asked for, what every layer of this unit (its 1-based number) did."""
        image_map = self.image_layer(image_map)
        centres = self._initial_centres(image_map)
        spatial, spatial_weights = self.stgm_spatial(centres, image_map, visible.spatial, return_trace)
        clustered, global_weights = self.stgm_global(spatial, image_map, visible.global_, return_trace)
        local = self.semantic_local(clustered.flatten(0, 1)).view(clustered.shape)
        semantic_hw = tuple(-(-side // WINDOW) * CENTRES for side in image_map.shape[1:3])
        local_map = window_reverse(local, CENTRES, semantic_hw)
        refined = self.semantic_global(local_map.flatten(1, 2))
        refined_map = refined.view(local_map.shape)
        recovered, recovery_weights = self.recovery(image_map, refined_map, visible.recovery, return_trace)
        if not return_trace:
            return recovered, ()

        image_hw = tuple(image_map.shape[1:3])

        def semantic(name: str, kind: str, windows: Tensor, weights: Tensor | None = None) -> LayerTrace:
            tokens = window_reverse(windows, CENTRES, semantic_hw).flatten(1, 2)
            attention = None if weights is None else _stgm_attention(weights, image_hw)
            return LayerTrace(name, kind, tokens, image_hw, semantic_hw, attention, unit=number)

        return recovered, (
            LayerTrace("Image layer", "image", image_map.flatten(1, 2), image_hw, unit=number),
            semantic("STGM 1", "stgm", spatial, spatial_weights),
            semantic("STGM 2", "stgm", clustered, global_weights),
            semantic("Local semantic layer", "semantic", local),
            LayerTrace("Global semantic layer", "semantic", refined, image_hw, semantic_hw, unit=number),
            LayerTrace(
                "Recovery",
                "recovery",
                recovered.flatten(1, 2),
                image_hw,
                semantic_hw,
                recovery_weights.unsqueeze(1),
                unit=number,
            ),
        )

    def _initial_centres(self, image_map: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, nW, m*m, C), pooled in every window, zero padding included."""
        windows = window_partition(pad_to_multiple(image_map, WINDOW), WINDOW)
        return self.pooling(windows.flatten(0, 1).unflatten(1, (WINDOW, WINDOW))).unflatten(0, windows.shape[:2])


def _stgm_attention(weights: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(B, nW, m*m, K) -> (B, 1, M, H*W): every semantic token's weights on the image tokens, padding left out."""
    neighbourhood = round(weights.shape[-1] ** 0.5)
    whole = scatter_without_halo(weights, WINDOW, neighbourhood, image_hw)
    semantic_hw = tuple(-(-side // WINDOW) * CENTRES for side in image_hw)
    return window_reverse(whole, CENTRES, semantic_hw).flatten(1, 2).unsqueeze(1)


class DenseDumbbellStage(DumbbellStage):
    """Dumbbell units for any input size; which keys are seen is worked out once for all of them."""

    def __init__(self, units: list[DenseDumbbellUnit], downsample: nn.Module, strict_masks: bool) -> None:
        super().__init__(units, downsample)
        self.strict_masks = strict_masks

    def run_layers(self, token_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        visible = visible_keys(tuple(token_map.shape[1:3]), self.strict_masks, token_map.device)
        trace: list[LayerTrace] = []
        for number, unit in enumerate(self.units, start=1):
            token_map, layers = self.run_layer(unit, token_map, visible, number, return_trace)
            trace.extend(layers)
        return token_map, tuple(trace)


class DenseBackbone(RecomputedLayers, nn.Module):
    """Four feature maps at strides 4, 8, 16 and 32, from STViT-R-Swin or from full-token Swin.

    Args:
        embed_dim: channels of the first map; they double from map to map.
        depths: layers per stage; with semantic tokens, the third is a multiple of 6.
        num_heads: attention heads per stage.
        semantic_tokens: STViT-R (conv stem, dumbbell units in the third stage) or plain Swin (patch stem).
        strict_masks: see :func:`stvit.models.dense_checkpoint.hidden_keys`; the published weights need ``False``.
        attn_drop_rate: dropout of attention weights.
        proj_drop_rate: dropout after the projections of attention and feed-forward networks.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0.

    Raises:
        ValueError: the third stage's depth is not a multiple of 6.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        *,
        semantic_tokens: bool = True,
        strict_masks: bool = False,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        drop = {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate}
        if semantic_tokens and depths[2] % LAYERS_PER_UNIT:
            raise ValueError(f"stage 3 has {depths[2]} layers, not a multiple of the {LAYERS_PER_UNIT} of a unit")
        self.channels = tuple(embed_dim * 2**i for i in range(4))
        drop_paths = iter(torch.linspace(0, drop_path_rate, sum(depths), device="cpu").tolist())
        self.stem = (ConvStem if semantic_tokens else PatchStem)(3, embed_dim)
        self.stages = nn.ModuleList()
        for i, (dim, depth, heads) in enumerate(zip(self.channels, depths, num_heads, strict=True)):
            rates = [next(drop_paths) for _ in range(depth)]
            downsample = PatchMerging(dim) if i < 3 else nn.Identity()
            if semantic_tokens and i == 2:
                starts = range(0, depth, LAYERS_PER_UNIT)
                units = [DenseDumbbellUnit(dim, heads, rates[j : j + LAYERS_PER_UNIT], **drop) for j in starts]
                self.stages.append(DenseDumbbellStage(units, downsample, strict_masks))
            else:
                self.stages.append(SwinStage(swin_layers(dim, heads, rates, shift_any=True, **drop), downsample))
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for dim in self.channels)
        self.apply(init_weights)

    def forward(
        self, images: Tensor, return_trace: bool = False
    ) -> tuple[Tensor, ...] | tuple[tuple[Tensor, ...], TokenTrace]:
        """Compute the feature maps.

        Args:
            images: (B, 3, H, W), normalised, any size.
            return_trace: also return what every layer of the dumbbell units did; attention is head-averaged (one head)
                and covers the image tokens of the map without its padding.

        Returns:
            Four maps (B, C_i, H_i, W_i), and the :class:`TokenTrace` if asked for.
        """
        padded = pad_to_multiple(images.permute(0, 2, 3, 1), 4).permute(0, 3, 1, 2)
        token_map, maps, trace = self.stem(padded), [], ()
        for stage, norm in zip(self.stages, self.norms, strict=True):
            token_map, layers = stage.run_layers(token_map, return_trace)
            maps.append(norm(token_map).permute(0, 3, 1, 2))
            token_map = stage.downsample(token_map)
            trace += layers
        return (tuple(maps), TokenTrace(trace)) if return_trace else tuple(maps)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """timm's grouping of parameters for layer-wise learning rates: every layer, or the stages."""
        return stage_groups() if coarse else swin_groups(UNIT_LAYERS)

    def init_from(self, classifier: Mapping[str, Tensor]) -> list[str]:
        """Initialise from a trained classifier of the same family and sizes: STViT-R-Swin, or timm's Swin for the
        full-token backbone. Its final norm, its head, its pooling and G have no counterpart here.

        Returns:
            Names of the parameters that the classifier has nothing for; they keep their initial values.

        Raises:
            ValueError: the names or shapes are not those of such a classifier; nothing is changed.
        """
        state = self.convert_released_state_dict(number_merging_by_source(classifier))
        kept = {name: tensor for name, tensor in state.items() if not CLASSIFIER_ONLY.search(name)}
        new = [name for name in self.state_dict() if name.startswith("norms.")]
        init_from_state_dict(self, kept, new, "a classifier of this backbone's family")
        return new

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the parameters of the authors' and of Swin's backbones to ours; ours are returned as they are."""
        if not any(name.startswith("patch_embed.") for name in state_dict):
            return state_dict
        units = isinstance(self.stages[2], DenseDumbbellStage)
        kept = {n: t for n, t in state_dict.items() if n.rsplit(".", 1)[-1] not in RECOMPUTED}
        return {rename_released(rename_ends(n), units): t for n, t in kept.items()}


def rename_ends(name: str) -> str:
    """What dense backbones have beyond the classifiers: a LayerNorm for every map, and Swin's patch stem."""
    name = re.sub(r"^norm(\d)\.", r"norms.\1.", name)
    return re.sub(r"^patch_embed\.(proj|norm)\.(weight|bias)$", r"stem.\1.\2", name)


SIZES: dict[str, dict[str, Any]] = {
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
    "base": {"embed_dim": 128, "depths": (2, 2, 18, 2), "num_heads": (4, 8, 16, 32)},
}


def dense_backbone(name: str, **options: Any) -> DenseBackbone:
    """Build a backbone, untrained.

    Args:
        name: ``stvit_r_swin_small``, ``stvit_r_swin_base``, ``swin_small`` or ``swin_base``.
        options: arguments of :class:`DenseBackbone`; sizes given here replace the named ones.

    Raises:
        ValueError: no such backbone.
    """
    family, _, size = name.rpartition("_")
    if family not in ("stvit_r_swin", "swin") or size not in SIZES:
        raise ValueError(f"no dense backbone is called {name!r}; there are stvit_r_swin_ and swin_ small and base")
    return DenseBackbone(**SIZES[size] | {"semantic_tokens": family == "stvit_r_swin"} | options)
