"""The commands of docs/sparsify.md that begin from a trained model run, in their order, on a tiny one."""

import re
import shlex
from pathlib import Path

import pytest
import timm

from stvit.sparsify.__main__ import main as sparsify
from stvit.training.__main__ import main as train
from stvit.training.checkpoints import read_metrics
from tests.stvit.sparsify.hosts import write_pictures, write_trained

TEXT = Path(__file__).parents[3] / "docs" / "sparsify.md"
#: for twenty pictures of 32 pixels; the text's numbers are for real ones
SMALL = {"data.size": 32, "data.classes": 5, "batch_size": 10, "epochs": 1, "warmup_epochs": 0}


def test_the_tutorial_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = {"model.json": write_trained(tmp_path), "DIR": write_pictures(tmp_path / "pictures")}
    own |= {"fast": tmp_path / "fast", "OUTPUT": tmp_path / "run", "36": "4"}
    blocks = re.findall(r"^```sh\n(.*?)^```$", TEXT.read_text(), re.MULTILINE | re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines() if "model.json" in line]
    ran = []
    for line in lines:
        words = shlex.split(line)
        module, *arguments = words[words.index("-m") + 1 :]
        arguments = [re.sub(r"[\w.]+$", lambda end: str(own.get(end[0], end[0])), word) for word in arguments]
        small = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
        assert {"stvit.sparsify": sparsify, "stvit.training": train}[module](
            arguments if module == "stvit.sparsify" else [*arguments, *small, "--cpu"]
        ) == 0
        ran.append(module)
    assert ran == ["stvit.sparsify", "stvit.training"] and "after epoch 1" in capsys.readouterr().out
    assert "evaluation" in read_metrics(tmp_path / "run")[-1]
    for folder in ("fast", "run"):
        assert timm.create_model(f"local-dir:{tmp_path / folder}", pretrained=True).num_classes == 5
