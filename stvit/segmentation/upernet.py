"""UperNet (Xiao et al., 2018) on STViT-R-Swin and on full-token Swin, configured as for Swin on ADE20K.

No weights of these models were ever published for STViT-R: they come untrained, to be trained with
:meth:`UperNet.losses`. Table 14 of the paper reports 48.3 (small) and 48.9 (base) % mIoU on ADE20K, multi-scale,
against 49.3 and 49.7 of full-token Swin, at 34 and 60 against 49 and 87 G multiply-adds of the backbone at 512x512.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from stvit.class_names import ADE20K_CLASSES
from stvit.layers.timm_training import LayerGroups, RecomputedLayers, groups_within
from stvit.models.dense_backbone import dense_backbone
from stvit.pretrained.build import build_model
from stvit.pretrained.records import ModelRecord
from stvit.trace import TokenTrace

from .score_maps import (
    SlidingWindow,
    average_probabilities,
    label_map,
    resize,
    scaled_hw,
    segmentation_loss,
    sliding_logits,
)

POOL_SCALES = (1, 2, 3, 6)
AUXILIARY_STAGE = 2  # index of the map that the auxiliary head reads, the one at stride 16
AUXILIARY_WEIGHT = 0.4
TEST_SCALE = (2048, 512)  # bounds of the longer and the shorter side of pictures, as published
DROPOUT = 0.1


def conv_norm_relu(in_channels: int, out_channels: int, kernel_size: int) -> nn.Sequential:
    """Convolution that keeps the size, BatchNorm, ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel_size, padding=kernel_size // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels), nn.ReLU())


def pixel_classifier(channels: int, num_classes: int) -> nn.Sequential:
    """Channel dropout and a 1x1 convolution."""
    conv = nn.Conv2d(channels, num_classes, 1)
    nn.init.normal_(conv.weight, std=0.01)
    nn.init.zeros_(conv.bias)
    return nn.Sequential(nn.Dropout2d(DROPOUT), conv)


class PyramidPooling(nn.Module):
    """The coarsest map together with its averages over 1, 4, 9 and 36 regions."""

    def __init__(self, in_channels: int, channels: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(scale), conv_norm_relu(in_channels, channels, 1))
            for scale in POOL_SCALES
        )
        self.bottleneck = conv_norm_relu(in_channels + len(POOL_SCALES) * channels, channels, 3)

    def forward(self, coarsest: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, channels, H, W)."""
        hw = tuple(coarsest.shape[-2:])
        pooled = [resize(branch(coarsest), hw) for branch in self.branches]
        return self.bottleneck(torch.cat([coarsest, *pooled], dim=1))


class UperHead(nn.Module):
    """Pyramid pooling on the coarsest map, a feature pyramid from it down to the finest, all levels fused.

    Args:
        in_channels: channels of the maps, finest first.
        channels: channels of everything inside.
        num_classes: classes.
    """

    def __init__(self, in_channels: Sequence[int], channels: int, num_classes: int) -> None:
        super().__init__()
        self.pyramid_pooling = PyramidPooling(in_channels[-1], channels)
        self.laterals = nn.ModuleList(conv_norm_relu(width, channels, 1) for width in in_channels[:-1])
        self.smoothings = nn.ModuleList(conv_norm_relu(channels, channels, 3) for _ in in_channels[:-1])
        self.fusion = conv_norm_relu(len(in_channels) * channels, channels, 3)
        self.classifier = pixel_classifier(channels, num_classes)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Maps (B, C_i, H_i, W_i), finest first -> logits (B, K, H_0, W_0)."""
        level = self.pyramid_pooling(maps[-1])
        levels = [level]
        laterals = [lateral(fmap) for lateral, fmap in zip(self.laterals, maps[:-1], strict=True)]
        for lateral, smoothing in zip(laterals[::-1], list(self.smoothings)[::-1], strict=True):
            level = lateral + resize(level, tuple(lateral.shape[-2:]))
            levels.append(smoothing(level))
        finest_hw = tuple(maps[0].shape[-2:])
        fused = torch.cat([resize(one, finest_hw) for one in levels[::-1]], dim=1)
        return self.classifier(self.fusion(fused))


class UperNet(RecomputedLayers, nn.Module):
    """A backbone of four maps, the UperNet head, and an auxiliary head that serves training alone.

    Args:
        backbone: images -> four maps at strides 4, 8, 16, 32, their widths in ``channels``; with ``return_trace=True``
            also a :class:`TokenTrace`.
        num_classes: classes.
        channels: channels of the head.
        auxiliary_channels: channels of the auxiliary head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        *,
        num_classes: int = len(ADE20K_CLASSES),
        channels: int = 512,
        auxiliary_channels: int = 256,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.backbone = backbone
        self.head = UperHead(backbone.channels, channels, num_classes)
        self.auxiliary_head = nn.Sequential(
            conv_norm_relu(backbone.channels[AUXILIARY_STAGE], auxiliary_channels, 3),
            pixel_classifier(auxiliary_channels, num_classes),
        )

    def forward(self, images: Tensor, return_trace: bool = False) -> Tensor | tuple[Tensor, TokenTrace]:
        """Score every pixel.

        Args:
            images: (B, 3, H, W), ImageNet mean and deviation, any size.
            return_trace: also return what every layer did that deals with semantic tokens.

        Returns:
            Logits (B, K, H, W), and the :class:`TokenTrace` if asked for.
        """
        maps, trace = self.backbone(images, return_trace=True) if return_trace else (self.backbone(images), None)
        logits = resize(self.head(maps), tuple(images.shape[-2:]))
        return (logits, trace) if return_trace else logits

    def losses(self, images: Tensor, labels: Tensor, class_weights: Tensor | None = None) -> dict[str, Tensor]:
        """Terms of the training loss, weighted: their sum is to be minimised.

        Args:
            images: (B, 3, H, W), normalised; in training at least two, for BatchNorm over maps pooled to one pixel.
            labels: (B, H, W) integers, see :func:`segmentation_loss`.
            class_weights: (K,), what a pixel of each class counts; 1 for all by default.

        Raises:
            ValueError: one image only in training, or labels that do not fit.
        """
        if self.training and len(images) < 2:
            raise ValueError("training takes at least two images at once: BatchNorm sees one pixel of each at scale 1")
        maps = self.backbone(images)
        logits, early = self.head(maps), self.auxiliary_head(maps[AUXILIARY_STAGE])
        return {
            "segmentation": segmentation_loss(logits, labels, class_weights),
            "auxiliary": AUXILIARY_WEIGHT * segmentation_loss(early, labels, class_weights),
        }

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """timm's grouping of parameters for layer-wise learning rates: the backbone's layers, then all else."""
        return groups_within("backbone", self.backbone.group_matcher(coarse))

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that, as in the published configuration, do not decay; norms and biases never do."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    @torch.inference_mode()
    def predict(
        self,
        image: np.ndarray | Tensor,
        *,
        scale: tuple[int, int] = TEST_SCALE,
        ratios: Sequence[float] = (1.0,),
        flip: bool = False,
        window: SlidingWindow | None = None,
        run: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Label every pixel of a picture.

        Args:
            image: (H, W, 3) uint8 RGB.
            scale: bounds of the long and the short side that the picture is resized to, proportions kept.
            ratios: also run at these multiples of that size, probabilities averaged; see
                :data:`stvit.segmentation.score_maps.PUBLISHED_RATIOS`.
            flip: also run mirrored.
            window: run on overlapping crops instead of the whole picture.
            run: what runs the model: normalised images (1, 3, h, w) -> logits (1, K, h, w); by default itself.

        Returns:
            (H, W) int64 on the CPU, classes from 0.

        Raises:
            ValueError: no such picture, a scale below one pixel, or the model is in training mode.
        """
        if self.training:
            raise ValueError("the model is in training mode; call eval() before predict()")

        run = run or self

        def network(copy: Tensor) -> Tensor:
            return sliding_logits(run, copy, window) if window else run(copy)

        if tuple(ratios) == (1.0,) and not flip:
            scores = network(self.prepare(image, scale)).float()
        else:
            images = self._normalise(self._pixels(image))
            base_hw = scaled_hw(tuple(images.shape[-2:]), scale)
            scores = average_probabilities(network, images, ratios=ratios, flip=flip, base_hw=base_hw)
        return label_map(scores, tuple(image.shape[:2]))[0].cpu()

    def prepare(self, image: np.ndarray | Tensor, scale: tuple[int, int] = TEST_SCALE) -> Tensor:
        """A picture (H, W, 3) uint8 RGB -> the input (1, 3, h, w), on the model's device and in its precision; raises
        as ``predict``. It is resized bilinearly, without antialiasing, then normalised."""
        pixels = self._pixels(image)
        return self._normalise(resize(pixels, scaled_hw(tuple(pixels.shape[-2:]), scale)))

    def _pixels(self, image: np.ndarray | Tensor) -> Tensor:
        """(H, W, 3) uint8 -> (1, 3, H, W) float32 from 0 to 255, on the model's device."""
        if isinstance(image, np.ndarray):
            image = torch.tensor(np.ascontiguousarray(image))  # whatever its strides, and writable or not
        if image.dtype != torch.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.numel():
            raise ValueError(f"expected an RGB picture of (H, W, 3) uint8, not {image.dtype} {tuple(image.shape)}")
        return image.to(self.head.classifier[-1].weight.device).permute(2, 0, 1)[None].float()

    def _normalise(self, pixels: Tensor) -> Tensor:
        """(1, 3, H, W) from 0 to 255 -> normalised, in the model's precision."""
        mean, std = (
            pixels.new_tensor(values)[:, None, None] for values in (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
        )
        return ((pixels / 255 - mean) / std).to(self.head.classifier[-1].weight.dtype)


def _record(miou: float, backbone_gmacs: int) -> ModelRecord:
    """Figures without weights: no trained ones were ever published."""
    return ModelRecord(
        num_classes=len(ADE20K_CLASSES),
        input_size=(3, 512, 512),
        mean=IMAGENET_DEFAULT_MEAN,
        std=IMAGENET_DEFAULT_STD,
        classifier=("head.classifier.1", "auxiliary_head.1.1"),
        paper_ids="arXiv:2303.08685",
        paper_name="Making Vision Transformers Efficient from A Token Sparsification View",
        published={"miou": miou, "backbone_gmacs": backbone_gmacs},
        published_note="multi-scale, Table 14",
    )


default_cfgs = generate_default_cfgs(
    {
        "stvit_r_swin_small_upernet": _record(48.3, 34),
        "stvit_r_swin_base_upernet": _record(48.9, 60),
        "swin_small_upernet": _record(49.3, 49),
        "swin_base_upernet": _record(49.7, 87),
    }
)


def _create(name: str, pretrained: bool, **kwargs: Any) -> UperNet:
    """Build a registered model; options other than those of :class:`UperNet` are the backbone's.

    Raises:
        WeightsUnavailable: weights are asked for; none were published.
        ValueError: another number of input channels than three.
    """
    if kwargs.get("in_chans", 3) != 3:
        raise ValueError(f"{name} takes RGB images, not {kwargs['in_chans']} channels")

    def build(**options: Any) -> UperNet:
        own = {k: options.pop(k) for k in ("num_classes", "channels", "auxiliary_channels") if k in options}
        return UperNet(dense_backbone(name.removesuffix("_upernet"), **options), **own)

    return build_model(build, name, pretrained, kwargs_filter=("in_chans",), **kwargs)


@register_model
def stvit_r_swin_small_upernet(pretrained: bool = False, **kwargs: Any) -> UperNet:
    """UperNet on STViT-R-Swin-S: published 48.3 % mIoU on ADE20K (Table 14); no weights were published."""
    return _create("stvit_r_swin_small_upernet", pretrained, **kwargs)


@register_model
def stvit_r_swin_base_upernet(pretrained: bool = False, **kwargs: Any) -> UperNet:
    """UperNet on STViT-R-Swin-B: published 48.9 % mIoU on ADE20K (Table 14); no weights were published."""
    return _create("stvit_r_swin_base_upernet", pretrained, **kwargs)


@register_model
def swin_small_upernet(pretrained: bool = False, **kwargs: Any) -> UperNet:
    """UperNet on full-token Swin-S, the baseline of Table 14 (49.3 % mIoU); untrained."""
    return _create("swin_small_upernet", pretrained, **kwargs)


@register_model
def swin_base_upernet(pretrained: bool = False, **kwargs: Any) -> UperNet:
    """UperNet on full-token Swin-B, the baseline of Table 14 (49.7 % mIoU); untrained."""
    return _create("swin_base_upernet", pretrained, **kwargs)
