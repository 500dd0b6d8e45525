"""Every model under every engine, in one interleaved run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stvit.measure.__main__ import main
from stvit.measure.engines import compare_engines, engines_table


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.mean((2, 3)))


@pytest.fixture
def models() -> dict[str, nn.Module]:
    return {"small": Network(2).eval(), "large": Network(8).eval()}


def test_every_model_under_every_engine_stands_beside_its_baseline_and_eager(
    models: dict[str, nn.Module], direct: None
) -> None:
    with torch.inference_mode():
        found = compare_engines(models, ["eager", "openvino"], input_shape=(3, 8, 8), batch_sizes=(1, 2), rounds=3)
    rows = {(row.model, row.engine, row.batch_size): row for row in found.rows}
    assert len(rows) == 2 * 2 * 2 and found.notes == ()
    row = rows["small", "openvino", 2]
    assert row.latency.runs == 3 and row.over_baseline.median > 0 and row.over_eager.median > 0
    assert row.allowed_by_macs == pytest.approx(4.0)
    assert rows["large", "eager", 1].over_baseline is None and rows["large", "eager", 1].over_eager is None
    assert engines_table(found).count("openvino") == 4


def test_an_engine_that_cannot_run_is_a_note_and_no_figure(models: dict[str, nn.Module]) -> None:
    found = compare_engines(models, ["eager", "cuda_graphs"], input_shape=(3, 8, 8), rounds=2)
    assert {row.engine for row in found.rows} == {"eager"} and len(found.notes) == 1
    assert found.notes[0] in engines_table(found)


def test_the_command_saves_the_engine_with_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"]
    output = tmp_path / "figures.json"
    options = ["--engine", "eager", "--batch-size", "1", "--rounds", "1", "--precision", "float32", "--device", "cpu"]
    assert main([*names, *options, "--output", str(output)]) == 0
    assert [(row["model"], row["engine"]) for row in json.loads(output.read_text())["rows"]] == [
        (name, "eager") for name in names
    ]
    assert names[0] in capsys.readouterr().out


def test_the_papers_suite_has_no_engines() -> None:
    with pytest.raises(SystemExit):
        main(["--suite", "paper", "--engine", "eager"])


def test_where_no_engine_runs_the_command_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"]
    options = ["--engine", "cuda_graphs", "--rounds", "1", "--precision", "float32", "--device", "cpu"]
    assert main([*names, *options, "--batch-size", "1"]) == 1
    assert "cuda_graphs cannot run here: " in capsys.readouterr().err
