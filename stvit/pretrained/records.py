"""The checkpoints that the project knows: where each is published, under which licence, and what it is for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

STVIT_R_REPO = "csncsn/STViT-R"
STVIT_R_LICENCE = "not stated by the authors (their code is MIT)"

Task = Literal["classification", "detection"]


@dataclass(frozen=True)
class Preprocessing:
    """How images were prepared where the published accuracy was measured.

    Attributes:
        input_size: side of the square input, pixels.
        crop_pct: share of the resized image's short side that the centre crop keeps.
        interpolation: filter of the resize.
        mean, std: per RGB channel, of values in [0, 1].
    """

    crop_pct: float
    input_size: int = 224
    interpolation: str = "bicubic"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class DetectorPreprocessing:
    """How images were prepared where the published precision was measured.

    Attributes:
        scale: longest and shortest side that the resized image may have, pixels.
        divisor: right and bottom are filled up to a multiple of this.
        interpolation: filter of the resize.
        mean, std: per RGB channel, of values in [0, 1].
    """

    scale: tuple[int, int] = (1333, 800)
    divisor: int = 32
    interpolation: str = "bilinear"
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class CheckpointRecord:
    """One published file of weights.

    Attributes:
        name: name in the catalogue.
        model: registered name of the model that it fits.
        repo, filename, revision: where the Hugging Face Hub has it.
        licence: licence of the weights.
        source_url: page where a person can read about it and download it.
        published: the STViT paper's figures. Of a classifier: ``top1`` (percent, ImageNet-1k), ``gmacs`` (10^9
            multiply-adds) and ``v100_images_per_s`` (batch 128). Of a detector: ``box_ap`` and ``mask_ap`` (percent,
            COCO 2017 val) and ``backbone_gmacs`` (at 800x1333).
        preprocessing: how to prepare images for it.
        task: what the model does.
        sha256, size: of the file (size in bytes); ``None`` where the first download decides, see :mod:`.ledger`.
    """

    name: str
    model: str
    repo: str
    filename: str
    licence: str
    published: Mapping[str, float]
    preprocessing: Preprocessing | DetectorPreprocessing
    revision: str = "main"
    task: Task = "classification"
    sha256: str | None = None
    size: int | None = None

    @property
    def source_url(self) -> str:
        return f"https://huggingface.co/{self.repo}"


def _published(top1: float, gmacs: float, v100_images_per_s: int) -> dict[str, float]:
    return {"top1": top1, "gmacs": gmacs, "v100_images_per_s": v100_images_per_s}


def _stvit_r(size: str, letter: str, published: dict[str, float]) -> CheckpointRecord:
    name = f"stvit_r_swin_{size}_224"
    return CheckpointRecord(
        name=name,
        model=name,
        repo=STVIT_R_REPO,
        filename=f"STViT-R-Swin-{letter}.pth",
        licence=STVIT_R_LICENCE,
        published=published,
        preprocessing=Preprocessing(crop_pct=0.875),
    )


def _stvit_r_detector(size: str, published: dict[str, float]) -> CheckpointRecord:
    name = f"stvit_r_swin_{size}_cascade_mask_rcnn"
    return CheckpointRecord(
        name=name,
        model=name,
        repo=STVIT_R_REPO,
        filename=f"cascade_mask_rcnn_swin_{size}_patch4_window7_mstrain_480-800_giou_4conv1f_adamw_3x_coco.pth",
        licence=STVIT_R_LICENCE,
        published=published,
        preprocessing=DetectorPreprocessing(),
        task="detection",
    )


def _timm(name: str, tag: str, licence: str, published: dict[str, float]) -> CheckpointRecord:
    return CheckpointRecord(
        name=name,
        model=name,
        repo=f"timm/{name}.{tag}",
        filename="model.safetensors",
        licence=licence,
        published=published,
        preprocessing=Preprocessing(crop_pct=0.9),
    )


# The Swin baselines saw ImageNet-1k alone, as STViT-R did; those that timm takes by default saw ImageNet-22k first.
CATALOGUE: dict[str, CheckpointRecord] = {
    record.name: record
    for record in (
        _stvit_r("small", "S", _published(82.7, 5.83, 717)),
        _stvit_r("base", "B", _published(83.2, 10.26, 539)),
        _stvit_r_detector("small", {"box_ap": 51.8, "mask_ap": 44.7, "backbone_gmacs": 134}),
        _stvit_r_detector("base", {"box_ap": 52.2, "mask_ap": 45.2, "backbone_gmacs": 233}),
        _timm("swin_tiny_patch4_window7_224", "ms_in1k", "MIT", _published(81.3, 4.5, 878)),
        _timm("swin_small_patch4_window7_224", "ms_in1k", "MIT", _published(83.0, 8.7, 551)),
        _timm("swin_base_patch4_window7_224", "ms_in1k", "MIT", _published(83.5, 15.4, 415)),
        _timm("deit_tiny_patch16_224", "fb_in1k", "Apache-2.0", _published(72.2, 1.26, 2752)),
        _timm("deit_small_patch16_224", "fb_in1k", "Apache-2.0", _published(79.8, 4.58, 1408)),
        _timm("deit_base_patch16_224", "fb_in1k", "Apache-2.0", _published(81.8, 17.58, 626)),
    )
}
