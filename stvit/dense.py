"""Backbones for dense tasks, any input size: STViT-R-Swin with windowed semantic tokens, and full-token Swin beside it
(paper, section 3.3 and Tables 5 and 14).

The dense layout differs from the classifier's: keys of both STGM layers are image tokens alone, the residual is always
there, and recovery attends the semantic tokens of the neighbouring windows. The released code projects every
overlapping copy of a key (242 G multiply-adds for the small model at 800x1333); here each token is projected once
(134 G), with the same output.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from .attention import CrossAttentionLayer, SemanticLayer, init_weights
from .pooling import AdaptivePooling
from .swin import ConvStem, PatchMerging, PatchStem, SwinLayer, SwinStage, swin_layers
from .swin_r import CENTRES, LAYERS_PER_UNIT, RECOMPUTED, WINDOW, DumbbellStage, rename_released
from .trace import LayerTrace, TokenTrace
from .windows import gather_with_halo, pad_to_multiple, scatter_without_halo, window_partition, window_reverse

SPATIAL_NEIGHBOURHOOD = 14  # image tokens per side of the keys in the first STGM layer, w_k
GLOBAL_NEIGHBOURHOOD = 21  # and in the second
RECOVERY_NEIGHBOURHOOD = 9 * CENTRES  # semantic tokens per side in recovery: nine windows
LAYER_SCALE = 1e-5


@dataclass(frozen=True)
class HiddenKeys:
    """Bias of (nW, 1, 1, K), -inf on the keys that a window must not see; ``None`` where it sees all.

    Attributes:
        spatial, global_: of the image tokens, for the two STGM layers.
        recovery: of the semantic tokens.
    """

    spatial: Tensor | None
    global_: Tensor | None
    recovery: Tensor | None


def hidden_keys(grid_hw: tuple[int, int], strict: bool, device: torch.device) -> HiddenKeys:
    """Which keys the windows of a map of image tokens must not see.

    The released weights were trained with masks that hide the padding only where exactly one axis is padded: with both
    padded they hide the bottom right corner alone, with none the tokens outside of the map are not hidden either, and
    the widths, counted in image tokens, are applied to the map of semantic tokens as they are.

    Args:
        grid_hw: rows and columns of the map before it is padded to windows.
        strict: hide exactly the padding and what lies outside of the map, as the paper means it.
    """
    below, right = (-side % WINDOW for side in grid_hw)
    windows_hw = [-(-side // WINDOW) for side in grid_hw]

    def bias(tokens_per_window: int, neighbourhood: int, padding: bool) -> Tensor | None:
        if not (strict or below or right):
            return None
        H, W = (side * tokens_per_window for side in windows_hw)
        hidden = torch.zeros(1, H, W, 1, dtype=torch.bool, device=device)
        if not strict:
            hidden[:, -below or None :, -right or None :] = True
        elif padding:
            hidden[:, H - below :] = True
            hidden[:, :, W - right :] = True
        outside = hidden.new_ones(1)
        keys = gather_with_halo(hidden, tokens_per_window, neighbourhood, outside)[0, :, None, None, :, 0]
        keys = keys & ~keys.all(dim=-1, keepdim=True)  # the same penalty on all keys cancels out
        return torch.zeros(keys.shape, device=device).masked_fill(keys, -torch.inf)

    return HiddenKeys(
        spatial=bias(WINDOW, SPATIAL_NEIGHBOURHOOD, padding=True),
        global_=bias(WINDOW, GLOBAL_NEIGHBOURHOOD, padding=True),
        recovery=bias(CENTRES, RECOVERY_NEIGHBOURHOOD, padding=False),
    )


class NeighbourhoodLayer(CrossAttentionLayer):
    """Every window's queries attend the tokens of a map in a square around the window.

    Args:
        dim: channels C.
        num_heads: attention heads.
        key_window: side of a window in tokens of the keys' map.
        neighbourhood: side of the square in the same tokens.
        layer: arguments of :class:`CrossAttentionLayer`.
    """

    def __init__(self, dim: int, num_heads: int, *, key_window: int, neighbourhood: int, **layer: Any) -> None:
        super().__init__(dim, num_heads, **layer)
        self.key_window, self.neighbourhood = key_window, neighbourhood

    def attend_around(
        self, windows: Tensor, key_map: Tensor, hidden: Tensor | None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Attention with its residual.

        Args:
            windows: (B, nW, Q, C), the queries.
            key_map: (B, h, w, C), ``key_window`` tokens per window side.
            hidden: see :class:`HiddenKeys`.

        Returns:
            (B, nW, Q, C) and, if asked for, the softmax weights (B, nW, Q, K), head-averaged.
        """
        B = len(windows)
        outside = self.keys_values(self.norm1(key_map.new_zeros(key_map.shape[-1])))
        keys_values = self.keys_values(self.norm1(key_map))
        around = gather_with_halo(keys_values, self.key_window, self.neighbourhood, outside)
        attended, weights = self.attend_from(
            windows.flatten(0, 1),
            self.norm1(windows).flatten(0, 1),
            around.flatten(0, 1),
            return_attention,
            None if hidden is None else hidden.to(windows.dtype).repeat(B, 1, 1, 1),
        )
        return attended.view(windows.shape), None if weights is None else weights.mean(1).unflatten(0, (B, -1))


class DenseSTGMLayer(NeighbourhoodLayer):
    """STGM layer (Eq. 1 and 2): a window's semantic tokens attend the image tokens around it."""

    kind = "stgm"

    def forward(
        self, semantic_windows: Tensor, image_map: Tensor, hidden: Tensor | None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, nW, m*m, C) -> (B, nW, m*m, C) and, if asked for, the weights (B, nW, m*m, K)."""
        tokens, weights = self.attend_around(semantic_windows, image_map, hidden, return_attention)
        return self.feed_forward(tokens), weights


class DenseRecoveryLayer(NeighbourhoodLayer):
    """Recovery (Eq. 6): a window's image tokens attend the semantic tokens of the windows around it."""

    kind = "recovery"

    def forward(
        self, image_map: Tensor, semantic_map: Tensor, hidden: Tensor | None, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, H, W, C) image and (B, h, w, C) semantic tokens -> (B, H, W, C) and, if asked for, the weights
        (B, nW, w*w, K)."""
        H, W = image_map.shape[1:3]
        padded = pad_to_multiple(image_map, WINDOW)
        windows, weights = self.attend_around(window_partition(padded, WINDOW), semantic_map, hidden, return_attention)
        recovered = window_reverse(windows, WINDOW, tuple(padded.shape[1:3]))[:, :H, :W]
        return self.feed_forward(recovered), weights


class DenseDumbbellUnit(nn.Module):
    """Image-token layer, two STGM layers, local and global semantic-token layers, recovery; see
    :class:`stvit.recovery.DumbbellUnit` for its counterpart at one image size.

    Args:
        dim: channels C.
        num_heads: attention heads.
        drop_paths: stochastic depth of the six layers.
    """

    def __init__(self, dim: int, num_heads: int, drop_paths: list[float]) -> None:
        super().__init__()
        sizes = {"dim": dim, "num_heads": num_heads, "layer_scale": LAYER_SCALE}
        image = {"key_window": WINDOW, **sizes}
        rates = iter(drop_paths)
        self.image_layer = SwinLayer(dim, num_heads, window_size=WINDOW, drop_path=next(rates))
        self.pooling = AdaptivePooling(CENTRES, "max")
        self.stgm_spatial = DenseSTGMLayer(neighbourhood=SPATIAL_NEIGHBOURHOOD, drop_path=next(rates), **image)
        self.stgm_global = DenseSTGMLayer(neighbourhood=GLOBAL_NEIGHBOURHOOD, drop_path=next(rates), **image)
        self.semantic_local = SemanticLayer(drop_path=next(rates), **sizes)
        self.semantic_global = SemanticLayer(drop_path=next(rates), **sizes)
        self.recovery = DenseRecoveryLayer(
            key_window=CENTRES, neighbourhood=RECOVERY_NEIGHBOURHOOD, drop_path=next(rates), **sizes
        )

    def forward(
        self, image_map: Tensor, hidden: HiddenKeys, number: int = 1, return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, H, W, C) -> (B, H, W, C) and, if asked for, what every layer of this unit (its 1-based number) did."""
        image_map = self.image_layer(image_map)
        padded = pad_to_multiple(image_map, WINDOW)
        semantic_hw = tuple(side // WINDOW * CENTRES for side in padded.shape[1:3])
        spatial, spatial_weights = self.stgm_spatial(
            self._initial_centres(padded), padded, hidden.spatial, return_trace
        )
        clustered, global_weights = self.stgm_global(spatial, padded, hidden.global_, return_trace)
        local = self.semantic_local(clustered.flatten(0, 1)).view(clustered.shape)
        local_map = window_reverse(local, CENTRES, semantic_hw)
        refined = self.semantic_global(local_map.flatten(1, 2))
        refined_map = refined.view(local_map.shape)
        recovered, recovery_weights = self.recovery(image_map, refined_map, hidden.recovery, return_trace)
        if not return_trace:
            return recovered, ()

        image_hw = tuple(image_map.shape[1:3])

        def semantic(name: str, kind: str, windows: Tensor, weights: Tensor | None = None) -> LayerTrace:
            tokens = window_reverse(windows, CENTRES, semantic_hw).flatten(1, 2)
            attention = None if weights is None else _stgm_attention(weights, image_hw)
            return LayerTrace(name, kind, tokens, image_hw, semantic_hw, attention, unit=number)

        recovery_attention = _recovery_attention(recovery_weights, image_hw, semantic_hw)
        return recovered, (
            LayerTrace("Image layer", "image", image_map.flatten(1, 2), image_hw, unit=number),
            semantic("STGM 1", "stgm", spatial, spatial_weights),
            semantic("STGM 2", "stgm", clustered, global_weights),
            semantic("Local semantic layer", "semantic", local),
            LayerTrace("Global semantic layer", "semantic", refined, image_hw, semantic_hw, unit=number),
            LayerTrace(
                "Recovery", "recovery", recovered.flatten(1, 2), image_hw, semantic_hw, recovery_attention, unit=number
            ),
        )

    def _initial_centres(self, padded: Tensor) -> Tensor:
        """(B, H, W, C) -> (B, nW, m*m, C), pooled in every window, padding included."""
        windows = window_partition(padded, WINDOW)
        return self.pooling(windows.flatten(0, 1).unflatten(1, (WINDOW, WINDOW))).unflatten(0, windows.shape[:2])


def _stgm_attention(weights: Tensor, image_hw: tuple[int, int]) -> Tensor:
    """(B, nW, m*m, K) -> (B, 1, M, H*W): every semantic token's weights on the image tokens, padding left out."""
    H, W = image_hw
    neighbourhood = round(weights.shape[-1] ** 0.5)
    padded_hw = tuple(-(-side // WINDOW) * WINDOW for side in image_hw)
    whole = scatter_without_halo(weights, WINDOW, neighbourhood, padded_hw)
    raster = window_reverse(whole, CENTRES, tuple(side // WINDOW * CENTRES for side in padded_hw))
    return raster.unflatten(-1, padded_hw)[..., :H, :W].flatten(1, 2).flatten(2).unsqueeze(1)


def _recovery_attention(weights: Tensor, image_hw: tuple[int, int], semantic_hw: tuple[int, int]) -> Tensor:
    """(B, nW, w*w, K) -> (B, 1, H*W, M): every image token's weights on the semantic tokens, padding left out."""
    H, W = image_hw
    padded_hw = tuple(side // CENTRES * WINDOW for side in semantic_hw)
    whole = scatter_without_halo(weights, CENTRES, RECOVERY_NEIGHBOURHOOD, semantic_hw)
    return window_reverse(whole, WINDOW, padded_hw)[:, :H, :W].flatten(1, 2).unsqueeze(1)


class DenseDumbbellStage(DumbbellStage):
    """Dumbbell units for any input size; the keys to hide are worked out once for all of them."""

    def __init__(self, units: list[DenseDumbbellUnit], downsample: nn.Module, strict_masks: bool) -> None:
        super().__init__(units, downsample)
        self.strict_masks = strict_masks

    def run_layers(self, token_map: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        hidden = hidden_keys(tuple(token_map.shape[1:3]), self.strict_masks, token_map.device)
        trace: list[LayerTrace] = []
        for number, unit in enumerate(self.units, start=1):
            token_map, layers = unit(token_map, hidden, number, return_trace)
            trace.extend(layers)
        return token_map, tuple(trace)


class DenseBackbone(nn.Module):
    """Four feature maps at strides 4, 8, 16 and 32, from STViT-R-Swin or from full-token Swin.

    Args:
        embed_dim: channels of the first map; they double from map to map.
        depths: layers per stage; with semantic tokens, the third is a multiple of 6.
        num_heads: attention heads per stage.
        semantic_tokens: STViT-R (conv stem, dumbbell units in the third stage) or plain Swin (patch stem).
        strict_masks: see :func:`hidden_keys`; the published weights need ``False``.
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
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
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
                units = [DenseDumbbellUnit(dim, heads, rates[j : j + LAYERS_PER_UNIT]) for j in starts]
                self.stages.append(DenseDumbbellStage(units, downsample, strict_masks))
            else:
                self.stages.append(SwinStage(swin_layers(dim, heads, rates, shift_any=True), downsample))
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
