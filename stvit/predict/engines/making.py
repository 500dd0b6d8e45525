"""What goes on while engines answer: graphs are made in another process, and runners are measured."""

from __future__ import annotations

import atexit
import io
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor

from stvit.export.graph import InferenceGraph
from stvit.predict.device import Compute

from .backends import FileBackend, Shape

LIMIT_S = 600  # for making one graph
ROUNDS = 7  # of a measurement
LAST_S = 30  # for what is being made when Python ends

making = threading.Lock()  # one graph at a time, whoever wants it: the cores belong to the answers
_ended = threading.Event()
_threads: WeakSet[threading.Thread] = WeakSet()
_processes: set[subprocess.Popen] = set()


def in_background(name: str, make: Callable[..., None], *arguments: Any) -> threading.Thread:
    """Start a thread that makes graphs; it calls :func:`go_on` whenever it has got hold of ``making``."""
    thread = threading.Thread(target=make, args=arguments, name=name, daemon=True)
    _threads.add(thread)
    thread.start()
    return thread


@atexit.register
def end_making() -> None:
    """Let no graph be made any more, and wait for the threads that make them: one that Python ends while it is in a
    library's code, be it to free a tensor, takes the process down with it."""
    _ended.set()
    for process in list(_processes):
        process.kill()
    deadline = time.monotonic() + LAST_S
    for thread in list(_threads):
        thread.join(max(deadline - time.monotonic(), 0))


def go_on() -> None:
    """End the thread that calls this where Python is about to end; nobody waits for what it makes."""
    if _ended.is_set():
        raise SystemExit


def in_another_process(backend: FileBackend) -> Callable[[InferenceGraph, Shape, Path], None]:
    """``backend.write`` in a process of its own: tracing holds Python's lock for seconds, in which every operator of
    every answer would wait for it."""

    def write(graph: InferenceGraph, shape: Shape, folder: Path) -> None:
        request = io.BytesIO()
        torch.save((graph, shape), request)
        root = Path(__file__).parents[3]
        variables = {**os.environ, "OMP_NUM_THREADS": "1"}
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
        command = [sys.executable, "-m", "stvit.predict.engines.worker", backend.name, str(folder)]
        with tempfile.TemporaryFile() as said:
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=said, stderr=said, env=variables)
            _processes.add(process)
            try:
                go_on()
                process.communicate(request.getbuffer(), timeout=LIMIT_S)
            finally:
                process.kill()
                process.wait()
                _processes.discard(process)
            go_on()
            if process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                raise RuntimeError(lines[-1] if lines else f"the process ended with status {process.returncode}")

    return write


def median_times(runners: dict[str, Callable[[Tensor], Any]], images: Tensor, compute: Compute) -> dict[str, float]:
    """Median seconds of every runner, interleaved, after one round that does not count. They run where all computing is
    done, with room for others between any two of them."""

    def once(run: Callable[[Tensor], Any]) -> float:
        go_on()
        start = time.perf_counter()
        run(images)
        if images.device.type == "cuda":
            torch.cuda.synchronize(images.device)
        return time.perf_counter() - start

    times: dict[str, list[float]] = {name: [] for name in runners}
    for round_number in range(ROUNDS + 1):
        for name, run in runners.items():
            seconds = compute.run(once, run)
            if round_number:
                times[name].append(seconds)
    return {name: median(values) for name, values in times.items()}
