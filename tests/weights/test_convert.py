from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import nn

from stvit.checkpoint import CheckpointError, load_checkpoint, read_checkpoint
from weights.__main__ import convert, main


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A container whose tensors are neither contiguous nor each in a storage of its own."""
    weight = torch.randn(2, 3)
    path = tmp_path / "model.pth"
    torch.save({"model": {"weight": weight.t(), "again": weight.t(), "index": torch.arange(9)[::2]}, "epoch": 1}, path)
    return path


def test_conversion_keeps_every_tensor_under_its_name(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "model.safetensors")
    before, after = read_checkpoint(source), read_checkpoint(tmp_path / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_conversion_records_its_source(source: Path, tmp_path: Path) -> None:
    convert(source, tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        metadata = file.metadata()
    sha256 = hashlib.sha256(source.read_bytes()).hexdigest()
    assert metadata == {"format": "pt", "source": "model.pth", "source_sha256": sha256}


def test_a_model_loads_the_same_from_both_files(tmp_path: Path) -> None:
    torch.save({"state_dict": nn.Linear(3, 2).state_dict(), "meta": {}}, tmp_path / "model.pth")
    convert(tmp_path / "model.pth", tmp_path / "model.safetensors")
    first, second = nn.Linear(3, 2), nn.Linear(3, 2)
    load_checkpoint(first, tmp_path / "model.pth")
    load_checkpoint(second, tmp_path / "model.safetensors")
    assert torch.equal(first.weight, second.weight)
    assert torch.equal(first.bias, second.bias)


def test_nothing_existing_is_overwritten(source: Path) -> None:
    content = source.read_bytes()
    with pytest.raises(CheckpointError, match=r"exists already\. Give another name"):
        convert(source, source)
    assert source.read_bytes() == content


@pytest.mark.parametrize(
    ("source_name", "destination_name", "message"),
    [
        ("nowhere.pth", "model.safetensors", "nowhere.pth cannot be opened"),
        ("model.pth", "no/such/folder/model.safetensors", "cannot be written"),
        ("broken.pth", "model.safetensors", "broken.pth is neither safetensors nor a PyTorch checkpoint"),
    ],
)
def test_a_failed_conversion_says_why_and_leaves_nothing(
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    source_name: str,
    destination_name: str,
    message: str,
) -> None:
    (tmp_path / "broken.pth").write_bytes(b"not a checkpoint")
    files = sorted(tmp_path.rglob("*"))
    assert main(["convert", str(tmp_path / source_name), str(tmp_path / destination_name)]) == 1
    assert message in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == files


def test_the_command_converts(source: Path, tmp_path: Path) -> None:
    assert main(["convert", str(source), str(tmp_path / "model.safetensors")]) == 0
    assert read_checkpoint(tmp_path / "model.safetensors").keys() == {"weight", "again", "index"}


def test_stopping_the_command_is_no_traceback_and_leaves_no_file(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(_: object, path: Path, __: object) -> None:
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr("weights.__main__.save_file", stop)
    assert main(["convert", str(source), str(tmp_path / "new.safetensors")]) == 130
    assert "Stopped" in capsys.readouterr().err and list(tmp_path.iterdir()) == [source]
