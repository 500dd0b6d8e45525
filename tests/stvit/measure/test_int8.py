"""Precisions under OpenVINO beside each other, with a stand-in for NNCF."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from stvit.export.graph import example_images
from stvit.measure import int8
from stvit.measure.int8 import Candidate, compare_precisions, main, table
from stvit.predict.device import cpu_has_bfloat16_units
from tests.stvit.export.small_models import build


@pytest.fixture
def nncf(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves models as they are."""
    stand_in = SimpleNamespace(
        quantize=lambda model, *_, **__: model.clone(),
        compress_weights=lambda model: model,
        Dataset=list,
        ModelType=SimpleNamespace(TRANSFORMER="transformer"),
    )
    monkeypatch.setitem(sys.modules, "nncf", stand_in)


def test_every_model_in_every_precision_stands_beside_fp32_and_the_baseline(
    nncf: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    noise = [one[None].numpy() for one in example_images((3, 112, 112), 2)]
    once = int8.in_precisions(Candidate(build("stvit_deit"), noise, True))
    monkeypatch.setattr(int8, "in_precisions", lambda model: once)
    models = {
        name: Candidate(build("stvit_deit"), noise, trained) for name, trained in (("ours", True), ("full", False))
    }
    rows = {(row.model, row.precision, row.batch_size): row for row in compare_precisions(models, (1, 3), rounds=2)}
    precisions = ["fp32", *(["bf16"] if cpu_has_bfloat16_units() else []), "int8 weights", "int8"]
    assert list(rows) == [(name, precision, batch) for batch in (1, 3) for name in models for precision in precisions]
    own, exact, full = rows["ours", "int8", 3], rows["ours", "fp32", 3], rows["full", "int8", 3]
    assert own.over_fp32.median > 0 and own.over_baseline.median > 0 and own.latency.runs == 2
    assert exact.over_fp32 is None and (exact.cosine, exact.same_class) == (pytest.approx(1.0), 1.0)
    assert full.over_baseline is None and full.same_class is None and full.cosine == pytest.approx(1.0, abs=0.01)
    assert table(list(rows.values())).count("int8 weights") == 4


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["stvit_r_swin_small_upernet"], "is no classifier of pictures"),
        (["video_swin_tiny"], "is no classifier of pictures"),
        (["no_card.json"], "no_card.json"),
        (["deit_tiny_patch16_224", "--pictures", str(Path(__file__).parent)], "has 0 pictures"),
    ],
)
def test_what_cannot_be_measured_is_one_line(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 1
    found = capsys.readouterr().err
    assert said in found and found.count("\n") == 1


def test_without_nncf_the_command_says_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setattr(int8, "create_model", lambda name: build("deit"))
    assert main(["deit_tiny_patch16_224"]) == 1
    assert "[int8]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["deit_tiny_patch16_225"], "Did you mean deit_tiny_patch16_224"),
        (["deit_tiny_patch16_224", "deit_tiny_patch16_224"], "each model once"),
        (["deit_tiny_patch16_224", "--rounds", "0"], "not a whole number from 1 on"),
        (["deit_tiny_patch16_224", "--output", "/"], "it is a folder"),
    ],
)
def test_wrong_options_are_refused_first(arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert said in capsys.readouterr().err
