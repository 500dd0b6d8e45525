"""Every model under every engine, each engine in a process of its own, with and without load."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stvit.errors import UserError
from stvit.measure import engines as engines_module
from stvit.measure.__main__ import main
from stvit.measure.aims import AHEAD, Aim, aims_table, outcomes
from stvit.measure.engines import EngineComparison, EngineRow, compare_engines, engines_table
from stvit.measure.machine import MachineLimits
from stvit.measure.processes import BUSY, CannotMeasure, EngineProcess, OutOfTime, Ready, _Served, busy_cores
from stvit.measure.roofline import Roofline
from stvit.measure.timing import LatencySummary, Quartiles
from tests.stvit.predict.test_turns import until


class Network(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Linear(3, width)

    def forward(self, images: Tensor) -> Tensor:
        return self.layer(images.mean((2, 3)))


def build() -> dict[str, nn.Module]:
    return {"small": Network(2), "large": Network(8)}


def fail() -> dict[str, nn.Module]:
    raise UserError("There is no such network.", "Choose another.")


def test_every_model_under_every_engine_stands_beside_its_baseline_and_eager() -> None:
    batches = {"batch_sizes": (1, 2), "rounds": 4, "load": 1}
    found = compare_engines(build, ["eager", "openvino", "cuda_graphs"], input_shape=(3, 8, 8), **batches)
    rows = {(row.model, row.engine, row.batch_size, row.load): row for row in found.rows}
    assert len(rows) == len(found.rows) == 2 * 2 * 2 * 2 and found.baseline == "large"
    row = rows["small", "openvino", 2, 1]
    assert row.latency.runs == 4 and row.over_eager.median > 0
    assert row.allowed_by_macs == pytest.approx(4.0)
    assert row.share_of_macs == pytest.approx(row.over_baseline.median / 4)
    assert row.roofline.macs == 2 * 3 * 2 and row.roofline.batch == 2
    large = rows["large", "eager", 1, 0]
    assert large.over_baseline is None and large.over_eager is None and large.share_of_macs is None
    text = engines_table(found)
    assert text.count("openvino  ") == 8 and "small, eager: At batch 1, " in text
    assert found.notes == ("CUDA graphs need a CUDA device, and the model is on cpu.",) and found.notes[0] in text
    assert not busy_children()


class NoGraph(Network):
    def forward(self, images: Tensor) -> Tensor:
        if torch.compiler.is_compiling():
            raise RuntimeError("shapes depend on values")
        return super().forward(images)


def build_with_one_that_has_no_graph() -> dict[str, nn.Module]:
    return {"by values": NoGraph(2), "large": Network(8)}


def test_a_model_that_an_engine_cannot_run_is_named_and_the_others_are_measured() -> None:
    found = compare_engines(build_with_one_that_has_no_graph, ["openvino"], input_shape=(3, 8, 8), rounds=1)
    assert [row.model for row in found.rows] == ["large"]
    assert len(found.notes) == 1 and found.notes[0].startswith("by values: openvino cannot run NoGraph for 1x3x8x8, ")
    assert found.notes[0] in engines_table(found)


def test_what_a_person_can_mend_is_said_here() -> None:
    with pytest.raises(UserError, match=r"There is no such network\. Choose another\."):
        compare_engines(fail, ["eager"])


def test_the_process_of_an_engine_outlives_ctrl_c_and_its_end_is_said() -> None:
    process = EngineProcess(build, "eager", (3, 8, 8))
    other = multiprocessing.active_children()[0]
    try:
        process.begin_making_ready(1)
        assert process.ready().serving == {"small": "eager", "large": "eager"}
        os.kill(other.pid, signal.SIGINT)
        assert len(process.time(["small"], 1, 3)["small"]) == 3
        process.begin_comparing("small")
        difference = process.difference()
        assert difference.agrees and difference.of > 0 and (difference.engine, difference.by_rounding) == ("eager", 0)
        other.kill()
        with pytest.raises(CannotMeasure, match="The process that measures eager ended with status -9"):
            process.time(["small"], 1, 3)
    finally:
        process.end()
    assert not multiprocessing.active_children()


def test_an_answer_that_comes_too_late_is_not_taken_for_the_next_one() -> None:
    process = object.__new__(EngineProcess)
    process.engine, process._until, process._late = "eager", time.monotonic(), False
    process._connection, theirs = multiprocessing.Pipe()
    with pytest.raises(OutOfTime, match="eager: no time is left"):
        process.difference()
    theirs.send("of an earlier question")
    with pytest.raises(OutOfTime):
        process.difference()


def test_a_model_that_was_compared_leaves_the_card() -> None:
    served = _Served(build, "eager", (3, 8, 8))
    assert served.difference("small").agrees
    assert list(served.models) == list(served.engines) == ["large"]


class Answers:
    """An engine's process whose rooflines come in time for batches of 1 alone."""

    def __init__(self, build: object, engine: str, input_shape: object, until: float) -> None:
        self.engine = engine

    def begin_making_ready(self, batch: int) -> None:
        pass

    def ready(self) -> Ready:
        names = ("small", "large")
        return Ready("CPU", "float32", dict.fromkeys(names, 1), {}, dict.fromkeys(names, self.engine), ())

    def rooflines(self, batch: int) -> dict[str, Roofline]:
        if batch > 1:
            raise OutOfTime("eager: no time is left.")
        return dict.fromkeys(("small", "large"), Roofline(batch, 1, 1, 1, 1.0, MachineLimits(1.0, 1.0)))

    def time(self, names: list[str], batch: int, rounds: int) -> dict[str, list[float]]:
        return {name: [1.0] * rounds for name in names}

    def end(self) -> None:
        pass


def test_what_was_measured_stands_when_the_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines_module, "EngineProcess", Answers)
    found = compare_engines(build, ["eager"], batch_sizes=(1, 2), rounds=3)
    assert {row.batch_size for row in found.rows} == {1} and found.notes == ("eager: no time is left.",)
    with pytest.raises(OutOfTime):
        compare_engines(build, ["eager"], batch_sizes=(2,))


def busy_children() -> list[str]:
    """Command lines of this process's children that keep cores busy; other processes are not read, as that waits for
    them where cores are short."""
    children = [pid for task in Path("/proc/self/task").glob("*/children") for pid in task.read_text().split()]
    lines = [Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip() for pid in children]
    return [line for line in lines if line.endswith(f" {os.getpid()}") and "getppid" in line]


def test_cores_are_busy_until_the_context_ends_however_it_ends() -> None:
    with pytest.raises(KeyboardInterrupt), busy_cores(2) as processes:
        assert [one.poll() for one in processes] == [None, None]
        raise KeyboardInterrupt
    assert None not in [one.returncode for one in processes] and not busy_children()


def test_a_busy_process_ends_when_the_one_that_wanted_it_has() -> None:
    another = str(os.getpid() + 1)
    assert subprocess.run([sys.executable, "-c", BUSY, another], timeout=60, check=False).returncode == 0


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="this system has one kind of priority")
def test_busy_processes_are_ordinary_ones_whatever_the_priority_of_who_wants_them() -> None:
    own = os.sched_getscheduler(0)
    if own == os.SCHED_OTHER:
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    try:
        with busy_cores(1) as (process,):
            until(lambda: os.sched_getscheduler(process.pid) == os.SCHED_OTHER)
    finally:
        if own == os.SCHED_OTHER:
            os.sched_setscheduler(0, own, os.sched_param(0))


def row(model: str, over: float | None, engine: str = "eager", batch: int = 1, load: int = 0) -> EngineRow:
    ratio = Quartiles(over, over, over) if over else None
    bound = Roofline(batch, 1, 1, 1, 1.0, MachineLimits(1.0, 1.0))
    latency = LatencySummary(1.0, 1.0, 1.0, 1)
    return EngineRow(model, engine, batch, load, 1, latency, ratio, ratio, 2.0, over, 2.0, bound, None)


def test_aims_are_met_or_missed_under_every_engine_and_load() -> None:
    rows = (
        row("ours", 2.4),
        row("theirs", 2.5),
        row("full", None),
        row("ours", 2.2, "openvino", 1, 2),
        row("theirs", 2.0, "openvino", 1, 2),
        row("full", None, "openvino", 1, 2),
    )
    measured = {"deit": EngineComparison("CPU", "float32", (3, 8, 8), {}, "full", rows, ())}
    aims = (
        Aim("deit", "ours", "full", False, 2.3),
        Aim("deit", "ours", "theirs", False, AHEAD),
        Aim("deit", "ours", "full", True, 1.0),
        Aim("swin", "ours", "full", False, 1.0),
    )
    found = list(outcomes(measured, aims))
    assert [(one.engine, one.load, round(one.measured, 2), one.met) for one in found] == [
        ("eager", 0, 2.4, True),
        ("openvino", 2, 2.2, False),
        ("eager", 0, 0.96, False),
        ("openvino", 2, 1.1, True),
    ]
    assert aims_table(found).count("missed") == 2


def test_the_command_saves_the_engine_with_every_figure(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"]
    output = tmp_path / "figures.json"
    options = ["--engine", "eager", "--batch-size", "1", "--rounds", "1", "--precision", "float32", "--device", "cpu"]
    assert main([*names, *options, "--output", str(output)]) == 0
    assert [(row["model"], row["engine"]) for row in json.loads(output.read_text())["rows"]] == [
        (name, "eager") for name in names
    ]
    assert names[0] in capsys.readouterr().out


def test_where_no_engine_runs_the_command_says_why(capsys: pytest.CaptureFixture[str]) -> None:
    names = ["stvit_deit_tiny_patch16_224", "deit_tiny_patch16_224"]
    options = ["--engine", "cuda_graphs", "--rounds", "1", "--precision", "float32", "--device", "cpu"]
    assert main([*names, *options, "--batch-size", "1"]) == 1
    assert "cuda_graphs cannot run here: " in capsys.readouterr().err
