"""Classifiers learn what is no garment, and their cards say how well."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from demo.model_specs import build_registry
from demo.page.examples import GARMENTS as EXAMPLES
from demo.predictors import Predictors
from tests.bundled_stand_ins import write_stand_ins
from tests.stvit.training.tiny_sources import write_items, write_photos
from weights.garments import scope

NAMES = ("garments_deit", "garments_evit_05")


def test_a_row_tells_known_features_from_others() -> None:
    generator = torch.Generator().manual_seed(0)
    known, first, second = (torch.randn(count, 4, generator=generator) for count in (200, 50, 10))
    weight, bias = scope.logistic_row(known + 3, [first, second - torch.tensor([5.0, 0, 0, 0])])
    right = torch.cat([(known + 3) @ weight + bias > 0, first @ weight + bias < 0])
    assert right.float().mean() > 0.95


def test_the_command_writes_rows_and_their_rates_into_the_cards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scope, "GARMENTS", {"train": 12, "validation": 20, "test": 10})
    monkeypatch.setattr(scope, "CROPS", 6)
    folder, items, photos = (
        write_stand_ins(tmp_path / "cards", *NAMES, "garments_detect_swin"),
        write_items(tmp_path / "items"),
        write_photos(tmp_path / "photos"),
    )
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert scope.main(["--backgrounds", str(photos), "--items", str(items), "--folder", str(folder)]) == 0
    said = capsys.readouterr().out
    for name in NAMES:
        found, old = json.loads((folder / f"{name}.json").read_text()), json.loads(before[f"{name}.json"])
        row = found.pop("scope")
        assert found == old and len(row["weight"]) == 48
        assert row["known_samples"] == 10 and row["other_samples"] > 0
        assert f"{name}: refuses {row['refused']} % of garments, accepts {row['accepted']} % of photographs" in said
    changed = {path.name for path in folder.iterdir() if path.read_bytes() != before.get(path.name)}
    assert changed == {f"{name}.json" for name in NAMES}


def test_photographs_that_are_missing_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scope.main(["--backgrounds", str(tmp_path / "none"), "--folder", str(tmp_path)]) == 1
    assert "is no folder" in capsys.readouterr().err


def test_bundled_classifiers_refuse_animals_and_answer_their_examples() -> None:
    registry, predictors = build_registry(), Predictors(torch.device("cpu"), torch.float32)
    garments = sorted(path for path in EXAMPLES.glob("*.jpg") if not path.name.startswith("scene"))
    animals = [EXAMPLES.parent / name for name in ("koala.jpg", "german_shepherd.jpg")]
    assert len(garments) == 10
    for spec in [spec for spec in registry.of_task("classify") if spec.bundled]:
        assert spec.bundled.scope.refused <= 7 and spec.bundled.scope.accepted <= 20
        for path in (*garments, *animals):
            _, answer = predictors.classify_one(path, spec)
            assert answer.in_scope is (path in garments), (spec.name, path.name, answer.scope_score)
