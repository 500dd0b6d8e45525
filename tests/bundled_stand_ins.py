"""Bundled models that nobody trained: the kinds that the project ships, narrower, in a folder of the test's own."""

from __future__ import annotations

import hashlib
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save

import stvit
from stvit.segmentation import UperNet
from tests.sure_detector import PHOTO, make_sure, scale_outputs
from weights.garments.datasets import MOTIONS
from weights.garments.sources import CLASS_NAMES

NARROW_SWIN: dict[str, Any] = {
    "embed_dim": 16,
    "depths": [1, 1, 6, 1],
    "num_heads": [1, 2, 4, 8],
    "num_classes": 10,
}
NARROW_DEIT: dict[str, Any] = {
    "img_size": 112,
    "patch_size": 8,
    "embed_dim": 48,
    "num_heads": 3,
    "num_classes": 10,
}
NARROW_CLIP: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [1, 1, 3, 1],
    "num_heads": [1, 2, 4, 8],
    "window_size": [4, 7, 7],
    "num_classes": 8,
}
SEGMENTED = {"channels": 16, "auxiliary_channels": 8, "num_classes": 11}
NARROW_HEADS: dict[str, Any] = {"fpn_channels": 16, "box_hidden": 32}
FULL_TOKENS = {"class_token": False, "global_pool": "avg", "fc_norm": False}

KINDS: dict[str, tuple[str, str, int, dict[str, Any]]] = {  # name: task, model, input size, options
    "garments_stvit_deit": ("classify", "stvit_deit_tiny_patch16_224", 112, NARROW_DEIT | {"num_semantic_tokens": 16}),
    "garments_deit": ("classify", "deit_tiny_patch16_224", 112, NARROW_DEIT | FULL_TOKENS),
    "garments_evit_05": ("classify", "evit_deit_tiny_patch16_224", 112, NARROW_DEIT | {"keep_rate": 0.5}),
    "garments_stvit_r_swin": ("classify", "stvit_r_swin_small_224", 224, NARROW_SWIN),
    "garments_swin": ("classify", "swin_tiny_patch4_window7_224", 224, NARROW_SWIN),
    "garments_detect_stvit_r": ("detect", "stvit_r_swin_small_cascade_mask_rcnn", 224, NARROW_SWIN | NARROW_HEADS),
    "garments_detect_swin": ("detect", "swin_small_cascade_mask_rcnn", 224, NARROW_SWIN | NARROW_HEADS),
    "garments_segment_stvit_r": ("segment", "stvit_r_swin_small_upernet", 224, NARROW_SWIN | SEGMENTED),
    "garments_segment_swin": ("segment", "swin_small_upernet", 224, NARROW_SWIN | SEGMENTED),
    "garments_clips_stvit_swin": (
        "video",
        "stvit_video_swin_tiny",
        112,
        NARROW_CLIP | {"img_size": 112, "stgm_position": 1},
    ),
    "garments_clips_swin": ("video", "video_swin_tiny", 112, NARROW_CLIP),
}
CLASSES = {"segment": ("background", *CLASS_NAMES), "video": MOTIONS}
METRICS = {
    "classify": {"top1": 91.25},
    "video": {"top1": 88.25},
    "segment": {"mIoU": 61.5, "pixel_accuracy": 93.25},
    "detect": {"box_ap": 41.5, "box_ap50": 72.25, "mask_ap": 38.0},
}


def make_varied(network: UperNet) -> None:
    """Let a segmenter of random weights see several classes in any picture."""
    scale_outputs(network.head.classifier[-1], torch.zeros(network.num_classes), 1.0)
    with Image.open(PHOTO) as photo:
        network.eval().predict(np.array(photo.convert("RGB")), scale=(224, 224))


@cache
def weights_of(name: str) -> tuple[bytes, int]:
    """The file of weights, and the multiply-adds of a classifier (1 for others)."""
    task, model, size, options = KINDS[name]
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        network = stvit.create_model(model, **options)
        if task == "detect":
            make_sure(network)
        if task == "segment":
            make_varied(network)
        macs = stvit.count_macs(network, (3, size, size)) if task == "classify" else 1
    half = {key: value.half() if value.is_floating_point() else value for key, value in network.state_dict().items()}
    return save({key: value.clone(memory_format=torch.contiguous_format) for key, value in half.items()}), macs


def describe(name: str, folder: Path) -> dict[str, Any]:
    """The description of a file of weights in the folder."""
    task, model, size, options = KINDS[name]
    return {
        "name": name,
        "model": model,
        "options": options,
        "task": task,
        "classes": list(CLASSES.get(task, CLASS_NAMES)),
        "input_size": size,
        "metrics": METRICS[task],
        "metrics_split": ["test", 1000],
        "macs": weights_of(name)[1],
        "data": "Nothing: random weights that stand in for trained ones.",
        "seed": 0,
        "recipe": name,
        "command": [f"python -m stvit.training {task} --recipe {name}", "python -m weights.garments.bundle"],
        "epochs": 6,
        "samples_seen": 330_000,
        "trained_on": "nothing",
        "licence": "Apache-2.0",
        **({"frames": 8, "stride": 1} if task == "video" else {}),
        "sha256": hashlib.sha256((folder / f"{name}.safetensors").read_bytes()).hexdigest(),
    }


def write_stand_ins(folder: Path, *names: str) -> Path:
    """Fill a folder with some stand-ins, by default with all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names or KINDS:
        (folder / f"{name}.safetensors").write_bytes(weights_of(name)[0])
        (folder / f"{name}.json").write_text(json.dumps(describe(name, folder)))
    return folder
