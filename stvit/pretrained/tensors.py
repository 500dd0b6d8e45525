"""The tensors of a published checkpoint, kept as safetensors beside the Hub's cache.

The authors' files hold the optimizer too, three times the size of the model. They are read and verified once; from then
on a process reads, and verifies, the model's tensors alone.
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from pathlib import Path
from threading import get_ident

from safetensors.torch import save_file

from stvit.checkpoint import CheckpointError, read_checkpoint

from .hub import Progress
from .records import ModelRecord
from .resolve import ResolvedWeights, entry_path, read_entry, resolve, sha256_of

logger = logging.getLogger(__name__)

PICKLED = (".pth", ".pt", ".bin")


def resolve_tensors(record: ModelRecord, *, progress: Progress | None = None) -> ResolvedWeights:
    """Find the weights of a record as :func:`stvit.pretrained.resolve.resolve` does; of a pickled checkpoint, a file of
    the tensors that ``read_checkpoint`` finds in it.

    Args:
        progress: see there.

    Returns:
        The file; ``sha256`` is that of the published one.

    Raises:
        WeightsUnavailable: see there.
    """
    if not record.filename.endswith(PICKLED):
        return resolve(record, progress=progress)
    return _kept(record) or _keep(record, resolve(record, progress=progress))


def tensors_path(record: ModelRecord) -> Path:
    """Say where the tensors of a record are kept; a small file beside them has their sha256 and their source's."""
    return entry_path(record).with_suffix(".safetensors")


def _note_path(record: ModelRecord) -> Path:
    return entry_path(record).with_suffix(".tensors.json")


def _kept(record: ModelRecord) -> ResolvedWeights | None:
    """The tensors, where they come from the file that the record or the ledger names and are what was written."""
    entry = read_entry(record)
    source = record.sha256 or (entry and entry.sha256)
    path = tensors_path(record)
    try:
        note = json.loads(_note_path(record).read_text(encoding="utf-8"))
        if note["source"] == source and note["sha256"] == sha256_of(path):
            return ResolvedWeights(path, "cache", source)
    except (OSError, ValueError, KeyError, TypeError):
        pass  # nothing was kept, or not the whole of it: it is written again
    return None


def _keep(record: ModelRecord, resolved: ResolvedWeights) -> ResolvedWeights:
    """Write the tensors; where that fails, the checkpoint itself is used, and says what is wrong with it."""
    path, note_path = tensors_path(record), _note_path(record)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.tmp")
    try:
        tensors = {name: tensor.clone().contiguous() for name, tensor in read_checkpoint(resolved.path).items()}
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, partial)
        note = json.dumps({"source": resolved.sha256, "sha256": sha256_of(partial)})
        os.replace(partial, path)
        partial.write_text(note, encoding="utf-8")
        os.replace(partial, note_path)
    except (CheckpointError, OSError) as error:
        logger.warning("The tensors of %s cannot be kept: %s", record.filename, error)
        return resolved
    finally:
        with suppress(OSError):
            partial.unlink()
    return ResolvedWeights(path, resolved.origin, resolved.sha256)
