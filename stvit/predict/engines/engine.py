"""One network on one engine: answered by eager at first, by a graph as soon as there is one."""

from __future__ import annotations

import atexit
import io
import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stvit.errors import UserError
from stvit.export.graph import InferenceGraph, RegionLayer, example_images, first_line
from stvit.predict.device import Compute

from .backends import BACKENDS, Backend, FileBackend, Runner, Shape
from .cache import GraphCache, digest
from .fingerprint import fingerprint

LOG = logging.getLogger(__name__)
ENGINES = ("auto", "eager", *BACKENDS)
CANDIDATES = {"cpu": ("openvino",), "cuda": ("cuda_graphs", "compiled")}  # of auto, beside eager
ROUNDS = 7  # of auto's measurement
MOST_SHAPES = 8  # of one engine that get a graph; pictures of ever new sizes would make ever new ones
LIMIT_S = 600  # for making one graph in another process
CHOICE = "choice.json"
_making = threading.Lock()  # one graph at a time, whoever wants it: the cores belong to the answers


class Answer(NamedTuple):
    """What a network made of a batch.

    Attributes:
        outputs: float32; what the network returns, one tensor or several maps.
        regions: for every layer of ``layers`` (B, N) int64, the token that each image token belongs to; ``None`` where
            regions were not asked for.
        layers: what the regions are of.
        engine: that answered.
    """

    outputs: Tensor | tuple[Tensor, ...]
    regions: tuple[Tensor, ...] | None
    layers: tuple[RegionLayer, ...]
    engine: str


class Engine:
    """Runs a network.

    The graph for a shape is made in the background when the first batch of that shape comes, which eager answers, as it
    answers all until the graph is there. Whatever cannot be made or fails later is said once in the log and in
    ``notes``, and eager goes on answering.

    Args:
        network: in evaluation mode, on its device and in its precision; neither may change afterwards.
        name: one of ``ENGINES``; ``auto`` measures those at hand once for each shape and remembers the fastest.
        regions: return the assignments of the layers that make semantic tokens or reduce tokens.
        cache: of graphs on disk.
        wait: make a graph before the first answer, in this process, instead of in the background.

    Attributes:
        notes: why eager answers instead, one line each.

    Raises:
        UserError: no engine has that name.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str = "auto",
        *,
        regions: bool = False,
        cache: GraphCache | None = None,
        wait: bool = False,
    ) -> None:
        if name not in ENGINES:
            raise UserError(f"No engine is called {name!r}.", f"Choose {', '.join(ENGINES)}.")
        self.name, self.notes = name, []
        self._graph = InferenceGraph(network, regions)
        self._device = next((one.device for one in network.parameters()), torch.device("cpu"))
        self._cache, self._wait = cache or GraphCache(), wait
        self._layers: dict[Shape, tuple[RegionLayer, ...]] = {}
        self._several: bool | None = None  # whether the network returns several maps
        self._wanted: set[tuple[str, Shape]] = set()  # shapes that a graph is or was made for
        self._runners: dict[tuple[str, Shape], Runner] = {}
        self._chosen: dict[Shape, str] = {}  # by auto, for each shape
        self._changing = threading.Lock()
        self._threads: list[threading.Thread] = []
        self._fingerprint = ""
        if name in BACKENDS and (refusal := BACKENDS[name]().refusal(self._device)):
            self._note(refusal)
            self.name = "eager"

    def __call__(self, images: Tensor) -> Answer:
        """Run a batch (B, ...) on the network's device."""
        shape = tuple(images.shape)
        layers = self._described(images)
        name, runner = self._runner(shape)
        if runner is not None:
            try:
                return self._answer(runner(images.detach().float()), layers, name)
            except Exception as error:  # whatever a runtime raises, the answer must come
                self._give_up(name, shape, error)
        with torch.inference_mode():
            return self._answer(self._graph(images), layers, "eager")

    def serving(self, shape: Shape) -> str:
        """The engine that would answer a batch of that shape now."""
        name, runner = self._find(tuple(shape))
        return "eager" if runner is None else name

    def settle(self, timeout_s: float | None = None) -> None:
        """Wait until no graph is being made."""
        for thread in list(self._threads):
            thread.join(timeout_s)

    def _described(self, images: Tensor) -> tuple[RegionLayer, ...]:
        """The layers of the regions. The network runs once more for the very first batch, and with regions for the
        first one of every shape."""
        key = tuple(images.shape[1:])
        with torch.inference_mode():
            if self._several is None:
                self._several = not isinstance(self._graph.network(images[:1].to(self._graph.dtype)), Tensor)
            if self._graph.regions and key not in self._layers:
                self._layers[key] = self._graph.describe_regions(images[:1])
        return self._layers.get(key, ())

    def _answer(self, results: tuple[Tensor, ...], layers: tuple[RegionLayer, ...], engine: str) -> Answer:
        outputs = results[: len(results) - len(layers)]
        regions = results[len(results) - len(layers) :] if self._graph.regions else None
        return Answer(outputs if self._several else outputs[0], regions, layers, engine)

    def _find(self, shape: Shape) -> tuple[str, Runner | None]:
        name = self._chosen.get(shape, "eager") if self.name == "auto" else self.name
        return name, None if name == "eager" else self._runners.get((name, BACKENDS[name]().key(shape)))

    def _runner(self, shape: Shape) -> tuple[str, Runner | None]:
        """What runs that shape; if nothing was made for it yet, that is begun."""
        if self.name == "eager":
            return "eager", None
        key = ("auto", shape) if self.name == "auto" else (self.name, BACKENDS[self.name]().key(shape))
        with self._changing:
            new = key not in self._wanted and len(self._wanted) < MOST_SHAPES
            if new:
                self._wanted.add(key)
                self._threads = [one for one in self._threads if one.is_alive()]
        if new and self._wait:
            self._make(shape)
        elif new:
            thread = threading.Thread(target=self._make, args=(shape,), name=f"graph {shape}", daemon=True)
            thread.start()
            self._threads.append(thread)
        return self._find(shape)

    def _make(self, shape: Shape) -> None:
        """Make the graph for a shape, or for ``auto`` those that are measured."""
        with _making, torch.inference_mode(False), torch.no_grad():  # what inference mode makes cannot be traced
            if self.name != "auto":
                self._build(self.name, shape)
                return
            try:
                self._choose(shape)
            except Exception as error:  # what was built may fail where it is measured, in as many ways
                self._note(f"{self._said('auto', shape)}: {first_line(error)}")

    def _build(self, name: str, shape: Shape) -> Runner | None:
        backend = BACKENDS[name]()
        key = name, backend.key(shape)
        if key not in self._runners:
            try:
                self._runners[key] = self._read(backend, shape)
            except Exception as error:  # conversions and compilers fail in many ways; eager goes on
                self._give_up(name, shape, error)
        return self._runners.get(key)

    def _read(self, backend: Backend, shape: Shape) -> Runner:
        """From the cache, or made now."""
        if not isinstance(backend, FileBackend):
            return backend.runner(self._graph, shape)
        key = self._key(backend.name, backend.key(shape), backend.depends_on())
        if entry := self._cache.find(key):
            try:
                return backend.read(entry, self._graph.dtype)
            except Exception as error:  # whole, but of another version of the runtime
                LOG.info("%s cannot be read (%s); it is made again", entry, first_line(error))
                self._cache.discard(key)
        make = backend.write if self._wait else _in_another_process(backend)
        with self._cache.written(key, lambda folder: make(self._graph, shape, folder)) as folder:
            return backend.read(folder, self._graph.dtype)

    def _choose(self, shape: Shape) -> None:
        """Let the fastest of the engines at hand serve a shape, as was measured once for network, shape and device."""
        names = [name for name in CANDIDATES.get(self._device.type, ()) if not BACKENDS[name]().refusal(self._device)]
        device = {"threads": torch.get_num_threads(), "processor": torch.backends.cpu.get_cpu_capability()}
        if self._device.type == "cuda":
            device["gpu"] = torch.cuda.get_device_name(self._device)
        made = [one.depends_on() for name in names if isinstance(one := BACKENDS[name](), FileBackend)]
        key = self._key("auto", shape, {"names": names, "device": device, "files": made})
        name = self._remembered(key, names)
        if name == "eager" or (name and self._build(name, shape)):
            self._chosen[shape] = name
            return
        runners = {name: runner for name in names if (runner := self._build(name, shape))}
        runners["eager"] = self._eager
        times = _times(runners, example_images(shape[1:], shape[0]).to(self._device), Compute(self._device))
        self._chosen[shape] = min(times, key=times.get)
        text = json.dumps(self._chosen[shape])
        if len(runners) == len(names) + 1:  # one that failed may not fail next time
            with self._cache.written(key, lambda folder: _write_text(folder / CHOICE, text)):
                pass

    def _remembered(self, key: str, names: Sequence[str]) -> str | None:
        """The choice that was kept, ``None`` if there is none of ``names`` or eager."""
        if not (entry := self._cache.find(key)):
            return None
        try:
            name = json.loads((entry / CHOICE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            name = None
        if name in (*names, "eager"):
            return name
        self._cache.discard(key)
        return None

    def _eager(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.inference_mode():
            return self._graph(images)

    def _key(self, name: str, shape: Shape, depends_on: dict) -> str:
        self._fingerprint = self._fingerprint or fingerprint(self._graph.network)
        network = [self._fingerprint, str(self._graph.dtype), str(self._device)]
        return digest([name, *network, shape, self._graph.regions, depends_on])

    def _give_up(self, name: str, shape: Shape, error: Exception) -> None:
        self._runners.pop((name, BACKENDS[name]().key(shape)), None)
        self._note(f"{self._said(name, shape)}: {first_line(error)}")

    def _said(self, name: str, shape: Shape) -> str:
        sizes = "x".join(map(str, shape))
        return f"{name} cannot run {type(self._graph.network).__name__} for {sizes}, eager does"

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            LOG.warning(line)


def _times(runners: dict[str, Runner], images: Tensor, compute: Compute) -> dict[str, float]:
    """Median seconds of every runner, interleaved, after one round that does not count. They run where all computing is
    done, with room for others between any two of them."""

    def once(run: Runner) -> float:
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


def _in_another_process(backend: FileBackend) -> Callable[[InferenceGraph, Shape, Path], None]:
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
            atexit.register(process.kill)
            try:
                process.communicate(request.getbuffer(), timeout=LIMIT_S)
            finally:
                process.kill()
                process.wait()
                atexit.unregister(process.kill)
            if process.returncode:
                said.seek(0)
                lines = said.read().decode(errors="replace").strip().splitlines()
                raise RuntimeError(lines[-1] if lines else f"the process ended with status {process.returncode}")

    return write


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
