"""Semantic tokens -> image tokens, and the dumbbell unit that ends in it (paper, section 3.3)."""

from __future__ import annotations

from torch import Tensor, nn

from stvit.trace import LayerTrace

from .attention import CrossAttentionLayer, SemanticLayer
from .stgm import GlobalSTGMLayer, SpatialSTGMLayer


class RecoveryLayer(CrossAttentionLayer):
    """Image tokens attend the semantic tokens (Eq. 6): full resolution, with high-level context."""

    kind = "recovery"

    def forward(
        self, image_tokens: Tensor, semantic_tokens: Tensor, return_attention: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """(B, N, C) image and (B, M, C) semantic tokens -> (B, N, C) and, if asked for, the weights (B, h, N, M)."""
        tokens, weights = self.attend_from(
            image_tokens,
            self.norm1(image_tokens),
            self.keys_values(self.norm1(semantic_tokens)),
            return_attention,
        )
        return self.feed_forward(tokens), weights


class DumbbellUnit(nn.Module):
    """Image-token layer, STGM, semantic-token layers, recovery: full resolution at both ends, few tokens between.

    The finished layers are handed in; sizes live in :mod:`stvit.models.stvit_r_swin`.
    """

    def __init__(
        self,
        image_layer: nn.Module,
        stgm_spatial: SpatialSTGMLayer,
        stgm_global: GlobalSTGMLayer,
        semantic_local: SemanticLayer,
        semantic_global: SemanticLayer,
        recovery: RecoveryLayer,
    ) -> None:
        super().__init__()
        self.image_layer = image_layer
        self.stgm_spatial = stgm_spatial
        self.stgm_global = stgm_global
        self.semantic_local = semantic_local
        self.semantic_global = semantic_global
        self.recovery = recovery

    def forward(
        self, image_map: Tensor, number: int = 1, return_trace: bool = False
    ) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, H, W, C) -> (B, H, W, C) and, if asked for, what every layer of this unit (its 1-based number) did."""
        image_map = self.image_layer(image_map)
        semantic_map, spatial_weights = self.stgm_spatial(image_map, return_trace)
        image_tokens, spatial = image_map.flatten(1, 2), semantic_map.flatten(1, 2)
        clustered, global_weights = self.stgm_global(spatial, image_tokens, return_trace)
        clustered_map = clustered.view(semantic_map.shape)
        local = self.semantic_local.in_windows(clustered_map, self.stgm_spatial.centres).flatten(1, 2)
        refined = self.semantic_global(local)
        recovered, recovery_weights = self.recovery(image_tokens, refined, return_trace)
        recovered_map = recovered.view(image_map.shape)
        if not return_trace:
            return recovered_map, ()

        image_hw, semantic_hw = tuple(image_map.shape[1:3]), tuple(semantic_map.shape[1:3])
        spatial_attention = self.stgm_spatial.image_attention(spatial_weights, image_hw)
        global_attention = self.stgm_global.image_attention(global_weights)
        return recovered_map, (
            LayerTrace("Image layer", "image", image_tokens, image_hw, unit=number),
            LayerTrace("STGM 1", "stgm", spatial, image_hw, semantic_hw, spatial_attention, unit=number),
            LayerTrace("STGM 2", "stgm", clustered, image_hw, semantic_hw, global_attention, unit=number),
            LayerTrace("Local semantic layer", "semantic", local, image_hw, semantic_hw, unit=number),
            LayerTrace("Global semantic layer", "semantic", refined, image_hw, semantic_hw, unit=number),
            LayerTrace("Recovery", "recovery", recovered, image_hw, semantic_hw, recovery_weights, unit=number),
        )
