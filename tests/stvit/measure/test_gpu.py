"""``python -m stvit.measure.gpu``: its order, budget and file, on a CPU with models and engines that take no time."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from timm.models import is_model
from torch import nn

from stvit.errors import UserError
from stvit.measure import gpu, gpu_steps
from stvit.measure.engines import EngineComparison, EngineRow
from stvit.measure.gpu_steps import FAMILIES, Families, Plan, Step, steps, write_clip
from stvit.measure.machine import MachineLimits
from stvit.measure.processes import Difference, OutOfTime
from stvit.measure.roofline import Roofline
from stvit.measure.suite import STVIT_16, Contestant
from stvit.measure.timing import LatencySummary, Quartiles
from stvit.video.probe import probe
from tests.stvit.export.small_models import SMALL

CPU = torch.device("cpu")
HOUR = 3600.0


def kept_in(kept: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    return lambda figures: kept.append(json.loads(json.dumps(figures)))


def test_without_a_card_one_sentence_and_status_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--output", str(tmp_path / "gpu.json")]) == 2
    said = capsys.readouterr()
    assert said.err == gpu.NO_CARD + "\n" and not said.out and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--minutes", "0"], "above 0"), (["--minutes", "nan"], "above 0"), (["--output", "/"], "it is a folder")],
)
def test_what_it_cannot_do_is_refused_first(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        gpu.main(arguments)
    assert said in capsys.readouterr().err


def test_steps_have_their_time_and_what_has_none_is_named() -> None:
    now, given, kept = time.monotonic(), {}, []

    def work(name: str, result: Any) -> Callable[[float, list[str]], Any]:
        def done(until: float, skipped: list[str]) -> Any:
            given[name] = until
            if isinstance(result, Exception):
                raise result
            skipped.append("a part")
            return result

        return done

    planned = [
        Step("whole", 60, work("whole", [1])),
        Step("late", 60, work("late", OutOfTime("no time is left."))),
        Step("worse", 60, work("worse", RuntimeError("CUDA error: misaligned address\nand a long trace"))),
        Step("bad", 2 * HOUR, work("bad", UserError("It is broken.", "Mend it."))),
    ]
    figures = gpu.carry_out(planned, now + HOUR, kept_in(kept), {"hardware": {}})
    assert now + 60 <= given["whole"] < now + 120 and given["bad"] == now + HOUR
    assert figures["steps"] == {"whole": [1]} and figures["failed"] == {
        "worse": "RuntimeError: CUDA error: misaligned address",
        "bad": "It is broken. Mend it.",
    }
    assert figures["skipped"] == ["whole: a part", "late: no time was left"] and set(figures["seconds"]) == set(given)
    assert len(kept) == 5 and kept[-1] == figures and [one["steps"] for one in kept[:2]] == [{}, {"whole": [1]}]

    given.clear()
    figures = gpu.carry_out(planned, time.monotonic() + gpu.LAST_S / 2, kept_in(kept), {})
    assert not given and figures["skipped"] == [f"{one.name}: no time was left" for one in planned]


class Process:
    """An engine that differs from a CPU by what the family's name says."""

    def __init__(self, build: Callable[[], dict[str, nn.Module]], engine: str, shape: object, until: float) -> None:
        self.models, self.engine, self.ended = build(), engine, False

    def begin_comparing(self, family: str) -> None:
        self.family = family

    def difference(self) -> Difference:
        if self.family == "late":
            raise OutOfTime("no time is left.")
        if self.family == "bad":
            raise UserError("eager fails: out of memory.")
        precision = next(self.models[self.family].parameters()).dtype
        by_rounding = 0.0 if precision == torch.float32 else 0.01
        return Difference(1e-3, 2.0, by_rounding, "eager", ("CUDA graphs need a CUDA device",))

    def end(self) -> None:
        assert not self.ended
        self.ended = True


def families(device: torch.device, precision: torch.dtype) -> dict[str, nn.Module]:
    return {"good": nn.Linear(2, 2).to(device, precision)}


def compared(build: Callable[[], dict[str, nn.Module]], engines: Sequence[str], **how: Any) -> EngineComparison:
    """Only the first engine, at batch 1, was there in time."""
    assert how["until"] < time.monotonic() + HOUR
    ours, full = build()
    bound = Roofline(1, 1, 1, 1, 1.0, MachineLimits(1.0, 1.0))
    row = [engines[0], 1, 0, 1, LatencySummary(1.0, 1.0, 1.0, 1)]
    ratio = Quartiles(1.9, 2.0, 2.1)
    rows = (
        EngineRow(ours, *row, ratio, None, 2.4, 0.8, 2.2, bound, 1000),
        EngineRow(full, *row, None, None, 1.0, None, 1.0, bound, 2000),
    )
    return EngineComparison(
        "a card", "bfloat16", how["input_shape"], {}, full, rows, (f"{engines[-1]} cannot run it.",)
    )


def test_the_whole_run_is_one_file_of_plain_data(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], timeout: float, **_: object) -> subprocess.CompletedProcess:
        assert (
            0 < timeout <= 60 and Path(command[3]).stat().st_size and command[command.index("--engine") + 1] == "quick"
        )
        Path(command[-1]).write_text(json.dumps({"models": {"STViT": {"end_to_end_fps": [1, 2, 3]}}}))
        return subprocess.CompletedProcess(command, 0)

    monkeypatch.setattr(gpu_steps, "EngineProcess", Process)
    monkeypatch.setattr(gpu_steps, "compare_engines", compared)
    monkeypatch.setattr(gpu_steps, "write_clip", lambda path: path.write_bytes(b"clip"))
    monkeypatch.setattr(subprocess, "run", run)
    narrow = {"depth": 1, "embed_dim": 24, "num_heads": 3}
    group = (
        Contestant("DeiT", "deit_tiny_patch16_224", narrow),
        Contestant(STVIT_16, "stvit_deit_tiny_patch16_224", narrow | {"depth": 4, "stgm_position": 1}),
    )
    plan = Plan(
        CPU,
        torch.bfloat16,
        quick=("eager", "quick"),
        slow=("compiled",),
        families=[Families(("good", "late", "bad"), families, (3, 8, 8))],
        groups={"deit_small": lambda: group, "deit_tiny": lambda: group},
        dense=lambda device, precision: {"ours": nn.Linear(2, 2), "full": nn.Linear(2, 2)},
    )
    kept: list[dict[str, Any]] = []
    figures = gpu.carry_out(steps(plan), time.monotonic() + HOUR, kept_in(kept), {"hardware": {"gpu": "a card"}})
    assert kept[-1] == json.loads(json.dumps(figures)) and not figures["failed"]
    assert list(figures["steps"]) == [
        "parity float32",
        "parity bfloat16",
        "suite deit_small",
        "dense backbones",
        "clip",
        "compiled deit_small",
        "suite deit_tiny",
        "parity of compilers float32",
        "parity of compilers bfloat16",
    ]
    exact, half = (figures["steps"][f"parity {name}"] for name in ("float32", "bfloat16"))
    assert exact["good"]["quick"]["agrees"] is False and half["good"]["quick"]["agrees"] is True
    assert exact["good"]["quick"]["engine"] == "eager" and exact["good"]["quick"]["notes"]
    assert exact["bad"] == dict.fromkeys(("eager", "quick"), "eager fails: out of memory.") and exact["late"] == {}
    assert figures["steps"]["suite deit_small"]["rows"][0]["peak_memory_bytes"] == 1000
    assert figures["steps"]["dense backbones"]["input_shape"] == (3, 800, 1333)
    skipped = figures["skipped"]
    assert "parity float32: late under quick" in skipped and "suite deit_small: eager at batch 128" in skipped
    assert "compiled deit_small: compiled at batch 1" in skipped and "dense backbones: eager at batch 1" not in skipped

    text = gpu.summary(figures)
    assert "parity float32: 0 of 4 as on the CPU; not good under eager" in text
    assert f"suite deit_small: {STVIT_16}, eager, batch 1: 2.00x over DeiT, multiply-adds allow 2.40x" in text
    assert "suite deit_small: quick cannot run it." in text
    assert "clip: STViT, 2 frames/s" in text and "skipped: suite deit_small: quick at batch 1" in text


def test_an_output_that_is_no_number_leaves_a_file_of_json(tmp_path: Path) -> None:
    def refuse(number: str) -> None:
        raise AssertionError(number)

    output = tmp_path / "gpu.json"
    gpu.save(output, {"steps": {"parity": {"largest": float("inf"), "of": [float("nan"), 2.0]}}})
    saved = json.loads(output.read_text(), parse_constant=refuse)
    assert saved == {"steps": {"parity": {"largest": None, "of": [None, 2.0]}}}


@pytest.mark.parametrize("error", [subprocess.TimeoutExpired("python", 1.0), None])
def test_a_clip_that_is_not_ready_in_time_or_fails_is_said(
    error: Exception | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(command: list[str], **_: object) -> subprocess.CompletedProcess:
        if error:
            raise error
        return subprocess.CompletedProcess(command, 1, stderr="a trace\nout of memory\n")

    monkeypatch.setattr(gpu_steps, "write_clip", lambda path: None)
    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        OutOfTime if error else UserError, match="no time" if error else "cannot be measured: out of mem"
    ):
        gpu_steps.clip(Plan(CPU, torch.bfloat16, groups={}), time.monotonic() + 1, [])


def test_a_run_that_is_stopped_leaves_the_figures_of_the_steps_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(until: float, skipped: list[str]) -> None:
        raise KeyboardInterrupt

    planned = [Step("whole", 60, lambda until, skipped: [1]), Step("stopped", 60, stopped)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "cuda_versions", dict)
    monkeypatch.setattr(gpu, "hardware", lambda device: {"gpu": "a card"})
    monkeypatch.setattr(gpu, "best_precision", lambda device: torch.bfloat16)
    monkeypatch.setattr(gpu, "steps", lambda plan: planned)
    output = tmp_path / "new" / "gpu.json"
    assert gpu.main(["--output", str(output)]) == 130
    assert json.loads(output.read_text())["steps"] == {"whole": [1]} and list(output.parent.iterdir()) == [output]
    assert f"are in {output}." in capsys.readouterr().err


def test_a_card_that_cannot_be_used_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(device: torch.device) -> None:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy\nand a long trace")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(gpu, "hardware", fails)
    assert gpu.main(["--output", str(tmp_path / "gpu.json")]) == 1
    assert capsys.readouterr().err == (
        "The CUDA device cannot be used: CUDA error: all CUDA-capable devices are busy\n"
    )


def test_the_clip_is_one(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.mp4", frames=3, size_hw=(64, 96))
    assert probe(tmp_path / "clip.mp4").source_hw == (64, 96)


def test_every_family_has_a_registered_model() -> None:
    names = {family: name for by_family, _ in FAMILIES for family, name in by_family.items()}
    assert set(names) == set(SMALL) - {"dense_backbone"}  # which is timed by itself
    assert all(map(is_model, names.values()))
