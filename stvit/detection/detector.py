"""Cascade Mask R-CNN on STViT-R-Swin, and on full-token Swin: an image in, boxes, labels, scores and masks out.

The published weights (COCO, 51.8 and 52.2 box AP) need nothing but PyTorch here. The way through the detector is
:meth:`~CascadeMaskRCNN.prepare`, :meth:`~CascadeMaskRCNN.extract_features` and :meth:`~CascadeMaskRCNN.detect`, which
calls :meth:`~CascadeMaskRCNN.propose`, :meth:`~CascadeMaskRCNN.classify` and :meth:`~CascadeMaskRCNN.segment`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.ops import clip_boxes_to_image

from stvit.layers.timm_training import LayerGroups, RecomputedLayers, groups_within
from stvit.models.dense_backbone import DenseBackbone, dense_backbone
from stvit.pretrained.build import build_model
from stvit.pretrained.records import STVIT_R_LICENCE, ModelRecord

from .boxes import decode_deltas
from .detections import Detections
from .losses import PUBLISHED, DetectionTarget, TrainingRules, cascade_losses, check_targets, proposal_losses
from .preprocess import PreparedImage, prepare
from .roi_heads import STAGE_STDS, CascadeRoIHead, HeadRunners, select_detections
from .rpn import TEST_PROPOSALS, RPNHead, anchors_of, flatten_predictions, select_proposals


class FPN(nn.Module):
    """Feature pyramid (Lin et al., 2017): maps at strides 4 to 32 of any widths -> at strides 4 to 64 of one width.

    Args:
        in_channels: widths of the maps that come in.
        channels: width of those that go out.
    """

    def __init__(self, in_channels: Sequence[int], channels: int = 256) -> None:
        super().__init__()
        self.lateral_convs = nn.ModuleList(nn.Conv2d(c, channels, 1) for c in in_channels)
        self.fpn_convs = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in in_channels)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Four maps (B, C_i, H_i, W_i) -> five (B, C, H_i, W_i); the fifth is the fourth, every second cell."""
        merged = [conv(feature) for conv, feature in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(merged) - 1, 0, -1):
            finer = merged[i - 1]
            merged[i - 1] = finer + F.interpolate(merged[i], size=finer.shape[-2:], mode="nearest")
        pyramid = [conv(feature) for conv, feature in zip(self.fpn_convs, merged, strict=True)]
        return (*pyramid, F.max_pool2d(pyramid[-1], kernel_size=1, stride=2))


TEST_SCALE = (1333, 800)
TEST_SCORE = 0.05


class CascadeMaskRCNN(RecomputedLayers, nn.Module):
    """Detector and instance segmenter of any backbone with four maps.

    Args:
        backbone: name, see :func:`stvit.models.dense_backbone.dense_backbone`.
        num_classes: without background; 80 for COCO.
        fpn_channels: width of the feature pyramid and of the heads' convolutions.
        box_hidden: width of the box heads' hidden layer.
        num_proposals: most regions of an image that reach the second stage; 1000 in the published detectors.
        backbone_options: options of the backbone.
    """

    def __init__(
        self,
        backbone: str,
        *,
        num_classes: int = 80,
        fpn_channels: int = 256,
        box_hidden: int = 1024,
        num_proposals: int = TEST_PROPOSALS,
        **backbone_options: Any,
    ) -> None:
        super().__init__()
        self.num_classes, self.num_proposals = num_classes, num_proposals
        self.backbone: DenseBackbone = dense_backbone(backbone, **backbone_options)
        self.neck = FPN(self.backbone.channels, fpn_channels)
        self.rpn_head = RPNHead(fpn_channels)
        self.roi_head = CascadeRoIHead(num_classes, fpn_channels, box_hidden)

    @torch.inference_mode()
    def predict(
        self,
        image: np.ndarray | Tensor,
        scale: tuple[int, int] = TEST_SCALE,
        score_threshold: float = TEST_SCORE,
        proposals: int | None = None,
    ) -> Detections:
        """Find the objects in one image.

        Args:
            image: (H, W, 3) uint8 RGB.
            scale: bounds of the long and the short side that the image is resized to, in pixels.
            score_threshold: lower bound of the scores, exclusive.
            proposals: see :meth:`propose`.

        Raises:
            ValueError: not such an image or scale, or no such number of proposals.
        """
        prepared = self.prepare(image, scale)
        return self.detect(self.extract_features(prepared.images), prepared, score_threshold, proposals=proposals)

    forward = predict

    def prepare(self, image: np.ndarray | Tensor, scale: tuple[int, int] = TEST_SCALE) -> PreparedImage:
        """Resize, normalise and pad an image (H, W, 3) of uint8 on the detector's device; raises as ``predict``."""
        return prepare(image, scale, self.rpn_head.rpn_cls.weight.device)

    def extract_features(self, images: Tensor) -> tuple[Tensor, ...]:
        """(B, 3, H, W), sides multiples of 32 -> the pyramid, five maps (B, C, H_i, W_i) at strides 4 to 64."""
        return self.neck(self.backbone(images.to(self.rpn_head.rpn_cls.weight.dtype)))

    def detect(
        self,
        features: Sequence[Tensor],
        prepared: PreparedImage,
        score_threshold: float = TEST_SCORE,
        lap: Callable[[str], object] = lambda step: None,
        proposals: int | None = None,
        heads: HeadRunners | None = None,
    ) -> Detections:
        """Find the objects in the pyramid of one image.

        Args:
            lap: told the steps that are done: ``proposals``, ``heads``, ``masks``.
            proposals: see :meth:`propose`.
            heads: what runs box and mask heads, by default themselves; then the pyramid is in their precision.
        """
        regions = self.propose(features, prepared.network_hw, proposals)
        lap("proposals")
        boxes, scores, labels = self.classify(features, regions, prepared, score_threshold, heads)
        lap("heads")
        masks = self.segment(features, boxes, labels, prepared, heads)
        lap("masks")
        return Detections(boxes, scores, labels, masks.float(), prepared.source_hw)

    def propose(self, features: Sequence[Tensor], network_hw: tuple[int, int], proposals: int | None = None) -> Tensor:
        """Propose regions of one image.

        Args:
            features: maps (1, C, H_i, W_i), in any precision.
            network_hw: the image's size without its padding.
            proposals: most regions, by default ``num_proposals``. The time of the heads is in proportion to them; fewer
                than ``num_proposals`` are the best of these.

        Returns:
            Boxes (P, 4) in network pixels, best first, P at most ``proposals``.

        Raises:
            ValueError: ``proposals`` below 1.
        """
        kept = self.num_proposals if proposals is None else proposals
        if kept < 1:
            raise ValueError(f"proposals={kept}: choose a whole number from 1 on")
        levels = [feature.to(self.rpn_head.rpn_cls.weight.dtype) for feature in features]
        predictions = [flatten_predictions(*level) for level in self.rpn_head(levels)]
        of_image = [(logits[0], deltas[0]) for logits, deltas in predictions]
        many = {"per_level": max(kept, self.num_proposals), "kept": kept}
        return select_proposals(of_image, anchors_of(features), network_hw, **many)[0]

    def classify(
        self,
        features: Sequence[Tensor],
        proposals: Tensor,
        prepared: PreparedImage,
        score_threshold: float = TEST_SCORE,
        heads: HeadRunners | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Refine and classify the proposals (P, 4); ``heads`` as in :meth:`detect`.

        Returns:
            Boxes (N, 4) in source pixels, scores (N,) and labels (N,), best first, N at most 100.
        """
        regions, deltas, logits = self.roi_head.refine(features, proposals, prepared.network_hw, heads)
        boxes = clip_boxes_to_image(decode_deltas(regions, deltas, STAGE_STDS[-1]), prepared.network_hw)
        scores = logits.softmax(dim=-1)[:, :-1]
        return select_detections(boxes / prepared.scale_factors, scores, score_threshold)

    def segment(
        self,
        features: Sequence[Tensor],
        boxes: Tensor,
        labels: Tensor,
        prepared: PreparedImage,
        heads: HeadRunners | None = None,
    ) -> Tensor:
        """Mask probabilities (N, 28, 28) inside boxes (N, 4) in source pixels; ``heads`` as in :meth:`detect`."""
        return self.roi_head.masks(features, boxes * prepared.scale_factors, labels, heads)

    def losses(
        self, images: Tensor, targets: Sequence[DetectionTarget], rules: TrainingRules = PUBLISHED
    ) -> dict[str, Tensor]:
        """All losses of a batch, weighted: their sum is to be minimised.

        Args:
            images: (B, 3, H, W), normalised, padded at the bottom and on the right.
            targets: one for every image.
            rules: which anchors and proposals learn from what.

        Returns:
            Scalars under their published names: ``loss_rpn_cls``, ``loss_rpn_bbox``, and ``loss_cls``, ``loss_bbox``,
            ``loss_mask`` of the stages ``s0.`` to ``s2.``.

        Raises:
            ValueError: targets that do not fit the images or the detector's classes.
        """
        check_targets(images, targets, self.num_classes)
        features = self.extract_features(images)
        anchors = anchors_of(features)
        predictions = [flatten_predictions(*level) for level in self.rpn_head(features)]
        found = proposal_losses(predictions, anchors, targets, rules)
        proposals = []
        for i, target in enumerate(targets):
            of_image = [(logits[i].detach(), deltas[i].detach()) for logits, deltas in predictions]
            many = {"per_level": rules.proposals, "kept": rules.proposals}
            proposals.append(select_proposals(of_image, anchors, target.image_hw, **many)[0])
        return found | cascade_losses(self.roi_head, features, proposals, targets, rules)

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> LayerGroups:
        """timm's grouping of parameters for layer-wise learning rates: the backbone's layers, then all else."""
        return groups_within("backbone", self.backbone.group_matcher(coarse))

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that, as in the published configuration, do not decay; norms and biases never do."""
        return {name for name, _ in self.named_parameters() if name.endswith("relative_position_bias_table")}

    def convert_released_state_dict(self, state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
        """Rename the parameters of the published detectors to ours; ours are returned as they are."""
        if not any(name.startswith("backbone.patch_embed.") for name in state_dict):
            return state_dict
        prefix = "backbone."
        backbone = {n.removeprefix(prefix): t for n, t in state_dict.items() if n.startswith(prefix)}
        renamed = {prefix + n: t for n, t in self.backbone.convert_released_state_dict(backbone).items()}
        return renamed | {rename_head(n): t for n, t in state_dict.items() if not n.startswith(prefix)}

    def load_pretrained(self, checkpoint_path: str, prefix: str = "") -> None:
        """timm's hook for weight files of a custom format: the authors' published ``.pth``."""
        from stvit.checkpoint import load_checkpoint

        load_checkpoint(self, checkpoint_path)


def rename_head(name: str) -> str:
    """The name here of a parameter of the published neck and heads."""
    name = name.replace(".shared_fcs.0.", ".shared_fc.")
    name = re.sub(r"(shared_convs|mask_head\.\d\.convs)\.(\d)\.conv\.", r"\1.\2.0.", name)
    name = re.sub(r"shared_convs\.(\d)\.bn\.", r"shared_convs.\1.1.", name)
    return re.sub(r"^(neck\.\w+\.\d)\.conv\.", r"\1.", name)


FULL_TOKENS = ModelRecord(num_classes=80, interpolation="bilinear", test_scale=TEST_SCALE)


def _figures(box_ap: float, mask_ap: float, backbone_gmacs: int) -> dict[str, float]:
    """``ModelRecord.published`` of a detector (Table 5)."""
    return {"box_ap": box_ap, "mask_ap": mask_ap, "backbone_gmacs": backbone_gmacs}


def _record(size: str, *figures: float) -> ModelRecord:
    return replace(
        FULL_TOKENS,
        hf_hub_id="csncsn/STViT-R",
        hf_hub_filename=f"cascade_mask_rcnn_swin_{size}_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco.pth",
        custom_load=True,
        license=STVIT_R_LICENCE,
        paper_ids="arXiv:2303.08685",
        origin_url="https://github.com/changsn/STViT-R-Object-Detection",
        published=_figures(*figures),
    )


default_cfgs = generate_default_cfgs(
    {
        "stvit_r_swin_small_cascade_mask_rcnn.coco": _record("small", 51.8, 44.7, 134),
        "stvit_r_swin_base_cascade_mask_rcnn.coco": _record("base", 52.2, 45.2, 233),
        "swin_small_cascade_mask_rcnn": replace(FULL_TOKENS, published=_figures(51.8, 44.7, 194)),
        "swin_base_cascade_mask_rcnn": replace(FULL_TOKENS, published=_figures(51.9, 45.0, 343)),
    }
)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> CascadeMaskRCNN:
    backbone = variant.removesuffix("_cascade_mask_rcnn")
    return build_model(
        CascadeMaskRCNN, variant, pretrained, kwargs_filter=("in_chans", "global_pool"), backbone=backbone, **kwargs
    )


@register_model
def stvit_r_swin_small_cascade_mask_rcnn(pretrained: bool = False, **kwargs: Any) -> CascadeMaskRCNN:
    """STViT-R-Swin-S: published 51.8 box and 44.7 mask AP on COCO, backbone at 134 G multiply-adds (Table 5)."""
    return _create("stvit_r_swin_small_cascade_mask_rcnn", pretrained, **kwargs)


@register_model
def stvit_r_swin_base_cascade_mask_rcnn(pretrained: bool = False, **kwargs: Any) -> CascadeMaskRCNN:
    """STViT-R-Swin-B: published 52.2 box and 45.2 mask AP on COCO, backbone at 233 G multiply-adds (Table 5)."""
    return _create("stvit_r_swin_base_cascade_mask_rcnn", pretrained, **kwargs)


@register_model
def swin_small_cascade_mask_rcnn(pretrained: bool = False, **kwargs: Any) -> CascadeMaskRCNN:
    """The same detector on full-token Swin-S, backbone at 194 G multiply-adds; no weights are offered here."""
    return _create("swin_small_cascade_mask_rcnn", pretrained, **kwargs)


@register_model
def swin_base_cascade_mask_rcnn(pretrained: bool = False, **kwargs: Any) -> CascadeMaskRCNN:
    """The same detector on full-token Swin-B, backbone at 343 G multiply-adds; no weights are offered here."""
    return _create("swin_base_cascade_mask_rcnn", pretrained, **kwargs)
