from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from stvit.checkpoint import read_checkpoint
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.resolve import resolve
from stvit.pretrained.tensors import resolve_tensors, tensors_path
from tests.hub_server import HubServer

WEIGHT = torch.arange(12.0).reshape(3, 4)


def container(weight: torch.Tensor = WEIGHT) -> bytes:
    """As training code saves it: the optimizer is three times the size of the model; two names share one tensor."""
    content = {
        "model": {"head.weight": weight, "tied.weight": weight, "columns": weight.t()},
        "optimizer": {"state": torch.zeros(1000)},
        "epoch": 1,
    }
    buffer = io.BytesIO()
    torch.save(content, buffer)
    return buffer.getvalue()


@pytest.fixture
def pickled(hub: HubServer, record: ModelRecord) -> ModelRecord:
    record = replace(record, hf_hub_filename="toy.pth")
    hub.add_file(record.repo, record.filename, container())
    return record


def test_tensors_are_kept_without_the_optimizer_and_nothing_else_is_read_again(
    hub: HubServer, pickled: ModelRecord
) -> None:
    first = resolve_tensors(pickled)
    published = resolve(pickled)
    assert first.origin == "Hub" and first.path == tensors_path(pickled) and first.sha256 == published.sha256
    tensors, expected = load_file(first.path), read_checkpoint(published.path)
    assert tensors.keys() == expected.keys() and all(torch.equal(tensors[name], expected[name]) for name in expected)
    assert first.path.stat().st_size < published.path.stat().st_size / 4
    published.path.resolve().write_bytes(b"damaged, and not looked at")
    hub.requests.clear()
    assert resolve_tensors(pickled) == replace(first, origin="cache") and hub.requests == []
    assert not list(first.path.parent.glob("*.tmp"))


@pytest.mark.parametrize("damage", ["tensors", "note", "source"])
def test_what_is_not_what_was_written_is_written_again(hub: HubServer, pickled: ModelRecord, damage: str) -> None:
    path = resolve_tensors(pickled).path
    whole = path.read_bytes()
    if damage == "tensors":
        path.write_bytes(whole[:-1] + b"\x01")
    elif damage == "note":
        next(path.parent.glob("*.tensors.json")).write_text("{")
    else:  # the ledger was deleted to take what the repository has now
        hub.add_file(pickled.repo, pickled.filename, container(WEIGHT + 1))
        next(path.parent.glob("*.pth.json")).unlink()
        resolve(pickled).path.resolve().unlink()
        next(path.parent.glob("*.pth.json")).unlink()
    again = resolve_tensors(pickled)
    assert again.path == path
    expected = WEIGHT + 1 if damage == "source" else WEIGHT
    assert torch.equal(load_file(path)["head.weight"], expected)


def test_where_nothing_can_be_kept_the_checkpoint_is_used(
    pickled: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("stvit.pretrained.tensors.save_file", full)
    found = resolve_tensors(pickled)
    assert found == replace(resolve(pickled), origin="Hub") and not tensors_path(pickled).exists()


def test_a_checkpoint_that_is_none_is_told_by_whoever_loads_it(hub: HubServer, record: ModelRecord) -> None:
    record = replace(record, hf_hub_filename="toy.pth")
    hub.add_file(record.repo, record.filename, b"an error page")
    assert Path(resolve_tensors(record).path).read_bytes() == b"an error page"


def test_safetensors_are_taken_as_they_are(hub: HubServer, record: ModelRecord) -> None:
    hub.add_file(record.repo, record.filename, b"content")
    assert resolve_tensors(record) == replace(resolve(record), origin="Hub")
