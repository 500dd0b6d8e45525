"""Reading published checkpoint files without ever running code that is pickled in them."""

from __future__ import annotations

import logging
import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Set
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from stvit.errors import UserError

DOWNLOAD_AGAIN = "Download it again."
RIGHT_FILE = "Choose the checkpoint that was made for this model."
CONTAINER_KEYS = ("model", "state_dict")  # STViT, Swin, DeiT and EViT training code; mmcv, timm and Lightning
EMA_KEYS = ("state_dict_ema", "model_ema")  # averaged weights beside them: timm, DeiT

COMPILED = "_orig_mod."  # torch.compile puts it before the names of the module that it wraps, at any depth
WRAPPERS = ("module", "model")  # stands before all names: DataParallel, a Lightning module

# Classes that published training containers hold beside the tensors. A plain dict stands in for them, so neither yacs
# nor anything of the class is needed; torch's unpickler has no other way in than to create it and fill it with values.
STAND_INS = [(OrderedDict, "yacs.config.CfgNode"), (OrderedDict, "argparse.Namespace")]

_LOG = logging.getLogger(__name__)
_STAND_IN_LOCK = Lock()  # torch keeps its list of allowed classes per process, not per thread


class CheckpointError(UserError, RuntimeError):
    """A checkpoint cannot be read safely or does not fit the model."""


def read_checkpoint(path: str | PathLike[str], use_ema: bool | None = None) -> dict[str, Tensor]:
    """Read the model's tensors from a checkpoint file, under the names they have in it.

    The content decides what the file is: safetensors, or any generation of ``torch.save`` holding a state dict or a
    training container (``model`` or ``state_dict``, ``model_ema`` or ``state_dict_ema``). Tensors may be mapped from
    the file, so copy them before the file changes.

    Args:
        use_ema: take the averaged weights of a container, or not. ``None`` takes them where there are any, as timm
            does, and logs a warning if the container also holds others; but not from a container that says by
            ``ema_best`` that they are worse (ATC).

    Raises:
        CheckpointError: there is no such file, it is damaged or no checkpoint, would have to run code, or holds no
            weights of the kind asked for.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}).", "Check the path.") from error
    if head[8:9] == b"{":  # after the 8-byte length of the header
        return _take_entry({"the file": _read_safetensors(path)}, use_ema, path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        content = _read_pickled(path, zipped=head.startswith(b"PK"))
        if use_ema is None and isinstance(content, Mapping) and content.get("ema_best") is False:
            use_ema = False
        return _take_entry(_state_dicts_in(content, path), use_ema, path)
    if head.startswith(b"\x1f\x8b"):
        raise CheckpointError(
            f"{path} is a gzip archive, no checkpoint.", "Unpack it (tar -xzf), and choose the model's file in it."
        )
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is in PyTorch's tar format of 2017, which cannot be read safely.",
            "Open it with the PyTorch of its time and save it again with torch.save.",
        )
    raise CheckpointError(
        f"{path} is neither safetensors nor a PyTorch checkpoint: it begins with {head[:16]!r}.",
        "It may be an error page or a pointer saved in the file's place; download it again.",
    )


def load_checkpoint(model: nn.Module, path: str | PathLike[str], use_ema: bool | None = None, page: str = "") -> None:
    """Load a checkpoint into a model, every tensor accounted for.

    Prefixes of wrappers (DataParallel's ``module.``, torch.compile's ``_orig_mod.``, Lightning's ``model.``) are taken
    off. Names are then translated by the model's own ``convert_released_state_dict``, if it has one, or by timm's
    filter for models of timm (which also resizes position tables made for another resolution). As in PyTorch,
    ``num_batches_tracked`` of BatchNorm may be missing.

    Args:
        use_ema: see :func:`read_checkpoint`.
        page: where a person can fetch the right file.

    Raises:
        CheckpointError: the file cannot be read, or its names or shapes are not the model's; the model is unchanged.
    """
    next_step = f"{RIGHT_FILE} Published weights are on {page}." if page else RIGHT_FILE
    state = without_wrappers(read_checkpoint(path, use_ema), own={name for name, _ in model.named_children()})
    try:
        state = _renamed_for(model, state)
    except (AttributeError, LookupError, RuntimeError, ValueError) as error:  # names of a network of another structure
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}: its names cannot be translated ({error}).", next_step
        ) from error
    expected = model.state_dict()
    counters = {n: t for n, t in expected.items() if n.rpartition(".")[2] == "num_batches_tracked"}
    state = counters | state
    problems = [
        _listed("missing from the file", expected.keys() - state.keys()),
        _listed("unknown to the model", state.keys() - expected.keys()),
        _listed(
            "of another shape",
            [
                f"{name} (file {list(state[name].shape)}, model {list(expected[name].shape)})"
                for name in expected.keys() & state.keys()
                if state[name].shape != expected[name].shape
            ],
        ),
    ]
    if any(problems):
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}. Entries {'; '.join(filter(None, problems))}.", next_step
        )
    model.load_state_dict(state)


def without_wrappers(state: dict[str, Tensor], own: Set[str] = frozenset()) -> dict[str, Tensor]:
    """Take what wrappers add out of a state dict's names, however they are nested.

    Args:
        own: names of the model's direct children; a wrapper's name among them stays.
    """
    state = {name.replace(COMPILED, ""): tensor for name, tensor in state.items()}
    while wrapper := next((w for w in WRAPPERS if w not in own and any(n.startswith(f"{w}.") for n in state)), None):
        unwrapped = {name.removeprefix(f"{wrapper}."): tensor for name, tensor in state.items()}
        if len(unwrapped) < len(state):  # one name with and without the prefix: two networks in one
            break
        state = unwrapped
    return state


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is a damaged safetensors file ({error}).", DOWNLOAD_AGAIN) from error


def _read_pickled(path: Path, zipped: bool) -> Any:
    mapped = zipped and path.suffix != ".safetensors"  # torch.load believes that suffix, and maps nothing but paths
    try:
        with path.open("rb") as file, _STAND_IN_LOCK, torch.serialization.safe_globals(STAND_INS):
            return torch.load(str(path) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {refused[1]}" if refused else "holds more than tensors and plain values"
        raise CheckpointError(
            f"{path} was refused: its pickle {what}, and loading that could run code. Nothing was run.",
            "Use a file that holds tensors only, best as safetensors, from a source that you trust.",
        ) from error
    except Exception as error:  # a damaged or hostile pickle can make the unpickler fail in any way
        reason = re.split(r"\.\s|\n", str(error).strip())[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint ({reason}).",
            "It may be damaged or incomplete: download it again.",
        ) from error


def _state_dicts_in(content: Any, path: Path) -> dict[str, dict[str, Tensor]]:
    """All state dicts in what a file held, by their entry: the content itself, or its known entries."""
    candidates = {"the file": content}
    if isinstance(content, Mapping):
        candidates |= {key: content[key] for key in (*EMA_KEYS, *CONTAINER_KEYS) if key in content}
    found = {
        entry: {name: tensor.detach() for name, tensor in candidate.items()}
        for entry, candidate in candidates.items()
        if isinstance(candidate, Mapping) and candidate and all(map(_is_named_tensor, candidate.items()))
    }
    if found:
        return found
    held = sorted(map(str, content))[:8] if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(
        f"{path} holds no model: expected named tensors, alone or under {' or '.join(CONTAINER_KEYS)}, found {held}.",
        "Save the model's state_dict().",
    )


def _take_entry(found: dict[str, dict[str, Tensor]], use_ema: bool | None, path: Path) -> dict[str, Tensor]:
    """The state dict of the kind asked for; of a kind, the first."""
    averaged, others = [e for e in found if e in EMA_KEYS], [e for e in found if e not in EMA_KEYS]
    if use_ema and not averaged:
        raise CheckpointError(f"{path} holds no averaged (EMA) weights, only {', '.join(others)}.", "Do without EMA.")
    if use_ema is False and not others:
        raise CheckpointError(f"{path} holds averaged (EMA) weights only: {', '.join(averaged)}.", "Use EMA.")
    if use_ema is None and averaged and others:
        _LOG.warning("%s holds %s and %s: the averaged (EMA) weights are used.", path.name, others[0], averaged[0])
    return found[(others if use_ema is False else averaged or others)[0]]


def _is_named_tensor(item: tuple[Any, Any]) -> bool:
    return isinstance(item[0], str) and isinstance(item[1], Tensor)


def _renamed_for(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    if hasattr(model, "convert_released_state_dict"):
        return model.convert_released_state_dict(state)
    module = type(model).__module__
    timm_filter = getattr(sys.modules[module], "checkpoint_filter_fn", None) if module.startswith("timm.") else None
    return timm_filter(state, model) if timm_filter else state


def _listed(what: str, names: Iterable[str], shown: int = 4) -> str:
    """``"what (number): first names, ..."``, or nothing if there are none."""
    names = sorted(names)
    more = f", and {len(names) - shown} more" if len(names) > shown else ""
    return f"{what} ({len(names)}): {', '.join(names[:shown])}{more}" if names else ""
