"""The formats of exported files: each is written with the metadata in it, and read again for the check."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.export import ExportedProgram

from stvit.errors import UserError

from .graph import InferenceGraph, first_line, trace_graph

INPUT = "images"
METADATA = "stvit"  # the entry of a file that holds its metadata as JSON
Runner = Callable[[Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Traced:
    """What a format is written from.

    Attributes:
        graph: the network.
        images: (B, ...) an example of its input.
        dynamic_batch: whether the file takes batches of any size.
        output_names: of the graph's outputs, in order.
        metadata: for the file; plain data.
    """

    graph: InferenceGraph
    images: Tensor
    dynamic_batch: bool
    output_names: Sequence[str]
    metadata: Mapping[str, Any]

    @property
    def metadata_json(self) -> str:
        return json.dumps(self.metadata, ensure_ascii=False)

    def program(self) -> ExportedProgram:
        return trace_graph(self.graph, self.images, self.dynamic_batch)


@dataclass(frozen=True)
class Format:
    """A format of files.

    Attributes:
        suffix: of the file.
        write: put the network into a file.
        run: read a file and return what runs it.
        companions: suffixes of the files that belong to it.
    """

    suffix: str
    write: Callable[[Traced, Path], None]
    run: Callable[[Path], Runner]
    companions: tuple[str, ...] = ()


def write_pt2(traced: Traced, path: Path) -> None:
    torch.export.save(traced.program(), path, extra_files={f"{METADATA}.json": traced.metadata_json})


def run_pt2(path: Path) -> Runner:
    return torch.export.load(path).module()


def write_onnx(traced: Traced, path: Path) -> None:
    """ONNX with all weights inside.

    Raises:
        UserError: a package is missing, the network is larger than the format's 2 GiB, or an operator of it has no
            counterpart in ONNX.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):  # the last one for the check
        needed(package, "export")
    program = traced.program()
    settle_strides(program)
    names = {"input_names": [INPUT], "output_names": list(traced.output_names)}
    try:
        onnx_program = torch.onnx.export(program, (), dynamo=True, verbose=False, **names)
        onnx_program.model.metadata_props[METADATA] = traced.metadata_json
        onnx_program.save(path, external_data=False)
    except (torch.onnx.errors.OnnxExporterError, ValueError) as error:
        reasons = [line for line in str(error).splitlines() if line.startswith("<class ")]
        raise UserError(f"ONNX cannot express the network: {(reasons or [first_line(error)])[0]}") from error


def run_onnx(path: Path) -> Runner:
    runtime = needed("onnxruntime", "export")
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda images: tensors(session.run(None, {INPUT: images.numpy()}))


def settle_strides(program: ExportedProgram) -> None:
    """Make every transposed result of attention contiguous. As the fused kernel lays it out, it is, and a view of it is
    taken; but the products that attention is made of in ONNX are laid out differently."""
    aten = torch.ops.aten
    for node in list(program.graph.nodes):
        attention = aten.scaled_dot_product_attention.default
        if node.target is aten.transpose.int and getattr(node.args[0], "target", None) is attention:
            with program.graph.inserting_after(node):
                contiguous = {"memory_format": torch.contiguous_format}
                settled = program.graph.call_function(aten.clone.default, (node,), contiguous)
            settled.meta["val"] = node.meta["val"].clone(**contiguous)
            node.replace_all_uses_with(settled, delete_user_cb=lambda user, own=settled: user is not own)
    program.graph_module.recompile()


def normalise_rows(program: ExportedProgram) -> None:
    """Let LayerNorm see maps (B, H, W, C) as rows (B, H * W, C): OpenVINO normalises rows in one step, maps in four.

    Dimensions are flattened and unflattened; some networks answered wrongly with ``reshape`` in their place.
    """
    graph, aten = program.graph, torch.ops.aten
    for norm in graph.find_nodes(op="call_function", target=aten.layer_norm.default):
        tokens, channels = norm.args[:2]
        sides = list(tokens.meta["val"].shape[1:-1])
        if len(sides) < 2 or len(channels) > 1:
            continue
        with graph.inserting_before(norm):
            rows = graph.call_function(aten.flatten.using_ints, (tokens, 1, len(sides)))
        norm.args = (rows, *norm.args[1:])
        with graph.inserting_after(norm):
            whole = graph.call_function(aten.unflatten.int, (norm, 1, sides))
        whole.meta["val"] = norm.meta["val"]  # the next to be normalised may be this one
        norm.replace_all_uses_with(whole, delete_user_cb=lambda user, own=whole: user is not own)
    program.graph_module.recompile()


def write_openvino(traced: Traced, path: Path, compress: bool = False) -> None:
    import_openvino().save_model(convert_openvino(traced), path, compress_to_fp16=compress)


def convert_openvino(traced: Traced) -> Any:
    """An ``openvino.Model`` with named input and outputs, the sides of the images fixed.

    Raises:
        UserError: OpenVINO is missing, or cannot express the network.
    """
    openvino = import_openvino()
    program = traced.program()
    normalise_rows(program)
    try:
        model = openvino.convert_model(program)
        batch = -1 if traced.dynamic_batch else len(traced.images)
        model.reshape(openvino.PartialShape([batch, *traced.images.shape[1:]]))
    except Exception as error:  # OpenVINO raises RuntimeError and classes of its own, private ones among them
        raise UserError(f"OpenVINO cannot express the network: {first_line(error)}") from error
    model.inputs[0].get_tensor().set_names({INPUT})
    for output, name in zip(model.outputs, traced.output_names, strict=True):
        output.get_tensor().set_names({name})
    model.set_rt_info(traced.metadata_json, METADATA)
    return model


def run_openvino(path: Path) -> Runner:
    model = openvino_core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return lambda images: tensors(model(images.numpy()).values())


def write_aot(traced: Traced, path: Path) -> None:
    """A package of AOTInductor: machine code for the processor that it is made on.

    Raises:
        UserError: there is no C++ compiler, or it fails.
    """
    settings = {"aot_inductor.metadata": {METADATA: traced.metadata_json}}
    program = traced.program()
    try:
        torch._inductor.aoti_compile_and_package(program, package_path=str(path), inductor_configs=settings)
    except Exception as error:  # torch wraps what compilers say in many classes
        raise UserError(
            f"AOTInductor failed: {first_line(error)}", "It needs a C++ compiler, for example the package g++."
        ) from error


def run_aot(path: Path) -> Runner:
    package = torch._inductor.aoti_load_package(str(path))
    return lambda images: tuple(package(images))


FORMATS = {
    "pt2": Format(".pt2", write_pt2, run_pt2),
    "onnx": Format(".onnx", write_onnx, run_onnx),
    "openvino": Format(".xml", write_openvino, run_openvino, companions=(".bin",)),
    "aot": Format(".pt2", write_aot, run_aot),
}


def tensors(arrays: Sequence[np.ndarray]) -> tuple[Tensor, ...]:
    """Copies, since runtimes use their memory again."""
    return tuple(torch.from_numpy(np.array(array)) for array in arrays)


def import_openvino() -> ModuleType:
    """OpenVINO without its telemetry, which reports every conversion over the network unless that is declined."""
    sys.modules.setdefault("openvino_telemetry", None)
    return needed("openvino", "fast")


@cache
def openvino_core() -> Any:
    """OpenVINO's runtime, one for the process and never freed: on CPUs with AVX-512 it gives the thread that first
    compiles a stack for signal handlers and takes it away when it is freed, which kills the process at that thread's
    next signal, such as the end of a child, where another thread frees it."""
    return import_openvino().Core()


def needed(package: str, extra: str) -> ModuleType:
    """Import an optional package.

    Raises:
        UserError: it is not installed.
    """
    try:
        return __import__(package)
    except ImportError as error:
        install = f"Install what this needs: pip install 'stvit-studio[{extra}]'"
        raise UserError(f"{package} is not installed.", install) from error
