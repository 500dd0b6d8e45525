"""Exporting one model: trace, write aside, check against eager, then put in place."""

from __future__ import annotations

import copy
import errno
import os
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from timm.data import ImageNetInfo, resolve_model_data_config
from torch import Tensor, nn

from stvit.class_names import ADE20K_CLASSES, KINETICS400_CLASSES
from stvit.errors import UserError
from stvit.models.video_swin import ClipClassifier
from stvit.segmentation.upernet import UperNet
from stvit.shell import unwritable
from stvit.trace import RegionLayer

from .formats import FORMATS, INPUT, Runner, Traced
from .graph import FeaturePyramid, InferenceGraph, example_images, exportable, first_line
from .int8 import Int8Gain, write_int8

Precision = Literal["fp32", "fp16", "bf16", "int8"]
TYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
TOLERANCE = 1e-4  # of fp32 outputs, in units of the largest value or of 1, whichever is larger
AGREEMENT = 0.99  # share of image tokens whose token is eager's
SLACK = {"fp32": 1e-3}  # of equally strong ties, see InferenceGraph.agreement
HALF_SLACK = 0.05
CHECKED_BATCHES = (1, 3)  # of a graph for batches of any size, which is traced with another one
DETECTOR_INPUT = (800, 1344)
CLIP_LENGTH = 32
LARGEST_SIDE = 8192
FULL = (errno.ENOSPC, errno.EDQUOT)


class ExportError(UserError, RuntimeError):
    """A model cannot be exported as asked for; nothing was written."""


@dataclass(frozen=True)
class ExportReport:
    """A file that was exported and checked.

    Attributes:
        path: the file.
        format, precision: as asked for.
        seconds: that tracing, writing and checking took.
        bytes: of the file and what belongs to it.
        difference: largest absolute difference of an output from eager's in the same precision; of int8, from fp32.
        agreement: share of image tokens that belong to the same token as in eager, or to one as good, at worst of all
            layers; ``None`` without regions.
        regions: the layers whose assignments the file returns after the outputs.
        int8: what it changes and gains beside fp32; ``None`` for other precisions.
    """

    path: Path
    format: str
    precision: Precision
    seconds: float
    bytes: int
    difference: float
    agreement: float | None
    regions: tuple[RegionLayer, ...]
    int8: Int8Gain | None = None


def export_model(
    model: nn.Module,
    path: str | PathLike[str],
    format: str | None = None,
    *,
    input_size: tuple[int, int] | None = None,
    batch: int | Literal["dynamic"] = "dynamic",
    precision: Precision = "fp32",
    regions: bool = False,
    class_names: Sequence[str] | None = None,
    frames: int = CLIP_LENGTH,
    calibrate: str | PathLike[str] | None = None,
) -> ExportReport:
    """Export a model into a file that runs without this project.

    The file takes ``images``, (B, 3, H, W) float32, normalised, or clips (B, 3, T, H, W), and returns float32. It
    carries preprocessing, class names and the names of its outputs as JSON under ``stvit``. It is written aside, read
    by the format's own runtime, compared with eager, and put in place only if it agrees.

    Args:
        model: any model of this project or of timm; of a detector, backbone and feature pyramid are exported.
        path: of the file: ``.pt2``, ``.onnx``, or ``.xml`` with a ``.bin`` beside it.
        format: ``pt2`` (ExportedProgram), ``onnx``, ``openvino`` or ``aot`` (AOTInductor package); by default what the
            suffix says.
        input_size: height and width; by default those of the model's record.
        batch: ``"dynamic"``, or the only size that the file takes.
        precision: of weights and products. ``int8`` is for OpenVINO and needs ``calibrate``.
        regions: also return, for every layer that makes semantic tokens or reduces tokens, (B, N) int64: the token that
            each image token belongs to.
        class_names: in the order of the outputs; by default those of the data set that the model is for.
        frames: of a clip model's input.
        calibrate: folder of pictures, which int8 takes its ranges of values from.

    Raises:
        UserError: the model, the shape or the precision cannot be exported in this format, a package is missing, the
            file cannot be written, or it does not agree with eager.
    """
    path, started = Path(path), time.perf_counter()
    format = format or next((name for name, one in FORMATS.items() if one.suffix == path.suffix), "")
    _check_request(path, format, precision, batch, calibrate, frames)
    size = tuple(input_size or _default_size(model))
    if not all(1 <= side <= LARGEST_SIDE for side in size):
        raise ExportError(
            f"Images of {size[0]}x{size[1]} pixels cannot be exported: choose sides of 1 to {LARGEST_SIDE}."
        )
    shape = (3, frames, *size) if isinstance(model, ClipClassifier) else (3, *size)
    wanted = "assignment" if regions else "none"
    reference = InferenceGraph(exportable(model), wanted).cpu()  # a copy, so the caller's model stays where it is
    graph = reference
    if TYPES.get(precision, torch.float32) != reference.dtype:
        network = copy.deepcopy(reference.network).to(TYPES.get(precision, torch.float32))
        graph = InferenceGraph(network, wanted)
    images = example_images(shape, 2 if batch == "dynamic" else batch)
    layers, outputs = _try(graph, images)
    if regions and not layers:
        raise ExportError(
            f"{type(model).__name__} has no layers whose tokens stand for image regions.", "Leave out the regions."
        )
    names = output_names(outputs[: len(outputs) - len(layers)], size) + [f"regions_{i}" for i in range(len(layers))]
    metadata = {
        "model": _architecture(model),
        "precision": precision,
        "input": {"name": INPUT, "shape": ["batch" if batch == "dynamic" else batch, *shape], "type": "float32"},
        "preprocessing": preprocessing(model),
        "outputs": names,
        "classes": list(class_names if class_names is not None else default_class_names(model)),
        "regions": [{"output": f"regions_{i}", **asdict(layer)} for i, layer in enumerate(layers)],
        "torch": str(torch.__version__),
    }
    traced = Traced(graph, images, batch == "dynamic", names, metadata)
    batches = CHECKED_BATCHES if batch == "dynamic" else (batch,)

    def write_and_check(draft: Path) -> tuple[float, float | None, Int8Gain | None]:
        gain = None
        if precision == "int8":
            gain = write_int8(traced, draft, Path(calibrate), metadata["preprocessing"])
        else:
            FORMATS[format].write(traced, draft)
        return *check(FORMATS[format].run(draft), graph, reference, shape, batches, len(layers), precision), gain

    written, (difference, agreement, gain) = put_in_place(path, FORMATS[format].companions, write_and_check)
    seconds = time.perf_counter() - started
    return ExportReport(path, format, precision, seconds, written, difference, agreement, layers, gain)


def check(
    run: Runner,
    graph: InferenceGraph,
    reference: InferenceGraph,
    shape: Sequence[int],
    batches: Sequence[int],
    num_regions: int,
    precision: Precision,
) -> tuple[float, float | None]:
    """Compare a file with eager.

    In fp32 the outputs are eager's within ``TOLERANCE``. In half precision they differ from eager's by at most three
    times what those differ from fp32, and 20 times ``TOLERANCE``. Of int8 nothing is asked but finite outputs.

    Args:
        run: the file.
        graph: what it was made of.
        reference: the same in the model's own precision.
        num_regions: how many of the last outputs are assignments.

    Returns:
        See :class:`ExportReport`: ``difference`` and ``agreement``.

    Raises:
        ExportError: it disagrees.
    """
    difference, agreement = 0.0, 1.0
    for batch in batches:
        images = example_images(shape, batch)
        with torch.inference_mode():
            wanted, exact = graph(images), reference(images)
        got = run(images)
        if [tuple(one.shape) for one in got] != [tuple(one.shape) for one in wanted]:
            raise ExportError(f"The file returns other shapes than eager for a batch of {batch}; it was not kept.")
        count = len(got) - num_regions
        maps = zip(got[:count], wanted[:count], exact[:count], strict=True)
        for output, own, true in maps:
            apart = (output - own).abs().max().item()
            limit = TOLERANCE * max(1.0, true.abs().max().item())
            if precision in ("fp16", "bf16"):
                limit = 20 * limit + 3 * (own - true).abs().max().item()
            if not output.isfinite().all() or (precision != "int8" and apart > limit):
                raise ExportError(
                    f"The file differs from eager by {apart:.1e} for a batch of {batch}, allowed are {limit:.1e}; "
                    "it was not kept."
                )
            difference = max(difference, apart)
        if num_regions:
            with torch.inference_mode():
                shares = graph.agreement(images, got[count:], SLACK.get(precision, HALF_SLACK))
            if precision == "fp32" and min(shares) < AGREEMENT:
                raise ExportError(
                    f"Only {min(shares):.1%} of the image tokens belong to the same token as in eager; "
                    "the file was not kept."
                )
            agreement = min(agreement, *shares)
    return difference, agreement if num_regions else None


def put_in_place(path: Path, companions: Sequence[str], work: Callable[[Path], Any]) -> tuple[int, Any]:
    """Let ``work`` write a file in a folder of its own beside ``path``, then move it, and what belongs to it, there.

    Returns:
        Bytes that were moved, and what ``work`` returned.

    Raises:
        ExportError: the folder cannot be written to, its disk is full, or ``work`` fails on another file.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            draft = Path(folder) / path.name
            try:
                result = work(draft)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise ExportError(f"{path.name} cannot be made: {first_line(error)}.") from error
            finished = [draft.with_suffix(suffix) for suffix in companions] + [draft]
            size = sum(one.stat().st_size for one in finished)
            for one in finished:
                os.replace(one, path.parent / one.name)
    except OSError as error:
        raise ExportError(f"{path} cannot be written: {error.strerror or error}.") from error
    return size, result


def output_names(outputs: Sequence[Tensor], input_size: tuple[int, int]) -> list[str]:
    """``logits`` of a single output, ``stride_4`` etc. of several maps."""
    if len(outputs) == 1:
        return ["logits"]
    return [f"stride_{round(input_size[0] / output.shape[-2])}" for output in outputs]


def preprocessing(model: nn.Module) -> dict[str, Any]:
    """How pictures become the input: RGB in 0..1, less the mean, over the deviation; for classifiers of pictures also
    the resize (shorter side to ``size / crop_pct``) and the centre crop before that."""
    config = resolve_model_data_config(model)
    colours = {"channels": "RGB", "range": [0, 1], "mean": list(config["mean"]), "std": list(config["std"])}
    if isinstance(exportable(model), FeaturePyramid):
        return colours | {"interpolation": "bilinear", "multiple": 32}
    if isinstance(model, UperNet) or not hasattr(model, "pretrained_cfg"):
        return colours
    return colours | {"interpolation": config["interpolation"], "crop_pct": config["crop_pct"]}


def default_class_names(model: nn.Module) -> Sequence[str]:
    """The classes of the data set that models of this kind and this number of classes are for; none if unknown."""
    count = getattr(model, "num_classes", None)
    if isinstance(exportable(model), FeaturePyramid):
        return ()
    if isinstance(model, UperNet):
        return ADE20K_CLASSES if count == len(ADE20K_CLASSES) else ()
    if isinstance(model, ClipClassifier):
        return KINETICS400_CLASSES if count == len(KINETICS400_CLASSES) else ()
    names = getattr(model, "pretrained_cfg", {}).get("label_names")
    return names or (ImageNetInfo().label_descriptions() if count == 1000 else ())


def _default_size(model: nn.Module) -> tuple[int, int]:
    if isinstance(exportable(model), FeaturePyramid):
        return DETECTOR_INPUT
    embedding = getattr(
        model, "patch_embed", None
    )  # of the size that the network was built for, whatever its record says
    return getattr(embedding, "img_size", None) or resolve_model_data_config(model)["input_size"][-2:]


def _architecture(model: nn.Module) -> str:
    return getattr(model, "pretrained_cfg", {}).get("architecture") or type(model).__name__


def _try(graph: InferenceGraph, images: Tensor) -> tuple[tuple[RegionLayer, ...], tuple[Tensor, ...]]:
    """Run the network once, so that what it refuses is said in its own words."""
    try:
        with torch.inference_mode():
            return graph.describe_regions(images), graph(images)
    except (ValueError, AssertionError, RuntimeError) as error:
        raise ExportError(
            f"{type(graph.network).__name__} does not take images of {tuple(images.shape)}: {error}"
        ) from error


def _check_request(
    path: Path, format: str, precision: str, batch: int | str, calibrate: str | PathLike[str] | None, frames: int
) -> None:
    if format not in FORMATS:
        raise ExportError(f"{format or path.suffix or path.name!r} is no format: choose {', '.join(FORMATS)}.")
    if path.suffix != FORMATS[format].suffix:
        raise ExportError(f"{path.name} must end in {FORMATS[format].suffix} for {format}.")
    if precision not in get_args(Precision):
        raise ExportError(f"{precision!r} is no precision: choose {', '.join(get_args(Precision))}.")
    if batch != "dynamic" and (not isinstance(batch, int) or batch < 1):
        raise ExportError(f"batch={batch!r}: choose 'dynamic' or a whole number from 1 on.")
    if frames < 1:
        raise ExportError(f"frames={frames}: choose a whole number from 1 on.")
    for suffix in (FORMATS[format].suffix, *FORMATS[format].companions):
        if problem := unwritable(path.with_suffix(suffix)):
            raise ExportError(f"{problem}.")
    if precision == "int8" and format != "openvino":
        raise ExportError(f"int8 is made for OpenVINO, not for {format}.", "Choose --format openvino.")
    if precision == "int8" and calibrate is None:
        raise ExportError("int8 needs pictures to calibrate on.", "Name a folder of them: --calibrate FOLDER.")
    if precision == "bf16" and format == "onnx":
        raise ExportError(
            "ONNX Runtime has no bf16 on CPUs, so the file could not be checked.", "Choose fp16, or another format."
        )
