"""Reading published checkpoint files without ever running code that is pickled in them."""

from __future__ import annotations

import pickle
import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from os import PathLike
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

RIGHT_FILE = "Choose the checkpoint that was made for this model."
CONTAINER_KEYS = ("model", "state_dict")  # STViT, Swin, DeiT and EViT training code; mmcv

# Classes that published training containers hold beside the tensors. A plain dict stands in for them, so neither yacs
# nor anything of the class is needed; torch's unpickler has no other way in than to create it and fill it with values.
STAND_INS = [(OrderedDict, "yacs.config.CfgNode"), (OrderedDict, "argparse.Namespace")]

_STAND_IN_LOCK = Lock()  # torch keeps its list of allowed classes per process, not per thread


class CheckpointError(RuntimeError):
    """A checkpoint cannot be read safely or does not fit the model; the message is for the user."""


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Read the model's tensors from a checkpoint file, under the names they have in it.

    What the file is, is decided by its content: safetensors, or any generation of ``torch.save`` holding a state dict,
    a training container (``model``) or an mmcv container (``state_dict``). Tensors may be mapped from the file, so
    copy them before the file changes.

    Raises:
        CheckpointError: there is no such file, it is damaged or no checkpoint, or it would have to run code.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            head = file.read(512)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be opened ({error.strerror}). Check the path.") from error
    if head[8:9] == b"{":  # after the 8-byte length of the header
        return _read_safetensors(path)
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return _state_dict_in(_read_pickled(path, zipped=head.startswith(b"PK")), path)
    if head[257:262] == b"ustar":
        raise CheckpointError(
            f"{path} is in PyTorch's tar format of 2017, which cannot be read safely. Open it with the PyTorch of its "
            "time and save it again with torch.save."
        )
    raise CheckpointError(
        f"{path} is neither safetensors nor a PyTorch checkpoint: it begins with {head[:16]!r}. It may be an error "
        "page or a pointer saved in the file's place; download it again."
    )


def load_checkpoint(model: nn.Module, path: str | PathLike[str]) -> None:
    """Load a checkpoint into a model, every tensor accounted for.

    Names are translated by the model's own ``convert_released_state_dict``, if it has one, or by timm's filter for
    models of timm (which also resizes position tables made for another resolution).

    Raises:
        CheckpointError: the file cannot be read, or its names or shapes are not the model's; the model is unchanged.
    """
    state = read_checkpoint(path)
    try:
        state = _renamed_for(model, state)
    except (AttributeError, LookupError, RuntimeError, ValueError) as error:  # names of a network of another structure
        raise CheckpointError(
            f"{path} does not fit {type(model).__name__}: its names cannot be translated ({error}). {RIGHT_FILE}"
        ) from error
    expected = model.state_dict()
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
            f"{path} does not fit {type(model).__name__}. Entries {'; '.join(filter(None, problems))}. {RIGHT_FILE}"
        )
    model.load_state_dict(state)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is a damaged safetensors file ({error}). Download it again.") from error


def _read_pickled(path: Path, zipped: bool) -> Any:
    mapped = zipped and path.suffix != ".safetensors"  # torch.load believes that suffix, and maps nothing but paths
    try:
        with path.open("rb") as file, _STAND_IN_LOCK, torch.serialization.safe_globals(STAND_INS):
            return torch.load(str(path) if mapped else file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"asks for {refused[1]}" if refused else "holds more than tensors and plain values"
        raise CheckpointError(
            f"{path} was refused: its pickle {what}, and loading that could run code. Nothing was run. Use a file that "
            "holds tensors only, best as safetensors, from a source that you trust."
        ) from error
    except Exception as error:  # a damaged or hostile pickle can make the unpickler fail in any way
        reason = re.split(r"\.\s|\n", str(error).strip())[0] or type(error).__name__
        raise CheckpointError(
            f"{path} cannot be read as a PyTorch checkpoint ({reason}). It may be damaged or incomplete: "
            "download it again."
        ) from error


def _state_dict_in(content: Any, path: Path) -> dict[str, Tensor]:
    """The state dict in what a file held: the content itself, or one of its known entries."""
    candidates = [content]
    if isinstance(content, Mapping):
        candidates += [content[key] for key in CONTAINER_KEYS if key in content]
    for candidate in candidates:
        if isinstance(candidate, Mapping) and candidate and all(map(_is_named_tensor, candidate.items())):
            return {name: tensor.detach() for name, tensor in candidate.items()}
    found = sorted(map(str, content))[:8] if isinstance(content, Mapping) else type(content).__name__
    raise CheckpointError(
        f"{path} holds no model: expected named tensors, alone or under {' or '.join(CONTAINER_KEYS)}, found {found}. "
        "Save the model's state_dict()."
    )


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
