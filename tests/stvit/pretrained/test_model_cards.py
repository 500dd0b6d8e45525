"""Bundled models: descriptions that are checked, weights that are verified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import stvit
import weights.__main__ as command
from stvit.checkpoint import CheckpointError
from stvit.pretrained.hub import WeightsUnavailable
from stvit.pretrained.model_cards import BundledModels, ModelCardError, load_card, read_card
from stvit.pretrained.resolve import resolve_card
from tests.bundled_stand_ins import KINDS, describe, write_stand_ins
from weights import BUNDLED_MODELS

NAME = "garments_deit"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_stand_ins(tmp_path, NAME)


def change(folder: Path, **entries: Any) -> None:
    """Write the description anew with other entries; those that are ``None`` are left out."""
    content = {key: value for key, value in (describe(NAME, folder) | entries).items() if value is not None}
    (folder / f"{NAME}.json").write_text(json.dumps(content))


def test_a_record_holds_what_its_description_says(folder: Path) -> None:
    record = BundledModels(folder)[NAME]
    assert (record.model, record.task, record.input_size) == ("deit_tiny_patch16_224", "classify", 112)
    assert (record.split, record.num_samples, record.metrics) == ("test", 1000, {"top1": 91.25})
    assert len(record.classes) == 10 and record.path == folder / f"{NAME}.safetensors"
    assert (record.epochs, record.samples_seen, record.frames) == (6, 330_000, None)


def test_descriptions_are_read_at_the_first_use(tmp_path: Path) -> None:
    models = BundledModels(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(ModelCardError, match=r"broken\.json does not describe a trained model"):
        len(models)
    (tmp_path / "broken.json").unlink()
    assert len(models) == 0


def test_models_are_listed_by_task(tmp_path: Path) -> None:
    models = BundledModels(write_stand_ins(tmp_path, NAME, "garments_detect_swin"))
    assert list(models) == [NAME, "garments_detect_swin"]
    assert [record.name for record in models.of_task("detect")] == ["garments_detect_swin"]
    assert models.of_task("segment") == ()


@pytest.mark.parametrize(
    ("entries", "problem"),
    [
        ({"model": None}, "model is missing"),
        ({"model": 3}, "model is 3: it should be a valid string"),
        ({"name": "other"}, "name is 'other', not that of the file"),
        ({"task": "sing"}, "task is 'sing'"),
        ({"options": [1]}, r"options is \[1\]: it should be an object"),
        ({"classes": []}, r"classes is \[\]: it should have at least 1 item"),
        ({"classes": ["a", 2]}, r"classes\.1 is 2: it should be a valid string"),
        ({"input_size": "112"}, "input_size is '112': it should be a valid integer"),
        ({"input_size": 0}, "input_size is 0: it should be greater than 0"),
        ({"macs": True}, "macs is True: it should be a valid integer"),
        ({"metrics": {"top1": "91"}}, r"metrics\.top1 is '91': it should be a valid number"),
        ({"metrics_split": "test"}, "metrics_split is 'test'"),
        ({"sha256": "abc"}, "sha256 is 'abc'"),
        ({"command": []}, "command is .*at least 1 item"),
        ({"epochs": -1}, "epochs is -1: it should be greater than 0"),
        ({"task": "video", "frames": 8}, "frames or stride of clips is missing"),
        ({"model": "nothing"}, "model is 'nothing': no such model is registered"),
        ({"options": {"checkpoint_path": "a.pth"}}, "options is .*: weights are not named here"),
        ({"scope": {"weight": [], "bias": 0.0}}, r"scope\.weight is .*at least 1 item.*; scope\.refused is missing"),
        ({"crop_pct": 1.5}, "crop_pct is 1.5: it should be less than or equal to 1"),
        ({"recipe": None}, "recipe is missing"),
    ],
)
def test_a_description_that_is_wrong_is_refused_by_name(folder: Path, entries: dict[str, Any], problem: str) -> None:
    change(folder, **entries)
    with pytest.raises(ModelCardError, match=problem) as raised:
        BundledModels(folder)[NAME]
    assert "model_cards.BundledCard" in raised.value.next_step


def test_one_command_may_be_a_text_and_unknown_entries_are_left_aside(folder: Path) -> None:
    change(folder, command="python -m stvit.training", mood="good", frames=8, stride=1)
    record = BundledModels(folder)[NAME]
    assert (record.command, record.frames, record.stride) == (("python -m stvit.training",), 8, 1)


def test_its_half_precision_weights_fill_a_model_in_single_precision(folder: Path) -> None:
    record = BundledModels(folder)[NAME]
    model, card = load_card(folder / f"{NAME}.json")
    assert (card.sha256, card.path) == (record.sha256, record.path)
    assert (model.pretrained_cfg["input_size"], model.pretrained_cfg["crop_pct"]) == ((3, 112, 112), 1.0)
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())
    assert model(torch.zeros(1, 3, 112, 112)).shape == (1, 10)


def test_a_card_needs_no_more_than_what_runs_the_model(folder: Path) -> None:
    needed = ("model", "options", "task", "classes", "input_size", "sha256")
    content = {key: value for key, value in describe(NAME, folder).items() if key in needed}
    (folder / f"{NAME}.json").write_text(json.dumps(content))
    assert load_card(folder / f"{NAME}.json")[1].name == NAME
    with pytest.raises(ModelCardError, match="metrics is missing"):
        BundledModels(folder)[NAME]


def test_no_entry_of_a_card_leads_to_other_weights(folder: Path, tmp_path: Path) -> None:
    change(folder, path="/etc/passwd")
    assert read_card(folder / f"{NAME}.json").path == folder / f"{NAME}.safetensors"


def test_options_and_weights_that_do_not_fit_are_told(folder: Path) -> None:
    options = describe(NAME, folder)["options"]
    change(folder, options={"keep_rates": 3})
    with pytest.raises(ModelCardError, match=f"cannot be made with the options in {NAME}.json"):
        load_card(folder / f"{NAME}.json")
    change(folder, options={**options, "num_classes": 7})
    with pytest.raises(CheckpointError, match="of another shape"):
        load_card(folder / f"{NAME}.json")


def test_weights_that_changed_or_are_gone_are_refused(folder: Path) -> None:
    record = BundledModels(folder)[NAME]
    with record.path.open("ab") as file:
        file.write(b"x")
    with pytest.raises(WeightsUnavailable, match="damaged: their sha256 is") as raised:
        resolve_card(record)
    assert raised.value.reason == "damaged" and str(folder) not in str(raised.value)
    record.path.unlink()
    with pytest.raises(WeightsUnavailable, match=r"are missing\. Put back"):
        resolve_card(record)


def test_the_commands_list_and_verify_them(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "BUNDLED_MODELS", BundledModels(folder))
    monkeypatch.setattr(command, "catalogue", dict)
    assert command.main(["list"]) == command.main(["verify"]) == 0
    listed, verified = capsys.readouterr().out.splitlines()
    assert listed.startswith(NAME) and "bundled" in listed and "test: top1 91.2" in listed
    assert verified.startswith(f"{NAME}: good (bundled")
    (folder / f"{NAME}.safetensors").write_bytes(b"x")
    assert command.main(["verify"]) == 1
    assert "damaged" in capsys.readouterr().out
    change(folder, sha256="x")
    monkeypatch.setattr(command, "BUNDLED_MODELS", BundledModels(folder))
    assert command.main(["list"]) == 1
    assert "sha256 is 'x'" in capsys.readouterr().err


def test_the_models_that_are_shipped_are_whole_and_fit() -> None:
    for record in BUNDLED_MODELS.values():
        model, _ = load_card(record.path.with_suffix(".json"))
        assert record.path.stat().st_size < 40e6
        assert record.split == "test" and record.num_samples > 0 and record.metrics
        if record.task == "classify":
            size = (3, record.input_size, record.input_size)
            assert model(torch.zeros(1, *size)).shape == (1, len(record.classes))
            assert stvit.count_macs(model, size) == record.macs


def test_every_stand_in_fits_its_model(tmp_path: Path) -> None:
    for record in BundledModels(write_stand_ins(tmp_path)).values():
        load_card(record.path.with_suffix(".json"))
    assert len(BundledModels(tmp_path)) == len(KINDS)
