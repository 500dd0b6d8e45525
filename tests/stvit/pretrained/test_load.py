from __future__ import annotations

from pathlib import Path

import pytest
import torch
from stvit.pretrained.load import load
from torch import nn

from stvit.checkpoint import CheckpointError
from tests.hub_server import HubServer
from weights import CheckpointRecord


def test_weights_travel_from_the_hub_into_a_model(hub: HubServer, record: CheckpointRecord, tmp_path: Path) -> None:
    source, model = nn.Linear(3, 2), nn.Linear(3, 2)
    torch.save({"model": source.state_dict(), "epoch": 3}, tmp_path / "model.pth")
    hub.add_file(record.repo, record.filename, (tmp_path / "model.pth").read_bytes())
    assert load(model, record).origin == "Hub"
    assert torch.equal(model.weight, source.weight)
    assert load(model, record, offline=True).origin == "cache"


def test_weights_of_another_model_are_refused(hub: HubServer, record: CheckpointRecord, tmp_path: Path) -> None:
    torch.save(nn.Linear(3, 2).state_dict(), tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="does not fit Linear"):
        load(nn.Linear(3, 7), record, explicit_path=tmp_path / "model.pth")
