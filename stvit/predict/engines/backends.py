"""What runs a graph: each backend makes a runner for images of one shape, some by way of files that can be kept."""

from __future__ import annotations

import io
import os
import platform
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from stvit.errors import UserError
from stvit.export.formats import Traced, convert_openvino, import_openvino, openvino_core, run_aot, tensors, write_aot
from stvit.export.graph import InferenceGraph, example_images
from stvit.predict.device import available_cores, cpu_flags

Runner = Callable[[Tensor], tuple[Tensor, ...]]
Shape = tuple[int, ...]
MODEL, SINGLE = "model", "single"  # stems of the files, the second one of those for single images
WARM_UPS = 3


def one_or_batch(shape: Shape) -> Shape:
    """A key of shapes (B, ...): single images apart from batches, and batches of any size alike."""
    return (min(shape[0], 2), *shape[1:])


class Backend(ABC):
    """Makes runners of a graph. A runner takes (B, ...) float32 images on the network's device and returns what the
    graph does; several threads may call it.

    Attributes:
        name: for people and for ``--engine``.
    """

    name: ClassVar[str]

    def refusal(self, device: torch.device) -> str | None:
        """Why it cannot run here, ``None`` if it can."""
        return None

    def key(self, shape: Shape) -> Shape:
        """Shapes (B, ...) of one key share a runner; by default, batches of any size."""
        return shape[1:]

    @abstractmethod
    def runner(self, graph: InferenceGraph, shape: Shape) -> Runner:
        """Make a runner in this process, for images of that shape; fails in any way that PyTorch does."""


class FileBackend(Backend):
    """A backend whose graphs are files, which another process can make."""

    def depends_on(self) -> dict[str, str]:
        """What its files depend on beside the network; plain data."""
        return {}

    def files_for(self, shape: Shape) -> Shape:
        """Shapes (B, ...) of one of these share files; by default, batches of any size."""
        return shape[1:]

    @abstractmethod
    def write(self, graph: InferenceGraph, shape: Shape, folder: Path) -> None:
        """Make the files."""

    @abstractmethod
    def read(self, folder: Path, dtype: torch.dtype, shape: Shape) -> Runner:
        """A runner of the files, for images of that shape.

        Args:
            dtype: precision of the network that the graph was made of.
        """

    def runner(self, graph: InferenceGraph, shape: Shape) -> Runner:
        raise NotImplementedError("graphs of files are read with read()")


class OpenVINO(FileBackend):
    """OpenVINO on CPUs, in fp32, or in bf16 where the network is in half precision.

    One conversion makes two graphs: for single images, whose shapes are all known before, and for batches of any size.
    """

    name = "openvino"

    def __init__(self, threads: int | None = None) -> None:
        self.threads = threads or available_cores()

    def key(self, shape: Shape) -> Shape:
        return one_or_batch(shape)

    def refusal(self, device: torch.device) -> str | None:
        if device.type != "cpu":
            return f"OpenVINO runs on CPUs, and the model is on {device.type}."
        try:
            import_openvino()
        except UserError as error:
            return str(error)
        return None

    def depends_on(self) -> dict[str, str]:
        return {"openvino": _version("openvino"), "processor": " ".join(sorted(cpu_flags()))}

    def write(self, graph: InferenceGraph, shape: Shape, folder: Path) -> None:
        images = example_images(shape[1:])
        full = InferenceGraph(graph.network, graph.regions).float()  # exact; OpenVINO knows where fp32 matters
        full.dtype = torch.float32
        with torch.inference_mode():
            names = [f"output_{i}" for i in range(len(full(images)))]
        model = convert_openvino(Traced(full, images, True, names, {}))
        single = model.clone()
        single.reshape([1, *shape[1:]])
        for stem, one in ((MODEL, model), (SINGLE, single)):
            compiled = openvino_core().compile_model(one, "CPU", self._settings(graph.dtype))
            content = io.BytesIO()
            compiled.export_model(content)
            (folder / f"{stem}.blob").write_bytes(content.getbuffer())

    def read(self, folder: Path, dtype: torch.dtype, shape: Shape) -> Runner:
        # as compiled: to compile it takes 0.8 s of processor time for STViT-R-Swin-S, to import it 0.3
        content = (folder / f"{SINGLE if shape[0] == 1 else MODEL}.blob").read_bytes()
        compiled = openvino_core().import_model(content, "CPU", self._settings(dtype))
        idle: list[Any] = []  # requests; one serves one thread at a time

        def run(images: Tensor) -> tuple[Tensor, ...]:
            try:
                request = idle.pop()
            except IndexError:
                request = compiled.create_infer_request()
            try:
                return tensors(request.infer({0: images.contiguous().numpy()}, share_inputs=True).values())
            finally:
                idle.append(request)

        return run

    def _settings(self, dtype: torch.dtype) -> dict[str, Any]:
        return {
            "INFERENCE_PRECISION_HINT": "f32" if dtype == torch.float32 else "bf16",
            "INFERENCE_NUM_THREADS": self.threads,
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
        }


class AheadOfTime(FileBackend):
    """AOTInductor packages: compiled once, loaded in a moment; what Spaces' ZeroGPU documents."""

    name = "aot"

    def refusal(self, device: torch.device) -> str | None:
        return _without_compiler(device)

    def depends_on(self) -> dict[str, str]:
        found = {"processor": torch.backends.cpu.get_cpu_capability(), "system": platform.platform()}
        if torch.cuda.is_available():
            found["gpus"] = ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count())))
        return found

    def write(self, graph: InferenceGraph, shape: Shape, folder: Path) -> None:
        device = next(graph.parameters()).device
        write_aot(Traced(graph, example_images(shape[1:]).to(device), True, (), {}), folder / f"{MODEL}.pt2")

    def read(self, folder: Path, dtype: torch.dtype, shape: Shape) -> Runner:
        return run_aot(folder / f"{MODEL}.pt2")


class Compiled(Backend):
    """``torch.compile``, whose own cache keeps what it makes; batches of one image are compiled apart from others."""

    name = "compiled"

    def refusal(self, device: torch.device) -> str | None:
        return _without_compiler(device)

    def key(self, shape: Shape) -> Shape:
        return one_or_batch(shape)

    def runner(self, graph: InferenceGraph, shape: Shape) -> Runner:
        # all networks share the code of the graph, of which PyTorch compiles 8 and runs every further one in eager
        torch._dynamo.config.recompile_limit = torch._dynamo.config.accumulated_recompile_limit
        compiled = torch.compile(graph)

        def run(images: Tensor) -> tuple[Tensor, ...]:
            with torch.inference_mode():  # code is compiled anew for the other mode, and for tensors of the other one
                return compiled(images if images.is_inference() else images.clone())

        device = next(graph.parameters()).device
        with torch.inference_mode():
            images = example_images(shape[1:], min(shape[0], 2)).to(device, copy=True)
        if len(images) > 1:
            torch._dynamo.mark_dynamic(images, 0)
        run(images)
        return run


class Captures(NamedTuple):
    """What the graphs of one GPU share, so that all of them take the memory of the largest: each computes everything
    anew and hands out copies before another one runs.

    Attributes:
        stream: that they are captured on.
        pool: their memory.
        busy: held while one of them runs.
    """

    stream: torch.cuda.Stream
    pool: tuple[int, int]
    busy: Lock


@lru_cache
def captures(device: torch.device) -> Captures:
    return Captures(torch.cuda.Stream(device), torch.cuda.graph_pool_handle(), Lock())


class CudaGraphs(Backend):
    """CUDA graphs: the launches of one forward pass, recorded once for each shape and replayed as one."""

    name = "cuda_graphs"

    def refusal(self, device: torch.device) -> str | None:
        return None if device.type == "cuda" else f"CUDA graphs need a CUDA device, and the model is on {device.type}."

    def key(self, shape: Shape) -> Shape:
        return shape

    def runner(self, graph: InferenceGraph, shape: Shape) -> Runner:
        device = next(graph.parameters()).device
        taken, recorded = torch.zeros(shape, device=device), torch.cuda.CUDAGraph()
        stream, pool, busy = captures(device)
        stream.wait_stream(torch.cuda.current_stream(device))
        with torch.inference_mode(), torch.cuda.stream(stream):  # left here too, as a capture that fails does not
            for _ in range(WARM_UPS):  # libraries allocate and choose kernels at first, which cannot be recorded
                graph(taken)
            stream.synchronize()
            try:
                with torch.cuda.graph(recorded, pool=pool, stream=stream, capture_error_mode="thread_local"):
                    results = graph(taken)
            except Exception:
                captures.cache_clear()  # PyTorch goes on taking the pool for one that is being recorded to
                raise

        def run(images: Tensor) -> tuple[Tensor, ...]:
            with busy, torch.inference_mode():
                taken.copy_(images)
                recorded.replay()
                return tuple(result.clone() for result in results)

        return run


BACKENDS: dict[str, type[Backend]] = {one.name: one for one in (OpenVINO, CudaGraphs, Compiled, AheadOfTime)}


def _without_compiler(device: torch.device) -> str | None:
    if device.type == "cpu" and not any(map(shutil.which, (os.environ.get("CXX", "c++"), "g++", "clang++"))):
        return "torch's compiler needs a C++ compiler, and there is none; install one, for example the package g++."
    return None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "none"
