"""What a local Hub has: made-up weights in the containers and under the names that the real ones have."""

from __future__ import annotations

import io
import json
from pathlib import Path

import timm
import torch
from safetensors.torch import save
from yacs.config import CfgNode

from stvit.pretrained.records import record
from tests.golden.fill import fill
from tests.hub_server import HubServer
from tests.narrow_models import DETECTOR, detector_checkpoint

SHAPES = Path(__file__).parent / "golden" / "released_shapes_small.json"
MODEL, BASELINE = "stvit_r_swin_small_224", "swin_small_patch4_window7_224"
FULL_TOKEN_DEIT = "deit_tiny_patch16_224"


def authors_container() -> bytes:
    """STViT-R-Swin-S as its authors' training code saves it."""
    shapes = json.loads(SHAPES.read_text())
    counters = {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    container = {"model": fill(shapes) | counters, "optimizer": {}, "epoch": 299, "config": CfgNode({"MODEL": {}})}
    buffer = io.BytesIO()
    torch.save(container, buffer)
    return buffer.getvalue()


def add_released_weights(hub: HubServer) -> None:
    """One semantic-token model in the authors' container, two baselines in timm's."""
    hub.add_file(record(MODEL).repo, record(MODEL).filename, authors_container())
    torch.manual_seed(0)
    for name in (BASELINE, FULL_TOKEN_DEIT):
        hub.add_file(record(name).repo, record(name).filename, save(timm.create_model(name).state_dict()))


def add_detector(hub: HubServer) -> None:
    """The weights of the narrow detector under the published name."""
    hub.add_file(record(DETECTOR).repo, record(DETECTOR).filename, detector_checkpoint())
