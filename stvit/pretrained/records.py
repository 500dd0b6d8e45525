"""One record for each model: its timm pretrained config under the full name ``architecture.tag``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from difflib import get_close_matches
from functools import cache
from typing import Any

from timm.models import (
    PretrainedCfg,
    filter_pretrained_cfg,
    get_arch_pretrained_cfgs,
    get_deprecated_models,
    get_pretrained_cfg,
    is_model,
    list_models,
)

from stvit.errors import UserError

PUBLISHED_CROP = 224 / 256  # DeiT, Swin and STViT-R were measured on the centre of pictures resized to 256 pixels
STVIT_R_LICENCE = "not stated by the authors (their code is MIT)"
DRIVE_PAGE = "https://drive.google.com/file/d/{}/view"  # of a file that its authors share by its id
TIMM_FILE = "model.safetensors"  # of timm's repositories, where the config names no file


class UnknownModel(UserError, RuntimeError):
    """No model is registered under this name."""


@dataclass
class ModelRecord(PretrainedCfg):
    """All that is known of a model's published weights, and how pictures are prepared for it.

    timm's own fields hold the repository (``hf_hub_id``, with ``@revision`` where one is pinned), the file, the
    licence (``license``), ``input_size``, ``crop_pct``, ``interpolation``, ``mean`` and ``std``.

    Attributes:
        sha256: of the file; ``None`` where it is not known, and the first download decides.
        weights_page: where a person can fetch weights that no program can: a shared folder, or a repository whose files
            have unknown names.
        published: figures of the paper. Of a classifier, some of ``top1`` (percent, ImageNet-1k), ``gmacs`` (10^9
            multiply-adds) and ``v100_images_per_s`` (batch 128). Of a detector: ``box_ap`` and ``mask_ap`` (percent,
            COCO 2017 val) and ``backbone_gmacs`` (at 800x1333). Of a segmenter: ``miou`` (percent, ADE20K val) and
            ``backbone_gmacs`` (at 512x512). Of a clip model: ``top1`` (percent, Kinetics-400) and ``gmacs`` of a view.
        published_note: the setting that ``published`` holds for, where it is not the paper's only one.
        test_scale: of a detector, the longest and the shortest side of its resized input, pixels.
    """

    sha256: str | None = None
    weights_page: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    published_note: str = ""
    test_scale: tuple[int, int] | None = None

    @property
    def name(self) -> str:
        """``architecture.tag``, or the architecture alone where there is no tag."""
        return f"{self.architecture}.{self.tag}" if self.tag else str(self.architecture)

    @property
    def repo(self) -> str | None:
        """Repository on the Hugging Face Hub; ``None`` where no weights are there."""
        return self.hf_hub_id.partition("@")[0] if self.hf_hub_id else None

    @property
    def revision(self) -> str:
        """Branch, tag or commit of the repository."""
        return (self.hf_hub_id or "").partition("@")[2] or "main"

    @property
    def filename(self) -> str:
        """File of the repository."""
        return self.hf_hub_filename or TIMM_FILE

    @property
    def source_url(self) -> str:
        """Page where a person can read about the weights and download them."""
        return f"https://huggingface.co/{self.repo}" if self.repo else self.weights_page or self.origin_url or ""

    def to_dict(self, remove_source: bool = False, remove_null: bool = True) -> dict[str, Any]:
        """timm's fields alone: timm makes a plain ``PretrainedCfg`` of them again."""
        own = {one.name for one in fields(ModelRecord)} - {one.name for one in fields(PretrainedCfg)}
        cfg = {name: value for name, value in asdict(self).items() if name not in own}
        return filter_pretrained_cfg(cfg, remove_source=remove_source, remove_null=remove_null)


def record(name: str) -> ModelRecord:
    """The record of a registered model.

    Args:
        name: ``architecture.tag``, or the architecture alone: that stands for the tag whose published accuracy this
            project compares, for other models for timm's default tag.

    Raises:
        UnknownModel: no such architecture or tag is registered with timm.
    """
    name = _compared_tags().get(name, name)
    try:
        cfg = get_pretrained_cfg(name)
    except RuntimeError as error:  # the architecture has no such tag
        known = ", ".join(get_arch_pretrained_cfgs(name))
        raise UnknownModel(f"{name} is not registered with timm.", f"Choose one of: {known}.") from error
    if cfg is None and not is_model(name):
        raise UnknownModel(f"{name} is not registered with timm.", similar_names(name))
    if cfg is None:
        current = get_deprecated_models().get(name)  # what timm calls it today
        return record(current) if current else ModelRecord(architecture=name)
    if isinstance(cfg, ModelRecord):
        return cfg
    known = {one.name: getattr(cfg, one.name) for one in fields(PretrainedCfg)}
    return ModelRecord(**known | _BASELINES.get(name, {}))


def similar_names(name: str) -> str:
    """Advise where no model is registered under a name: the names that are most like it, else how to list all."""
    near = get_close_matches(name.partition(".")[0], list_models())
    return f"Did you mean {' or '.join(near)}?" if near else "List the names with `timm.list_models()`."


def catalogue() -> dict[str, ModelRecord]:
    """The published weights that this project runs and compares, by full name."""
    ours = (
        f"stvit_r_swin_{size}_{kind}" for kind in ("224.in1k", "cascade_mask_rcnn.coco") for size in ("small", "base")
    )
    return {name: record(name) for name in (*ours, *_BASELINES)}


def classifier_figures(top1: float, gmacs: float, v100_images_per_s: int) -> dict[str, float]:
    """``ModelRecord.published`` of a classifier."""
    return {"top1": top1, "gmacs": gmacs, "v100_images_per_s": v100_images_per_s}


def _baseline(*figures: float) -> dict[str, Any]:
    """What timm's config of a full-token model does not hold; its crop of 0.9 is not that of the published accuracy."""
    return {"crop_pct": PUBLISHED_CROP, "published": classifier_figures(*figures)}


# The Swin baselines saw ImageNet-1k alone, as STViT-R did; those that timm takes by default saw ImageNet-22k first.
_BASELINES = {
    "swin_tiny_patch4_window7_224.ms_in1k": _baseline(81.3, 4.5, 878),
    "swin_small_patch4_window7_224.ms_in1k": _baseline(83.0, 8.7, 551),
    "swin_base_patch4_window7_224.ms_in1k": _baseline(83.5, 15.4, 415),
    "deit_tiny_patch16_224.fb_in1k": _baseline(72.2, 1.26, 2752),
    "deit_small_patch16_224.fb_in1k": _baseline(79.8, 4.58, 1408),
    "deit_base_patch16_224.fb_in1k": _baseline(81.8, 17.58, 626),
}


@cache
def _compared_tags() -> dict[str, str]:
    return {name.partition(".")[0]: name for name in _BASELINES}
