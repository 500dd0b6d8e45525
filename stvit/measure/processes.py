"""Other processes of a measurement: one for every engine, and some that only keep cores busy."""

from __future__ import annotations

import copy
import math
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from stvit.errors import UserError
from stvit.export.export import TOLERANCE
from stvit.export.graph import example_images, first_line
from stvit.predict.device import Compute, compute_in_one_place, device_name, keep_freed_memory
from stvit.predict.engines import Engine

from .macs import count_macs
from .memory import peak_memory_bytes
from .roofline import Roofline, roofline
from .timing import interleave

Build = Callable[[], Mapping[str, nn.Module]]
"""Makes the models by name, on their device; picklable, so that every process makes the same ones."""

# Ordinary neighbours, whatever the priority of this process: real-time ones would let nobody else run, nor end them.
ORDINARY = "if hasattr(os, 'sched_setscheduler'): os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))"
BUSY = f"import os, sys\n{ORDINARY}\nwhile os.getppid() == int(sys.argv[1]):\n for _ in range(10**6): pass"
LONGEST_S = 86400.0  # for one answer
GRACE_S = 5.0  # for a process to end by itself
WARM_UPS = 2  # untimed rounds of every turn


class CannotMeasure(UserError, ValueError):
    """A model cannot be measured as asked."""


class OutOfTime(CannotMeasure):
    """The time for a measurement is over."""


@dataclass(frozen=True)
class Difference:
    """How far an engine's outputs are from those of eager on a CPU in float32, with the same weights.

    Attributes:
        largest: of all outputs.
        of: the largest output.
        by_rounding: how far eager on a CPU is in the models' own precision; 0 in float32.
        engine: that answered.
        notes: why another engine answered than was asked.
    """

    largest: float
    of: float
    by_rounding: float
    engine: str
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        """Whether they are the same: within ``TOLERANCE`` of the largest output in float32; in half precision at most
        three times what rounding does on a CPU, and 20 times ``TOLERANCE``, as exported files are checked."""
        limit = TOLERANCE * max(1.0, self.of)
        return self.largest <= (20 * limit + 3 * self.by_rounding if self.by_rounding else limit)


@dataclass(frozen=True)
class Ready:
    """What a process has ready for one batch size, by model.

    Attributes:
        device, precision: in words.
        macs: multiply-adds for one input.
        peak_memory_bytes: of a pass in eager on CUDA; empty for others.
        serving: the engine that answers.
        notes: why another engine answers.
    """

    device: str
    precision: str
    macs: dict[str, int]
    peak_memory_bytes: dict[str, int]
    serving: dict[str, str]
    notes: tuple[str, ...]


class EngineProcess:
    """Models under one engine in a process of their own, so that no engine's threads disturb another's.

    In one process, OpenMP's threads go on turning after every pass of eager while OpenVINO's begin: interleaved with
    eager, STViT-DeiT-S ran 1.5 to 1.7 times as fast as DeiT-S under OpenVINO where it does 1.9 times alone.

    Every request raises ``UserError`` where the models cannot be made or run, and :class:`OutOfTime`.

    Args:
        build: makes the models.
        engine: one of :data:`stvit.predict.engines.ENGINES`.
        input_shape: (C, H, W) of one input.
        until: when requests fail, by ``time.monotonic()``.
    """

    def __init__(self, build: Build, engine: str, input_shape: tuple[int, ...], until: float = math.inf) -> None:
        spawn = multiprocessing.get_context("spawn")
        self.engine, self._until = engine, until
        self._late = False
        self._connection, theirs = spawn.Pipe()
        self._process = spawn.Process(target=_serve, args=(theirs, build, engine, input_shape), daemon=True)
        with _interrupts_ignored():  # Ctrl-C reaches all processes of a terminal; this one ends the other
            self._process.start()
        theirs.close()

    def begin_making_ready(self, batch: int) -> None:
        """Begin to make graphs for a batch size; :meth:`ready` waits for them."""
        self._send("make_ready", batch)

    def ready(self) -> Ready:
        """What is ready for the batch size."""
        return self._receive()

    def rooflines(self, batch: int) -> dict[str, Roofline]:
        """Of a pass, by model."""
        self._send("rooflines", batch)
        return self._receive()

    def time(self, names: Sequence[str], batch: int, rounds: int) -> dict[str, list[float]]:
        """Milliseconds of so many interleaved rounds, by model."""
        self._send("time", names, batch, rounds)
        return self._receive()

    def begin_comparing(self, model: str) -> None:
        """Begin to compare a model's outputs for one image with a CPU's, and drop the model; :meth:`difference` waits
        for them."""
        self._send("difference", model)

    def difference(self) -> Difference:
        """How far the engine is from eager on a CPU."""
        return self._receive()

    def end(self) -> None:
        """End the process, whatever it does."""
        self._connection.close()
        self._process.join(GRACE_S if time.monotonic() < self._until else 0)
        self._process.kill()
        self._process.join()

    def _send(self, *request: Any) -> None:
        with suppress(OSError):  # it has ended, which is told when the answer is awaited
            self._connection.send(request)

    def _receive(self) -> Any:
        try:
            # once late, what comes next answers an earlier question
            self._late = self._late or not self._connection.poll(self._seconds_left())
            if self._late:
                raise OutOfTime(f"{self.engine}: no time is left.")
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            self._process.join()
            problem = f"The process that measures {self.engine} ended with status {self._process.exitcode}."
            raise CannotMeasure(problem, "Try fewer models, or a smaller batch.") from error
        if isinstance(answer, UserError):
            raise answer
        return answer

    def _seconds_left(self) -> float:
        return min(max(0.0, self._until - time.monotonic()), LONGEST_S)


class _Served:
    """The other side of :class:`EngineProcess`."""

    def __init__(self, build: Build, engine: str, input_shape: tuple[int, ...]) -> None:
        models = {name: model.eval() for name, model in build().items()}
        self.reference = next(next(iter(models.values())).parameters())
        self.compute = Compute(self.reference.device)
        self.shape, self.models, self.engine = input_shape, models, engine
        self.engines = {name: Engine(one, engine, compute=self.compute, wait=True) for name, one in models.items()}

    def images(self, batch: int) -> torch.Tensor:
        # drawn on the CPU: a capture that failed leaves CUDA's random numbers in a state in which they are refused
        return torch.randn(batch, *self.shape).to(self.reference.device)

    def make_ready(self, batch: int) -> Ready:
        images = self.images(batch)
        for engine in self.engines.values():
            engine(images)
        on_cuda = images.device.type == "cuda" and self.engine == "eager"
        return Ready(
            device_name(self.reference.device, self.compute.lanes),
            str(self.reference.dtype).removeprefix("torch."),
            {name: count_macs(model, self.shape) for name, model in self.models.items()},
            {name: peak_memory_bytes(one, images) for name, one in self.engines.items()} if on_cuda else {},
            {name: engine.serving(images.shape) for name, engine in self.engines.items()},
            self.notes(),
        )

    def notes(self) -> tuple[str, ...]:
        """What the engines say, once for all models or with the names of those that it holds for."""
        models: dict[str, list[str]] = {}
        for name, engine in self.engines.items():
            for note in engine.notes:
                models.setdefault(note, []).append(name)
        everyone = list(self.engines)
        return tuple(note if of == everyone else f"{' and '.join(of)}: {note}" for note, of in models.items())

    def rooflines(self, batch: int) -> dict[str, Roofline]:
        return {name: roofline(model, self.shape, batch) for name, model in self.models.items()}

    def difference(self, name: str) -> Difference:
        images, engine = example_images(self.shape, 1), self.engines.pop(name)  # a card may not hold graphs of all
        on_cpu = copy.deepcopy(self.models.pop(name)).cpu()
        answer = engine(images.to(self.reference.device))
        rounded = Engine(on_cpu, "eager")(images) if self.reference.dtype != torch.float32 else None
        expected = tree_leaves(Engine(on_cpu.float(), "eager")(images).outputs)
        by_rounding = _apart(tree_leaves(rounded.outputs), expected) if rounded else 0.0
        largest = _apart(tree_leaves(answer.outputs), expected)
        of = max(one.abs().max().item() for one in expected)
        return Difference(largest, of, by_rounding, answer.engine, tuple(engine.notes))

    def time(self, names: Sequence[str], batch: int, rounds: int) -> dict[str, list[float]]:
        engines = {name: self.engines[name] for name in names}
        times = [one.times_ms for one in interleave(engines, self.images(batch), rounds=rounds, warmup=WARM_UPS)]
        return {name: [one[name] for one in times] for name in names}


def _apart(outputs: Sequence[Tensor], others: Sequence[Tensor]) -> float:
    """Largest absolute difference of outputs on any device; infinite where there is a NaN."""
    found = [(one.float().cpu() - other).abs().max().item() for one, other in zip(outputs, others, strict=True)]
    return max(math.inf if math.isnan(one) else one for one in found)


def _serve(connection: Connection, *served: Any) -> None:
    keep_freed_memory()
    compute_in_one_place()
    torch.manual_seed(0)
    other: _Served | None = None
    with suppress(EOFError):  # the process that asks has ended
        while True:
            name, *arguments = connection.recv()
            try:
                other = other or _Served(*served)
                answer = getattr(other, name)(*arguments)
            except UserError as error:
                answer = error
            except Exception as error:  # of networks, compilers and drivers; the process goes on for other models
                answer = CannotMeasure(f"{served[1]} fails: {first_line(error)}", "Try a smaller batch.")
            connection.send(answer)


@contextmanager
def busy_cores(number: int) -> Iterator[Sequence[subprocess.Popen[bytes]]]:
    """Keep so many cores busy, with a process each, until the context ends or this process does, and name them."""
    command = [sys.executable, "-I", "-S", "-c", BUSY, str(os.getpid())]
    started: list[subprocess.Popen[bytes]] = []
    try:
        for _ in range(number):  # in sessions of their own, out of reach of Ctrl-C
            started.append(subprocess.Popen(command, start_new_session=True))
        yield started
    finally:
        for one in started:
            one.kill()
        for one in started:
            one.wait()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    """Processes that are started here ignore Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
