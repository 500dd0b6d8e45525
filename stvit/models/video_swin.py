"""Video Swin Transformer (Liu et al., 2022): 3D shifted windows on clips; the full-token baseline of Table 6.

A clip map is (B, T, H, W, C), as in :mod:`stvit.layers.clip_windows`; a token frame is made of ``patch_size[0]`` frames
of the clip. Clips of any length and size run: what does not fit is padded with zeros.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from timm.layers import DropPath, Mlp
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from stvit.init_weights import init_video_swin_from_swin
from stvit.layers.attention import init_weights
from stvit.layers.clip_windows import ClipWindowAttention, Size3d, clip_partition, clip_reverse, fit_window, pad_clip
from stvit.layers.swin_layers import PatchMerging, SwinStage, TokenMapClassifier
from stvit.pretrained.build import build_model
from stvit.pretrained.records import ModelRecord
from stvit.trace import LayerTrace, TokenTrace

from .stvit_r_swin import rename_released


class VideoSwinLayer(nn.Module):
    """Pre-norm layer of Video Swin: the three-dimensional :class:`stvit.layers.swin_layers.SwinLayer`."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        *,
        window_size: Size3d,
        shifted: bool = False,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.window_size, self.shifted = window_size, shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = ClipWindowAttention(dim, num_heads, window_size, attn_drop, proj_drop)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = Mlp(dim, 4 * dim, drop=proj_drop)
        self.drop_path = DropPath(drop_path)

    def forward(self, clip_map: Tensor) -> Tensor:
        """(B, T, H, W, C) -> (B, T, H, W, C)."""
        clip_map = clip_map + self.drop_path(self._attention(self.norm1(clip_map)))
        return clip_map + self.drop_path(self.mlp(self.norm2(clip_map)))

    def _attention(self, clip_map: Tensor) -> Tensor:
        T, H, W = clip_map.shape[1:4]
        window, shift = fit_window((T, H, W), self.window_size, self.shifted)
        clip_map = pad_clip(clip_map, window)
        if any(shift):
            clip_map = clip_map.roll(tuple(-step for step in shift), dims=(1, 2, 3))
        clip_map = clip_reverse(self.attn(clip_partition(clip_map, window), window, shift), window)
        if any(shift):
            clip_map = clip_map.roll(shift, dims=(1, 2, 3))
        return clip_map[:, :T, :H, :W]


def video_swin_layers(
    dim: int, num_heads: int, drop_paths: list[float], window_size: Size3d, **layer: Any
) -> list[VideoSwinLayer]:
    """The layers of one stage, one for each rate of stochastic depth; every second one shifts its windows."""
    return [
        VideoSwinLayer(dim, num_heads, window_size=window_size, shifted=i % 2 == 1, drop_path=rate, **layer)
        for i, rate in enumerate(drop_paths)
    ]


class ClipStem(nn.Module):
    """A projection of patches of several frames with LayerNorm: (B, 3, T, H, W) -> (B, T/t, H/h, W/w, C).

    Clips are padded with zeros, the mean colour, at their end, at the bottom and on the right.
    """

    def __init__(self, in_chans: int, dim: int, patch_size: Size3d) -> None:
        super().__init__()
        self.proj = nn.Conv3d(in_chans, dim, patch_size, stride=patch_size)
        self.norm = nn.LayerNorm(dim)

    def forward(self, clips: Tensor) -> Tensor:
        clips = pad_clip(clips.permute(0, 2, 3, 4, 1), self.proj.stride).permute(0, 4, 1, 2, 3)
        clips = clips.contiguous(memory_format=torch.channels_last_3d)  # so that the tokens come out contiguous
        return self.norm(self.proj(clips).permute(0, 2, 3, 4, 1))


class FrameMerging(PatchMerging):
    """Patch merging inside every frame: (B, T, H, W, C) -> (B, T, H/2, W/2, 2C), odd sides rounded up."""

    def forward(self, clip_map: Tensor) -> Tensor:
        return super().forward(clip_map.flatten(0, 1)).unflatten(0, clip_map.shape[:2])


class ClipClassifier(TokenMapClassifier):
    """A network that ends in ``norm`` over a clip map, its mean, and a linear ``head``.

    Args:
        num_features: channels of the last map.
        in_chans: channels of the input.
        num_classes: classes; 0 returns pooled features.
        drop_rate: dropout before the head.
        global_pool: ``"avg"``, or ``""`` to classify every token.
    """

    output_fmt = "NTHWC"

    def __init__(self, num_features: int, in_chans: int, num_classes: int, drop_rate: float, global_pool: str) -> None:
        super().__init__()
        self.num_features = self.head_hidden_size = num_features
        self.in_chans = in_chans
        self.norm = nn.LayerNorm(num_features)
        self.head_drop = nn.Dropout(drop_rate)
        self.reset_classifier(num_classes, global_pool)

    def forward(self, clips: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """Classify normalised clips.

        Args:
            clips: (B, 3, T, H, W) with ImageNet mean and deviation, RGB.
            return_trace: also return what every layer did that deals with semantic tokens.

        Returns:
            Logits (B, num_classes), and the :class:`TokenTrace` if asked for.

        Raises:
            ValueError: not a batch of clips, or frames too small for the model.
        """
        if clips.ndim != 5 or clips.shape[1] != self.in_chans or 0 in clips.shape:
            raise ValueError(
                f"clips must be (B, {self.in_chans}, T, H, W), got {tuple(clips.shape)}: stack the frames "
                "after the channels and add a dimension for the batch"
            )
        return super().forward(clips, return_trace)


class VideoSwin(ClipClassifier):
    """Video Swin Transformer.

    Args:
        embed_dim: channels of the first stage.
        depths: layers per stage.
        num_heads: attention heads per stage.
        patch_size: frames, rows and columns of the clip in one token of the first stage.
        window_size: token frames, rows and columns of a window.
        num_classes: classes; 0 returns pooled features.
        in_chans: channels of the input.
        drop_rate: dropout before the head; 0.5 in the published training.
        attn_drop_rate: dropout of attention weights.
        proj_drop_rate: dropout after the projections of attention and feed-forward networks.
        drop_path_rate: stochastic depth of the last layer, rising linearly from 0; 0.1 in the published training.
    """

    def __init__(
        self,
        embed_dim: int,
        depths: tuple[int, ...],
        num_heads: tuple[int, ...],
        *,
        patch_size: Size3d = (2, 4, 4),
        window_size: Size3d = (8, 7, 7),
        num_classes: int = 400,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        proj_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        global_pool: str = "avg",
    ) -> None:
        dims = [embed_dim * 2**i for i in range(len(depths))]
        super().__init__(dims[-1], in_chans, num_classes, drop_rate, global_pool)
        drop = {"attn_drop": attn_drop_rate, "proj_drop": proj_drop_rate}
        rates = stage_rates(drop_path_rate, depths)
        self.stem = ClipStem(in_chans, embed_dim, patch_size)
        self.stages = nn.Sequential(
            *(
                SwinStage(
                    video_swin_layers(dim, heads, rate, window_size, **drop),
                    FrameMerging(dim) if dim != dims[-1] else None,
                )
                for dim, heads, rate in zip(dims, num_heads, rates, strict=True)
            )
        )
        self.apply(init_weights)

    def _run_stages(self, clips: Tensor, return_trace: bool = False) -> tuple[Tensor, tuple[LayerTrace, ...]]:
        """(B, 3, T, H, W) -> the last map (B, T/2, H/32, W/32, C); nothing here deals with semantic tokens."""
        return self.stages(self.stem(clips)), ()

    def init_from(self, image_swin: Mapping[str, Tensor]) -> list[str]:
        """Initialise from timm's trained Swin; see :func:`stvit.init_weights.init_video_swin_from_swin`."""
        return init_video_swin_from_swin(self, image_swin)

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the parameters of the authors' ``.pth``, or of torchvision's port of it, to ours; ours are returned
        as they are."""
        if "stem.proj.weight" in state_dict:
            return state_dict
        recomputed = "relative_position_index"
        return {rename_published(n): t for n, t in state_dict.items() if not n.endswith(recomputed)}

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """timm's hook for weight files of a custom format: the authors' published ``.pth``."""
        from stvit.checkpoint import load_checkpoint

        load_checkpoint(self, checkpoint_path)


def stage_rates(drop_path_rate: float, depths: tuple[int, ...]) -> list[list[float]]:
    """Stochastic depth of every layer, stage by stage, rising linearly from 0 to ``drop_path_rate``."""
    return [part.tolist() for part in torch.linspace(0, drop_path_rate, sum(depths), device="cpu").split(depths)]


def rename_published(name: str) -> str:
    """The name here of a parameter of the authors' recogniser (``backbone.layers.{stage}.blocks.{layer}``,
    ``cls_head.fc_cls``), or of torchvision's, whose ``features`` are stages and mergings in turn."""
    if match := re.match(r"features\.(\d+)\.(.*)", name):
        stage, merging = divmod(int(match[1]), 2)
        rest = match[2].replace("mlp.0.", "mlp.fc1.").replace("mlp.3.", "mlp.fc2.")
        return f"stages.{stage}.{'downsample' if merging else 'layers'}.{rest}"
    name = name.removeprefix("backbone.").replace("cls_head.fc_cls.", "head.").replace("patch_embed.", "stem.")
    return rename_released(name, dumbbell_units=False)


#: arguments that :class:`VideoSwin` and the STViT on it share
SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"embed_dim": 96, "depths": (2, 2, 6, 2), "num_heads": (3, 6, 12, 24)},
    "small": {"embed_dim": 96, "depths": (2, 2, 18, 2), "num_heads": (3, 6, 12, 24)},
}
KINETICS400_CFG = {
    "num_classes": 400,
    "input_size": (3, 224, 224),  # one of the 32 frames of a clip
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "first_conv": "stem.proj",
    "classifier": "head",
}


def clip_figures(top1: float, gmacs: float) -> dict[str, Any]:
    """What a clip model's record says of the STViT paper's figures."""
    return {"published": {"top1": top1, "gmacs": gmacs}, "published_note": "4x3 views, Table 6"}


def _record(size: str, *figures: float) -> ModelRecord:
    """The authors' weights for Kinetics-400, pre-trained on ImageNet-1k."""
    release = "https://github.com/SwinTransformer/storage/releases/download/v1.0.4"
    return ModelRecord(
        **KINETICS400_CFG,
        **clip_figures(*figures),
        url=f"{release}/swin_{size}_patch244_window877_kinetics400_1k.pth",
        custom_load=True,
        license="apache-2.0",
        paper_ids="arXiv:2106.13230",
        paper_name="Video Swin Transformer",
        origin_url="https://github.com/SwinTransformer/Video-Swin-Transformer",
    )


default_cfgs = generate_default_cfgs(
    {"video_swin_tiny.k400": _record("tiny", 78.8, 88), "video_swin_small.k400": _record("small", 80.6, 166)}
)


def build_clip_model(model: type[nn.Module], variant: str, pretrained: bool, **kwargs: Any) -> nn.Module:
    """``build_model`` for networks on clips.

    Raises:
        ValueError: ``features_only`` is asked for.
    """
    if kwargs.get("features_only"):
        raise ValueError(f"{variant} has no feature maps in timm's sense, which are of images: use forward_features")
    return build_model(model, variant, pretrained, **kwargs)


@register_model
def video_swin_tiny(pretrained: bool = False, **kwargs: Any) -> VideoSwin:
    """Video Swin-T: published 78.8 % top-1 on Kinetics-400 with 4x3 views at 88 G multiply-adds a view."""
    return build_clip_model(VideoSwin, "video_swin_tiny", pretrained, **{**SIZES["tiny"], **kwargs})


@register_model
def video_swin_small(pretrained: bool = False, **kwargs: Any) -> VideoSwin:
    """Video Swin-S: published 80.6 % top-1 on Kinetics-400 with 4x3 views at 166 G multiply-adds a view."""
    return build_clip_model(VideoSwin, "video_swin_small", pretrained, **{**SIZES["small"], **kwargs})
