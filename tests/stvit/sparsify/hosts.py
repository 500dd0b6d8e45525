"""The smallest registered network of every family of timm that can be sparsified, narrow: 16 image tokens, 4 layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from stvit.pretrained.model_cards import write_card

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 4, "num_heads": 2, "num_classes": 5}
SWIN = {"img_size": 112, "embed_dim": 16, "num_heads": (1, 2, 4, 8), "num_classes": 5, "drop_path_rate": 0.0}

HOSTS: dict[str, dict[str, Any]] = {
    "deit_tiny_patch16_224": VIT,
    "deit_tiny_distilled_patch16_224": VIT,
    "deit3_small_patch16_224": VIT,  # LayerScale, no position of the class token
    "vit_tiny_patch16_224": {**VIT, "dynamic_img_size": True},  # AugReg
    "vit_base_patch16_gap_224": VIT,  # average pooling, no class token
    "vit_small_patch14_reg4_dinov2": VIT,  # four registers, LayerScale
    "vit_giant_patch14_dinov2": VIT,  # SwiGLU
    "vit_base_patch16_siglip_224": VIT,  # attention pooling, no class token
    "vit_base_patch32_clip_quickgelu_224": VIT,  # norm before the layers
    "beit3_base_patch16_224": VIT,  # norms inside attention and feed-forward network
    "vit_small_patch16_dinov3": VIT,  # Eva with rotary positions and registers
    "eva02_tiny_patch14_224": VIT,  # separate projections, SwiGLU
    "eva_giant_patch14_224": VIT,  # no bias of keys
    "vit_small_patch16_rope_mixed_224": VIT,  # learned rotary positions of every layer
    "swin_tiny_patch4_window7_224": SWIN,
}
#: one of every way that a forward pass can take
GRAPHS = [
    "deit_tiny_patch16_224",
    "vit_base_patch16_siglip_224",
    "vit_small_patch16_dinov3",
    "eva02_tiny_patch14_224",
    "vit_small_patch16_rope_mixed_224",
    "swin_tiny_patch4_window7_224",
]
VITS = [name for name in HOSTS if not name.startswith("swin")]


def host(name: str, **options: Any) -> nn.Module:
    """A narrow network with fixed random weights, in evaluation mode."""
    torch.manual_seed(0)
    model = timm.create_model(name, **{**HOSTS[name], **options})
    with torch.no_grad():
        for parameter in model.parameters():  # so that nothing is zero, one, or too small to be seen
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


def images_for(name: str, batch: int = 2) -> torch.Tensor:
    """Random images of the size that it takes."""
    side = HOSTS[name]["img_size"]
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def write_trained(folder: Path) -> Path:
    """A trained model of five classes in a folder, ``own.safetensors``; its card."""
    path = folder / "own.safetensors"
    save_file(host("deit_tiny_patch16_224").state_dict(), path)
    card = {"model": "deit_tiny_patch16_224", "options": VIT, "task": "classify", "classes": list("abcde")}
    write_card(path, {**card, "input_size": 32, "crop_pct": 0.9})
    return path.with_suffix(".json")


def write_pictures(folder: Path) -> Path:
    """Twenty pictures of five classes to train on and ten to evaluate on, in a folder for every class."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 4), ("validation", 2)):
        for number in range(5):
            (folder / split / f"class{number}").mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 60, (40, 40, 3)) + 45 * np.array([number, 4 - number, 2])
                Image.fromarray(pixels.astype(np.uint8)).save(folder / split / f"class{number}" / f"{index}.png")
    return folder
