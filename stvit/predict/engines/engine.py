"""One network on one engine: answered by eager at first, by a graph as soon as there is one."""

from __future__ import annotations

import json
import logging
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stvit.errors import UserError
from stvit.export.graph import InferenceGraph, Regions, example_images, first_line, precision_of, returns_trace
from stvit.predict.device import Compute
from stvit.predict.regions import Wanted, wanted_layers
from stvit.trace import LayerRegions, RegionLayer

from .backends import BACKENDS, Backend, FileBackend, Runner, Shape, one_or_batch
from .cache import GraphCache, digest
from .fingerprint import fingerprint
from .making import go_on, in_another_process, in_background, making, median_times

LOG = logging.getLogger(__name__)
ENGINES = ("auto", "eager", *BACKENDS)
CANDIDATES = {"cpu": ("openvino",), "cuda": ("cuda_graphs", "compiled")}  # of auto, beside eager
MOST_SHAPES = 8  # of one engine that get a graph; pictures of ever new sizes would make ever new ones
CHOICE = "choice.json"
LEVELS: dict[Wanted, int] = {"none": 0, "last": 1, "all": 1, "attention": 2}
OF_GRAPH: dict[Regions, int] = {"none": 0, "assignment": 1, "attention": 2}

Outputs = Tensor | tuple[Tensor, ...]


class Answer(NamedTuple):
    """What a network made of a batch.

    Attributes:
        outputs: what the network returns, one tensor or several maps; from a graph float32, from eager in the network's
            precision.
        regions: of the wanted layers, in order.
        engine: that answered.
    """

    outputs: Outputs
    regions: tuple[LayerRegions, ...]
    engine: str


class Described(NamedTuple):
    """How to read what a graph returns: whether the network has several outputs, and its layers with regions."""

    several: bool
    layers: tuple[RegionLayer, ...]


class Engine:
    """Runs a network, where all computing on its device is done.

    The graph for a shape is made in the background when the first batch of that shape comes, which eager answers, as it
    answers all until the graph is there. Whatever cannot be made or fails later is said once in the log and in
    ``notes``, and eager goes on answering. Eager computes the parts of a batch at once, see :class:`Compute`; graphs
    take it whole, as they have threads of their own.

    Args:
        network: in evaluation mode, on its device and in its precision; neither may change afterwards.
        name: one of ``ENGINES``; ``auto`` measures those at hand and remembers the fastest, once for single images and
            once for batches of a shape.
        regions: what graphs return of the layers with regions; where more is wanted, eager answers.
        compute: runs everything, one caller at a time; by default one of its own.
        cache: of graphs on disk.
        wait: make a graph before the first answer, in this process, instead of in the background.

    Attributes:
        notes: why eager answers instead, one line each.
        answered: how many batches each engine has answered.

    Raises:
        UserError: no engine has that name.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str = "auto",
        *,
        regions: Regions = "none",
        compute: Compute | None = None,
        cache: GraphCache | None = None,
        wait: bool = False,
    ) -> None:
        if name not in ENGINES:
            raise UserError(f"No engine is called {name!r}.", f"Choose {', '.join(ENGINES)}.")
        self.name, self.notes, self._network = name, [], network
        self._traces = returns_trace(type(network))
        self._regions: Regions = regions if self._traces else "none"
        self._precision = precision_of(network)
        self._device = next((one.device for one in network.parameters()), torch.device("cpu"))
        self.compute = compute or Compute(self._device)
        self._cache, self._wait = cache or GraphCache(), wait
        self._described: dict[Shape, Described] = {}
        self.answered: Counter[str] = Counter()
        self._wanted: set[tuple[str, Shape]] = set()  # shapes that a graph is or was made for
        self._runners: dict[tuple[str, Shape], Runner] = {}
        self._chosen: dict[Shape, str] = {}  # by auto, for single images and for batches of a shape
        self._changing, self._reading = threading.Lock(), threading.Lock()
        self._threads: list[threading.Thread] = []
        self._fingerprint = ""
        if name in BACKENDS and (refusal := BACKENDS[name]().refusal(self._device)):
            self._note(refusal)
            self.name = "eager"

    @cached_property
    def _graph(self) -> InferenceGraph:
        """What graphs are made of: a copy of all modules, which nobody waits for who reads one that is kept."""
        return InferenceGraph(self._network, self._regions)

    def __call__(self, images: Tensor, wanted: Wanted = "none") -> Answer:
        """Run a batch.

        Args:
            images: (B, ...) on the network's device.
            wanted: regions of which layers to return; a network without a trace has none.
        """
        answer = self.compute.run(self._answer, images, wanted)
        self.answered[answer.engine] += 1
        return answer

    def serving(self, shape: Shape) -> str:
        """The engine that would answer a batch of that shape now."""
        name, runner = self._find(tuple(shape))
        return "eager" if runner is None else name

    def recall(self, shape: Shape, wanted: Wanted = "none") -> str:
        """Read the graph that is kept for a shape, if there is one, so that it answers the first batch already; without
        ``wait``, making one is left to the background. Returns what :meth:`serving` does then."""
        shape = tuple(shape)
        if self._wait:
            self._begin(shape, wanted)
        elif self.name == "auto":
            names = candidates(self._device)
            name = self._remembered(self._key_of_choice(shape, wanted, names), names)
            if name == "eager" or (name and self._build(name, shape, make=False)):
                self._chosen[one_or_batch(shape)] = name
        elif self.name != "eager":
            self._build(self.name, shape, make=False)
        return self.serving(shape)

    def settle(self, timeout_s: float | None = None) -> bool:
        """Wait until no graph is being made, so long for each at most; returns whether none is."""
        for thread in list(self._threads):
            thread.join(timeout_s)
        return not any(thread.is_alive() for thread in list(self._threads))

    @property
    def graph_bytes(self) -> int:
        """Memory of its graphs: each holds the weights once more."""
        return self._weight_bytes * len(self._runners)

    @cached_property
    def _weight_bytes(self) -> int:
        return sum(parameter.numel() * parameter.element_size() for parameter in self._network.parameters())

    def _answer(self, images: Tensor, wanted: Wanted) -> Answer:
        shape = tuple(images.shape)
        by_graph = self.name != "eager" and (not self._traces or LEVELS[wanted] <= OF_GRAPH[self._regions])
        if by_graph:
            if self._wait:
                self._description(images)  # refuses images in the network's own words
                self._begin(shape, wanted)
            name, runner = self._find(shape)
            if runner is not None:
                try:
                    return self._from_graph(runner(images.detach().float()), self._description(images), wanted, name)
                except Exception as error:  # whatever a runtime raises, the answer must come
                    self._give_up(name, shape, error)
        answer = self.eager(images, wanted)
        if by_graph:
            self._begin(shape, wanted)
        return answer

    def eager(self, images: Tensor, wanted: Wanted) -> Answer:
        """Let the network itself answer, within ``compute.run``; only what is wanted is computed, and once what graphs
        are read with."""
        with torch.inference_mode():
            described = self.name == "eager" or tuple(images.shape[1:]) in self._described
            parts = self.compute.each(partial(self._part, wanted, not described), self.compute.parts(images))
        outputs, regions = parts[0] if len(parts) == 1 else _joined(parts)
        return Answer(outputs, regions, "eager")

    def _part(self, wanted: Wanted, describe: bool, images: Tensor) -> tuple[Outputs, tuple[LayerRegions, ...]]:
        of_graph = describe and self._regions != "none"
        shape, images = tuple(images.shape[1:]), images.to(self._precision)
        if not self._traces or (wanted == "none" and not of_graph):
            outputs, layers = self._network(images), ()
        else:
            outputs, trace = self._network(images, return_trace=True)
            layers = trace.region_layers()
        if describe:
            known = tuple(layer.regions().layer for layer in layers) if of_graph else ()
            self._described[shape] = Described(not isinstance(outputs, Tensor), known)
        return outputs, tuple(layer.regions(wanted == "attention") for layer in wanted_layers(layers, wanted))

    def _description(self, images: Tensor) -> Described:
        """How to read graphs for images of that size; the network runs for it where no answer of eager came before."""
        shape = tuple(images.shape[1:])
        if shape not in self._described:
            self.eager(images[:1], "none")
        return self._described[shape]

    def _from_graph(self, results: tuple[Tensor, ...], described: Described, wanted: Wanted, name: str) -> Answer:
        layers = described.layers
        semantic = [layer for layer in layers if not layer.reduces and self._regions == "attention"]
        first = len(results) - len(layers) - len(semantic)
        outputs, assignments = results[:first], results[first : first + len(layers)]
        weights = dict(zip(semantic, results[first + len(layers) :], strict=True)) if wanted == "attention" else {}
        pairs = zip(layers, assignments, strict=True)
        regions = [LayerRegions(_of_this_batch(one, own), own, weights.get(one)) for one, own in pairs]
        return Answer(outputs if described.several else outputs[0], tuple(wanted_layers(regions, wanted)), name)

    def _find(self, shape: Shape) -> tuple[str, Runner | None]:
        name = self._chosen.get(one_or_batch(shape), "eager") if self.name == "auto" else self.name
        return name, None if name == "eager" else self._runners.get((name, BACKENDS[name]().key(shape)))

    def _begin(self, shape: Shape, wanted: Wanted) -> None:
        """Have a graph made for the shape, if none was asked for yet."""
        name = self._chosen.get(one_or_batch(shape), "auto") if self.name == "auto" else self.name
        if name == "eager" or self._find(shape)[1] is not None:
            return
        key = name, one_or_batch(shape) if name == "auto" else BACKENDS[name]().key(shape)
        with self._changing:
            if key in self._wanted or len(self._wanted) >= MOST_SHAPES:
                return
            self._wanted.add(key)
            self._threads = [one for one in self._threads if one.is_alive()]
        if self._wait:
            self._make(name, shape, wanted)
            return
        self._threads.append(in_background(f"graph {shape}", self._make, name, shape, wanted))

    def _make(self, name: str, shape: Shape, wanted: Wanted) -> None:
        """Make the graph for a shape, or for ``auto`` those that are measured."""
        with making, torch.inference_mode(False), torch.no_grad():  # what inference mode makes cannot be traced
            go_on()
            if name != "auto":
                self._build(name, shape)
                return
            try:
                self._choose(shape, wanted)
            except Exception as error:  # what was built may fail where it is measured, in as many ways
                self._note(f"{self._said('auto', shape)}: {first_line(error)}")

    def _build(self, name: str, shape: Shape, make: bool = True) -> Runner | None:
        backend = BACKENDS[name]()
        key = name, backend.key(shape)
        if key not in self._runners:
            try:
                if runner := self._kept(backend, shape) or (self._made(backend, shape) if make else None):
                    self._runners[key] = runner
            except Exception as error:  # conversions and compilers fail in many ways; eager goes on
                self._give_up(name, shape, error)
        return self._runners.get(key)

    def _kept(self, backend: Backend, shape: Shape) -> Runner | None:
        """From the cache, read once however many threads ask; ``None`` if it is not there."""
        if not isinstance(backend, FileBackend):
            return None
        of = backend.name, backend.key(shape)
        with self._reading:
            key = self._key_of_files(backend, shape)
            if of not in self._runners and (entry := self._cache.find(key)):
                try:
                    self._runners[of] = backend.read(entry, self._precision, shape)
                except Exception as error:  # whole, but of another version of the runtime
                    LOG.warning("The cached graph %s cannot be read (%s); it is made again.", entry, first_line(error))
                    self._cache.discard(key)
            return self._runners.get(of)

    def _made(self, backend: Backend, shape: Shape) -> Runner:
        if not isinstance(backend, FileBackend):
            return backend.runner(self._graph, shape)
        key = self._key_of_files(backend, shape)
        write = backend.write if self._wait else in_another_process(backend)
        with self._cache.written(key, lambda folder: write(self._graph, shape, folder)) as folder:
            return backend.read(folder, self._precision, shape)

    def _key_of_files(self, backend: FileBackend, shape: Shape) -> str:
        return self._key(backend.name, backend.files_for(shape), backend.depends_on())

    def _choose(self, shape: Shape, wanted: Wanted) -> None:
        """Let the fastest of the engines at hand serve single images or batches of a shape, as was measured once for
        network, shape and device."""
        names, chosen = candidates(self._device), one_or_batch(shape)
        if not names:
            self._chosen[chosen] = "eager"
            return
        key = self._key_of_choice(shape, wanted, names)
        name = self._remembered(key, names)
        if name == "eager" or (name and self._build(name, shape)):
            self._chosen[chosen] = name
            return
        runners = {name: runner for name in names if (runner := self._build(name, shape))}
        images = example_images(shape[1:], shape[0]).to(self._device)
        times = median_times({**runners, "eager": partial(self.eager, wanted=wanted)}, images, self.compute)
        self._chosen[chosen] = min(times, key=times.get)
        text = json.dumps(self._chosen[chosen])
        if len(runners) == len(names):  # one that failed may not fail next time
            with self._cache.written(key, lambda folder: _write_text(folder / CHOICE, text)):
                pass

    def _key_of_choice(self, shape: Shape, wanted: Wanted, names: Sequence[str]) -> str:
        device = {"lanes": self.compute.lanes, "processor": torch.backends.cpu.get_cpu_capability()}
        if self._device.type == "cuda":
            device["gpu"] = torch.cuda.get_device_name(self._device)
        made = [one.depends_on() for name in names if isinstance(one := BACKENDS[name](), FileBackend)]
        depends_on = {"names": names, "device": device, "files": made, "wanted": LEVELS[wanted]}
        return self._key("auto", one_or_batch(shape), depends_on)

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

    def _key(self, name: str, shape: Shape, depends_on: dict) -> str:
        self._fingerprint = self._fingerprint or fingerprint(self._network)
        network = [self._fingerprint, str(self._precision), str(self._device)]
        return digest([name, *network, shape, self._regions, depends_on])

    def _give_up(self, name: str, shape: Shape, error: Exception) -> None:
        self._runners.pop((name, BACKENDS[name]().key(shape)), None)
        self._note(f"{self._said(name, shape)}: {first_line(error)}")

    def _said(self, name: str, shape: Shape) -> str:
        sizes = "x".join(map(str, shape))
        return f"{name} cannot run {type(self._network).__name__} for {sizes}, eager does"

    def _note(self, line: str) -> None:
        if line not in self.notes:
            self.notes.append(line)
            LOG.warning(line)


def candidates(device: torch.device) -> list[str]:
    """List the engines at hand on a device, beside eager, that ``auto`` chooses from."""
    return [name for name in CANDIDATES.get(device.type, ()) if not BACKENDS[name]().refusal(device)]


def _of_this_batch(layer: RegionLayer, assignment: Tensor) -> RegionLayer:
    """The layer with the number of tokens that it left at most of these images."""
    return replace(layer, num_tokens=int(assignment.max()) + 1) if layer.varies else layer


def _joined(
    parts: Sequence[tuple[Outputs, tuple[LayerRegions, ...]]],
) -> tuple[Outputs, tuple[LayerRegions, ...]]:
    """The answers for the parts of a batch as one."""
    outputs, regions = zip(*parts, strict=True)
    joined = torch.cat(outputs) if isinstance(outputs[0], Tensor) else tuple(map(torch.cat, zip(*outputs, strict=True)))
    layers = []
    for first, *others in zip(*regions, strict=True):
        assignment = torch.cat([first.assignment, *(one.assignment for one in others)])
        weights = None if first.attention is None else torch.cat([first.attention, *(one.attention for one in others)])
        layers.append(LayerRegions(_of_this_batch(first.layer, assignment), assignment, weights))
    return joined, tuple(layers)


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
