"""What is measured on a CUDA card, step by step; other models and devices in tests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import torch
from torch import nn

from stvit.errors import UserError
from stvit.export.graph import exportable
from stvit.factory import create_model

from . import suite
from .engines import compare_engines
from .models import named
from .processes import Build, EngineProcess, OutOfTime

QUICK, SLOW = ("eager", "cuda_graphs"), ("compiled", "aot")  # the second ones take up to a minute for each graph
NO_TIME = "no time was left"
MOVED = 0.05  # by which random parameters are moved, so that no two tokens are alike
PICTURES = {
    "deit": "deit_tiny_patch16_224",
    "stvit_deit": "stvit_deit_tiny_patch16_224",
    "evit_deit": "evit_deit_tiny_patch16_224",
    "tome_deit": "tome_deit_tiny_patch16_224",
    "swin": "swin_tiny_patch4_window7_224",
    "stvit_swin": "stvit_swin_tiny_224",
    "stvit_r_swin": "stvit_r_swin_small_224",
    "dynamicvit_deit": "dynamicvit_deit_small_patch16_224",
    "dynamicswin": "dynamicswin_tiny_224",
    "evo_vit_deit": "evo_vit_deit_tiny_patch16_224",
    "avit": "avit_tiny_patch16_224",
    "atc_deit": "atc_deit_tiny_patch16_224",
    "diffrate_deit": "diffrate_deit_small_patch16_224",
    "tokenlearner_deit": "tokenlearner_deit_small_patch16_224",
    "lvvit": "lvvit_small_224",
    "stvit_lvvit": "stvit_lvvit_small_224",
    "evit_lvvit": "evit_lvvit_small_224",
}
SCENES = {"detector": "stvit_r_swin_small_cascade_mask_rcnn", "upernet": "stvit_r_swin_small_upernet"}
CLIPS = {"video_swin": "video_swin_tiny", "stvit_video_swin": "stvit_video_swin_tiny"}
FAMILIES: tuple[tuple[dict[str, str], tuple[int, ...]], ...] = (
    (PICTURES, (3, 224, 224)),
    (SCENES, (3, 256, 320)),
    (CLIPS, (3, 8, 224, 224)),
)
DENSE = ["stvit_r_swin_small_cascade_mask_rcnn", "swin_small_cascade_mask_rcnn"]
DENSE_HW = (800, 1333)


@dataclass(frozen=True)
class Step:
    """A part of the run.

    Attributes:
        name: in the file.
        seconds: that it may take at most.
        work: takes the time to stop at, by ``time.monotonic()``, and a list for the names of what it skipped; returns
            plain data.
    """

    name: str
    seconds: float
    work: Callable[[float, list[str]], Any]


Place = Callable[[torch.device, torch.dtype], Mapping[str, nn.Module]]
"""Makes models by name, on a device and in a precision; picklable."""


class Families(NamedTuple):
    """Models of several families.

    Attributes:
        names: of the families.
        build: makes one model of each.
        input_shape: (C, H, W), or (C, T, H, W) of clips.
    """

    names: Sequence[str]
    build: Place
    input_shape: tuple[int, ...]


def registered_families() -> list[Families]:
    """A small registered model of every family."""
    return [Families(list(names), partial(random_models, names), shape) for names, shape in FAMILIES]


@dataclass(frozen=True)
class Plan:
    """What is measured, and on what.

    Attributes:
        device, half: where the models run, and their half precision.
        quick, slow: engines whose graphs take no time, and those that compile.
        families: of the parity.
        groups: of the paper's suite, in order.
        dense: makes the dense backbones, the full-token one last.
        dense_shape: of their input.
        batch_sizes, rounds: of what is timed.
    """

    device: torch.device
    half: torch.dtype
    quick: Sequence[str] = QUICK
    slow: Sequence[str] = SLOW
    families: Sequence[Families] = field(default_factory=registered_families)
    groups: Mapping[str, Callable[[], tuple[suite.Contestant, ...]]] = field(default_factory=suite.groups)
    dense: Place = field(default=partial(named, DENSE, DENSE_HW, True))
    dense_shape: tuple[int, ...] = (3, *DENSE_HW)
    batch_sizes: Sequence[int] = (1, 128)
    rounds: int = 30


def steps(plan: Plan) -> Iterator[Step]:
    """All steps, the most important first."""
    first = [name for name in ("deit_small", "swin_small") if name in plan.groups] or list(plan.groups)[:1]
    half = str(plan.half).removeprefix("torch.")
    yield Step("parity float32", 90, partial(parity, plan, plan.quick, torch.float32))
    yield Step(f"parity {half}", 90, partial(parity, plan, plan.quick, plan.half))
    for name in first:
        yield Step(f"suite {name}", 60, partial(timed_group, plan, name, plan.quick))
    yield Step("dense backbones", 60, partial(dense_backbones, plan))
    yield Step("clip", 60, partial(clip, plan))
    for name in first:
        yield Step(f"compiled {name}", 100, partial(compiled_pair, plan, name))
    for name in plan.groups:
        if name not in first:
            yield Step(f"suite {name}", 60, partial(timed_group, plan, name, plan.quick))
    for precision in (torch.float32, plan.half):
        named_so = f"parity of compilers {str(precision).removeprefix('torch.')}"
        yield Step(named_so, 240, partial(parity, plan, plan.slow, precision))


def parity(
    plan: Plan, engines: Sequence[str], precision: torch.dtype, until: float, skipped: list[str]
) -> dict[str, dict[str, Any]]:
    """By family and engine, how far the outputs are from eager on the CPU and whether that is the same, see
    :class:`stvit.measure.processes.Difference`; or a sentence that says why it is not known."""
    found: dict[str, dict[str, Any]] = {}
    for group in plan.families:
        build = partial(group.build, plan.device, precision)
        with ExitStack() as stack:
            processes = [EngineProcess(build, engine, group.input_shape, until) for engine in engines]
            for process in processes:
                stack.callback(process.end)
            for family in group.names:
                found[family] = _of_engines(processes, family, skipped)
    return found


def _of_engines(processes: Sequence[EngineProcess], family: str, skipped: list[str]) -> dict[str, Any]:
    """What every engine makes of a family, all at once."""
    for process in processes:
        process.begin_comparing(family)
    found: dict[str, Any] = {}
    for process in processes:
        try:
            difference = process.difference()
            found[process.engine] = asdict(difference) | {"agrees": difference.agrees}
        except OutOfTime:
            skipped.append(f"{family} under {process.engine}")
        except UserError as error:
            found[process.engine] = str(error)
    return found


def timed_group(plan: Plan, name: str, engines: Sequence[str], until: float, skipped: list[str]) -> dict[str, Any]:
    """One group of the suite, every model beside the full-token one under the same engine."""
    full, *others = plan.groups[name]()
    return _timed(plan, partial(suite.built, (*others, full), plan.device, plan.half), engines, until, skipped)


def compiled_pair(plan: Plan, name: str, until: float, skipped: list[str]) -> dict[str, Any]:
    """The model of a group that this project is for, compiled, beside the compiled full-token one: compiling fuses what
    eager does not, so a comparison with eager would flatter."""
    full, *others = plan.groups[name]()
    ours = next((one for one in others if one.label in (suite.STVIT_16, suite.STVIT_R)), others[0])
    build = partial(suite.built, (ours, full), plan.device, plan.half)
    return _timed(plan, build, ("eager", *plan.slow), until, skipped)


def dense_backbones(plan: Plan, until: float, skipped: list[str]) -> dict[str, Any]:
    """STViT-R's backbone of a detector beside Swin's, for one picture of COCO's size."""
    return _timed(plan, partial(plan.dense, plan.device, plan.half), plan.quick, until, skipped, (1,), plan.dense_shape)


def _timed(
    plan: Plan,
    build: Build,
    engines: Sequence[str],
    until: float,
    skipped: list[str],
    batch_sizes: Sequence[int] = (),
    shape: tuple[int, ...] = (3, 224, 224),
) -> dict[str, Any]:
    sizes = batch_sizes or plan.batch_sizes
    measured = compare_engines(build, engines, input_shape=shape, batch_sizes=sizes, rounds=plan.rounds, until=until)
    there = {(row.engine, row.batch_size) for row in measured.rows}
    skipped += [f"{one} at batch {size}" for one in engines for size in sizes if (one, size) not in there]
    return asdict(measured)


def clip(plan: Plan, until: float, skipped: list[str]) -> dict[str, Any]:
    """A clip of 720p from file to file with the regions of STViT-R-Swin-S, beside the model alone: what
    ``python -m stvit.video.measure`` says under the fastest of the quick engines.

    Raises:
        OutOfTime: see the class.
        UserError: it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        source, output = Path(folder) / "clip.mp4", Path(folder) / "figures.json"
        write_clip(source)
        command = [sys.executable, "-m", "stvit.video.measure", str(source), "--task", "clusters", "--random-weights"]
        command += ["--device", plan.device.type, "--engine", plan.quick[-1], "--rounds", "2", "--output", str(output)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, check=False, timeout=max(0.0, until - time.monotonic())
            )
        except subprocess.TimeoutExpired as error:
            raise OutOfTime(NO_TIME) from error
        if done.returncode:
            raise UserError(f"The clip cannot be measured: {(done.stderr.strip().splitlines() or ['no reason'])[-1]}")
        return json.loads(output.read_text(encoding="utf-8"))


def write_clip(path: Path, frames: int = 240, size_hw: tuple[int, int] = (720, 1280)) -> None:
    """Write a clip of coarse noise that drifts: it costs the decoder and the encoder what a real scene does."""
    height, width = size_hw
    cells = np.random.default_rng(0).integers(0, 256, (height // 16 + 1, width // 16 + 1, 3), np.uint8)
    scene = np.kron(cells, np.ones((16, 16, 1), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for i in range(frames):
            moved = np.ascontiguousarray(np.roll(scene, (i, 2 * i), (0, 1))[:height, :width])
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="rgb24")))
        container.mux(stream.encode())


def random_models(names: Mapping[str, str], device: torch.device, precision: torch.dtype) -> dict[str, nn.Module]:
    """One model of each family with the same random weights every time, placed; of a detector what one graph is. In
    float32 convolutions are exact, as on a CPU, instead of NVIDIA's TF32."""
    torch.backends.cudnn.allow_tf32 = False
    built = {}
    for family, name in names.items():
        torch.manual_seed(0)
        model = exportable(create_model(name))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(MOVED * torch.randn_like(parameter))
        built[family] = model.to(device, precision).eval()
    return built
