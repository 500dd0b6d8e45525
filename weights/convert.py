"""Pickled checkpoints to safetensors."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import torch
from safetensors.torch import save_file

from stvit.checkpoint import CheckpointError, read_checkpoint
from stvit.pretrained.resolve import sha256_of


def convert(source: str | PathLike[str], destination: str | PathLike[str]) -> None:
    """Write the model's tensors of a checkpoint, under the names they have in it, as safetensors.

    The metadata name the source file and its sha256. Nothing existing is overwritten.

    Raises:
        CheckpointError: the source cannot be read safely, or the destination exists or cannot be written.
    """
    source, destination = Path(source), Path(destination)
    if destination.exists():
        raise CheckpointError(f"{destination} exists already. Give another name, or delete it first.")
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in read_checkpoint(source).items()
    }
    metadata = {"format": "pt", "source": source.name, "source_sha256": sha256_of(source)}
    partial = destination.with_name(destination.name + ".partial")
    try:
        save_file(state, partial, metadata)
        partial.rename(destination)
    except Exception as error:
        partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"{destination} cannot be written ({error}). Check the folder and its free space."
        ) from error
