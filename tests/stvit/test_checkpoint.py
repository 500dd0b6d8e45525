from __future__ import annotations

import argparse
import io
import os
import pickle
import sys
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from yacs.config import CfgNode

from stvit.checkpoint import CheckpointError, load_checkpoint, read_checkpoint


def toy_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 2))


def training_container(model: nn.Module) -> dict[str, Any]:
    """What the published training code saves: ``save_checkpoint`` of Swin and STViT-R, with mixed precision."""
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    config = CfgNode({"MODEL": {"NAME": "stvit", "SWIN": {"DEPTHS": [2, 2, 18, 2]}}, "BASE": [""], "LR": 1e-3})
    config.freeze()
    return {
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "lr_scheduler": {"t_in_epochs": False, "base_values": [1e-3, 1e-3], "metric": None},
        "max_accuracy": 82.7,
        "epoch": 299,
        "config": config,
        "amp": {"loss_scaler0": {"loss_scale": 65536.0, "unskipped": 1}},
    }


CONTAINERS: dict[str, Callable[[nn.Module], Any]] = {
    "training code with a yacs config": training_container,
    "mmcv": lambda model: {
        "meta": {"epoch": 36, "CLASSES": ("person", "bicycle"), "env_info": "sys.platform: linux", "hook_msgs": {}},
        "state_dict": model.state_dict(),
        "optimizer": {"state": {}, "param_groups": [{"lr": 1e-4, "betas": (0.9, 0.999), "params": [0, 1]}]},
    },
    "DeiT with its arguments": lambda model: {
        "model": model.state_dict(),
        "epoch": 299,
        "args": argparse.Namespace(lr=5e-4, device="cuda", repeated_aug=True),
    },
    "timm": lambda model: {"model": model.state_dict()},
    "plain": lambda model: model.state_dict(),
    "parameters": lambda model: dict(model.named_parameters()) | dict(model.named_buffers()),
}


def assert_equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert actual.keys() == expected.keys()
    assert all(torch.equal(actual[name], expected[name]) for name in expected)


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("container", CONTAINERS)
def test_published_containers_load_where_yacs_is_not_installed(
    container: str, zipped: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = toy_model()
    content = CONTAINERS[container](source)
    torch.save(content, tmp_path / "model.pth", _use_new_zipfile_serialization=zipped)
    monkeypatch.setitem(sys.modules, "yacs", None)
    monkeypatch.setitem(sys.modules, "yacs.config", None)
    model = toy_model()
    load_checkpoint(model, tmp_path / "model.pth")
    assert_equal(model.state_dict(), source.state_dict())


@pytest.mark.parametrize("name", ["model.safetensors", "model.pth", "model"])
def test_the_content_decides_and_not_the_name(name: str, tmp_path: Path) -> None:
    state = toy_model().state_dict()
    save_file(state, tmp_path / name)
    assert_equal(read_checkpoint(tmp_path / name), state)
    (tmp_path / name).unlink()
    torch.save(state, tmp_path / name)
    assert_equal(read_checkpoint(tmp_path / name), state)


def test_threads_read_published_containers_at_the_same_time(tmp_path: Path) -> None:
    model = toy_model()
    torch.save(training_container(model), tmp_path / "model.pth")
    with ThreadPoolExecutor(8) as pool:
        for state in pool.map(read_checkpoint, [tmp_path / "model.pth"] * 64):
            assert_equal(state, model.state_dict())


class Malicious:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.trace),)


def save_zip(content: Any, path: Path) -> None:
    torch.save(content, path)


def save_legacy(content: Any, path: Path) -> None:
    torch.save(content, path, _use_new_zipfile_serialization=False)


def save_bare_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=2))


def save_protocol_4_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=4))


def save_ascii_pickle(content: Any, path: Path) -> None:
    path.write_bytes(pickle.dumps(content, protocol=0))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol 4")
@pytest.mark.parametrize("save", [save_zip, save_legacy, save_bare_pickle, save_protocol_4_pickle, save_ascii_pickle])
def test_pickled_code_is_refused_and_does_not_run(save: Callable[[Any, Path], None], tmp_path: Path) -> None:
    trace, path = tmp_path / "trace", tmp_path / "model.pth"
    save({"model": toy_model().state_dict(), "config": CfgNode({"OUTPUT": {}}) | {"RUN": Malicious(trace)}}, path)
    with pytest.raises(CheckpointError, match=r"model\.pth"):
        read_checkpoint(path)
    assert not trace.exists()


def test_the_malicious_file_of_the_tests_would_run_when_loaded_carelessly(tmp_path: Path) -> None:
    torch.save(Malicious(tmp_path / "trace"), tmp_path / "model.pth")
    torch.load(tmp_path / "model.pth", weights_only=False)
    assert (tmp_path / "trace").is_dir()


def test_a_refusal_names_what_was_asked_for(tmp_path: Path) -> None:
    torch.save({"model": Malicious(tmp_path / "trace")}, tmp_path / "model.pth")
    with pytest.raises(
        CheckpointError, match=r"refused: its pickle asks for \w+\.mkdir.* Nothing was run\. Use a file"
    ):
        read_checkpoint(tmp_path / "model.pth")


def test_a_file_in_the_tar_format_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "model.pth", "w") as tar:
        tar.addfile(tarfile.TarInfo("pickle"), io.BytesIO())
    with pytest.raises(CheckpointError, match=r"tar format .* save it again"):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "begins with b''.* download it again"),
        (b"<!DOCTYPE html><html>", "begins with b'<!DOCTYPE html>.* download it again"),
        (b"version https://git-lfs.github.com/spec/v1", "begins with b'version https://.* download it again"),
        (b"\x1f\x8b\x08\x00 and nothing more", r"is a gzip archive, no checkpoint\. Unpack it \(tar -xzf\)"),
        (b"PK\x03\x04 and nothing more", "cannot be read as a PyTorch checkpoint .* download it again"),
        (b"\x10\x00\x00\x00\x00\x00\x00\x00{ and nothing more", "damaged safetensors file .*Download it again"),
    ],
)
def test_what_is_no_checkpoint_is_told_apart(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        read_checkpoint(tmp_path / "model.pth")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_a_truncated_checkpoint_is_named(kept: float, zipped: bool, tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(training_container(toy_model()), path, _use_new_zipfile_serialization=zipped)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(CheckpointError, match="download it again"):
        read_checkpoint(path)


@pytest.mark.parametrize("content", [{}, {"epoch": 3}, {"model": {}}, {"model": {"weight": [1, 2]}}, [torch.ones(2)]])
def test_a_file_without_a_model_says_what_it_holds(content: Any, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"holds no model: .* Save the model's state_dict\(\)"):
        read_checkpoint(tmp_path / "model.pth")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"nowhere\.pth cannot be opened .No such file or directory.. Check the path"
    ):
        read_checkpoint(tmp_path / "nowhere.pth")


def test_a_mismatch_lists_both_sides_and_changes_nothing(tmp_path: Path) -> None:
    state = toy_model().state_dict()
    del state["0.bias"]
    state |= {f"extra.{i}": torch.ones(1) for i in range(9)}
    state["2.weight"] = torch.ones(5, 4)
    save_file(state, tmp_path / "model.safetensors")
    model = toy_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(model, tmp_path / "model.safetensors")
    message = str(caught.value)
    assert "missing from the file (1): 0.bias" in message
    assert "unknown to the model (9): extra.0, extra.1, extra.2, extra.3, and 5 more" in message
    assert "of another shape (1): 2.weight (file [5, 4], model [2, 4])" in message
    assert_equal(model.state_dict(), before)


def test_a_model_translates_the_released_names_itself(tmp_path: Path) -> None:
    class Renaming(nn.Linear):
        def convert_released_state_dict(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name.removeprefix("released."): tensor for name, tensor in state.items()}

    weight = torch.randn(2, 3)
    torch.save({"model": {"released.weight": weight}}, tmp_path / "model.pth")
    model = Renaming(3, 2, bias=False)
    load_checkpoint(model, tmp_path / "model.pth")
    assert torch.equal(model.weight, weight)


def small_swin() -> nn.Module:
    return timm.create_model(
        "swin_tiny_patch4_window7_224", embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 1, 1), num_classes=5
    )


def test_a_timm_model_takes_timms_own_names_and_the_authors(tmp_path: Path) -> None:
    source = small_swin()
    save_file(source.state_dict(), tmp_path / "timm.safetensors")
    authors = {"layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64)}
    for name, tensor in source.state_dict().items():
        stage = int(name.split(".")[1]) if ".downsample." in name else 0
        name = name.replace(f"layers.{stage}.downsample", f"layers.{stage - 1}.downsample")
        authors[name.replace("head.fc", "head")] = tensor
    torch.save({"model": authors}, tmp_path / "authors.pth")
    for file in ("timm.safetensors", "authors.pth"):
        model = small_swin()
        load_checkpoint(model, tmp_path / file)
        assert_equal(model.state_dict(), source.state_dict())


def test_a_checkpoint_of_another_network_does_not_fit_a_timm_model(tmp_path: Path) -> None:
    save_file({"layers.7.attn.relative_position_bias_table": torch.ones(169, 3)}, tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"does not fit SwinTransformer: .*Choose the checkpoint"):
        load_checkpoint(small_swin(), tmp_path / "model.safetensors")


def wrapped(state: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize("container", ["plain", "model", "state_dict", "safetensors"])
@pytest.mark.parametrize(
    "prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "model._orig_mod.module."]
)
def test_prefixes_of_wrappers_are_taken_off(prefix: str, container: str, tmp_path: Path) -> None:
    source, model, path = small_swin(), small_swin(), tmp_path / "model"
    state = wrapped(source.state_dict(), prefix)
    if container == "safetensors":
        save_file(state, path)
    else:
        torch.save(state if container == "plain" else {container: state, "epoch": 3}, path)
    load_checkpoint(model, path)
    assert_equal(model.state_dict(), source.state_dict())


def test_what_real_wrappers_save_loads(tmp_path: Path) -> None:
    source, model, wrapped = toy_model(), toy_model(), toy_model()
    wrapped.load_state_dict(source.state_dict())
    wrapped[0] = torch.compile(wrapped[0])
    torch.save(torch.compile(nn.DataParallel(wrapped)).state_dict(), tmp_path / "model.pth")
    load_checkpoint(model, tmp_path / "model.pth")
    assert_equal(model.state_dict(), source.state_dict())


def test_a_child_named_like_a_wrapper_keeps_its_name(tmp_path: Path) -> None:
    source, model = (nn.ModuleDict({"model": nn.Linear(2, 3)}) for _ in range(2))
    for prefix in ("", "module."):
        torch.save(wrapped(source.state_dict(), prefix), tmp_path / "model.pth")
        load_checkpoint(model, tmp_path / "model.pth")
        assert_equal(model.state_dict(), source.state_dict())


def test_what_stands_beside_the_wrapped_network_is_named(tmp_path: Path) -> None:
    state = wrapped(toy_model().state_dict(), "model.") | {"criterion.weight": torch.ones(2)}
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    with pytest.raises(CheckpointError, match=r"Entries unknown to the model \(1\): criterion\.weight\."):
        load_checkpoint(toy_model(), tmp_path / "model.ckpt")


def test_the_counter_of_batchnorm_may_be_missing_but_nothing_else(tmp_path: Path) -> None:
    source, model = toy_model(), toy_model()
    state = source.state_dict()
    del state["1.num_batches_tracked"]
    torch.save(state, tmp_path / "model.pth")
    load_checkpoint(model, tmp_path / "model.pth")
    assert_equal(model.state_dict(), source.state_dict())
    del state["1.running_mean"]
    torch.save(state, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"missing from the file \(1\): 1\.running_mean"):
        load_checkpoint(model, tmp_path / "model.pth")


@pytest.mark.parametrize("names", [("state_dict", "state_dict_ema"), ("model", "model_ema")])
def test_averaged_weights_are_the_default_which_is_said_and_the_choice_can_be_made(
    names: tuple[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    raw, averaged, path = toy_model().state_dict(), toy_model().state_dict(), tmp_path / "model.pth"
    torch.save({names[0]: wrapped(raw, "module."), names[1]: wrapped(averaged, "module."), "epoch": 1}, path)
    for use_ema, expected in ((None, averaged), (True, averaged), (False, raw)):
        model = toy_model()
        caplog.clear()
        load_checkpoint(model, path, use_ema)
        assert_equal(model.state_dict(), expected)
        said = [f"model.pth holds {names[0]} and {names[1]}: the averaged (EMA) weights are used."]
        assert caplog.messages == (said if use_ema is None else [])


def test_asking_for_weights_that_the_file_does_not_hold_is_an_error(tmp_path: Path) -> None:
    state, path = toy_model().state_dict(), tmp_path / "model.pth"
    torch.save({"model": state, "model_ema": None}, path)
    assert_equal(read_checkpoint(path), state)
    with pytest.raises(CheckpointError, match=r"holds no averaged \(EMA\) weights, only model\."):
        read_checkpoint(path, use_ema=True)
    torch.save({"state_dict_ema": state}, path)
    assert_equal(read_checkpoint(path), state)
    with pytest.raises(CheckpointError, match=r"holds averaged \(EMA\) weights only: state_dict_ema\."):
        read_checkpoint(path, use_ema=False)
