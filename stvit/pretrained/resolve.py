"""From a catalogue record to a verified file: explicit path, then cache, then Hub, then the bundled copy."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Literal

from huggingface_hub import try_to_load_from_cache

from .errors import WeightsUnavailable, unavailable
from .hub import Progress, download, has
from .ledger import LedgerEntry, read_entry, sha256_of, write_entry
from .model_cards import BundledRecord
from .records import CheckpointRecord

BUNDLED = Path(__file__).parents[2] / "weights" / "bundled"

Origin = Literal["explicit path", "cache", "Hub", "bundled"]


@dataclass(frozen=True)
class ResolvedWeights:
    """A file of weights, where it came from, and its sha256."""

    path: Path
    origin: Origin
    sha256: str


def resolve(
    record: CheckpointRecord,
    *,
    explicit_path: str | PathLike[str] | None = None,
    progress: Progress | None = None,
    offline: bool = False,
) -> ResolvedWeights:
    """Find the weights of a record, downloading them if need be.

    A cached file costs no request. Its first download fixes commit, size and sha256; whatever the Hub says later, the
    same bytes are used, or an error is raised.

    Args:
        record: entry of the catalogue.
        explicit_path: a file of the user's own, taken as it is; nothing else is then tried.
        progress: called with the bytes so far and the total during a download; what it raises ends the download.
        offline: never ask the Hub.

    Raises:
        WeightsUnavailable: no such file, no way to get it, or it is not what it was.
    """
    if explicit_path is not None:
        return _explicit(record, Path(explicit_path))
    entry = read_entry(record)
    revision = entry.commit if entry else record.revision
    cached = try_to_load_from_cache(record.repo, record.filename, revision=revision)
    if isinstance(cached, str):
        return _verified(record, entry, Path(cached), "cache")
    try:
        if offline:
            raise unavailable("offline", record)
        path = download(record, revision, progress)
    except WeightsUnavailable:
        bundled = BUNDLED / f"{record.name}.safetensors"
        if not bundled.is_file():
            raise
        return ResolvedWeights(bundled, "bundled", sha256_of(bundled))
    return _verified(record, entry, path, "Hub")


def resolve_bundled(record: BundledRecord) -> ResolvedWeights:
    """The weights of a bundled model, verified.

    Raises:
        WeightsUnavailable: the file is missing, or is not the one that was described.
    """
    name = record.path.name
    again = f"Put back {name} as the project has it, or train it anew with `{record.command[-1]}`."
    if not record.path.is_file():
        raise WeightsUnavailable("bundled missing", f"The bundled weights {name} are missing.", again)
    actual = sha256_of(record.path)
    if actual != record.sha256:
        message = f"The bundled weights {name} are damaged: their sha256 is {actual}, expected was {record.sha256}."
        raise WeightsUnavailable("bundled damaged", message, again)
    return ResolvedWeights(record.path, "bundled", actual)


def within_reach(record: CheckpointRecord, timeout_s: float) -> bool:
    """Whether a checkpoint is in the cache, or the Hub says in time that it has it; nothing is downloaded."""
    try:
        entry = read_entry(record)
    except WeightsUnavailable:
        return False
    revision = entry.commit if entry else record.revision
    cached = try_to_load_from_cache(record.repo, record.filename, revision=revision)
    return isinstance(cached, str) or has(record, revision, timeout_s)


def _explicit(record: CheckpointRecord, path: Path) -> ResolvedWeights:
    try:
        return ResolvedWeights(path, "explicit path", sha256_of(path))
    except OSError as error:
        raise unavailable("explicit path", record, detail=path, problem=error.strerror) from error


def _verified(record: CheckpointRecord, entry: LedgerEntry | None, path: Path, origin: Origin) -> ResolvedWeights:
    """Compare a file in the cache with what it has to be, and record it if it is the first time."""
    actual = sha256_of(path)
    expected = record.sha256 or (entry.sha256 if entry else _sha256_by_hub(path)) or actual
    if actual != expected:
        blob = path.resolve()
        if origin == "cache":
            raise unavailable("damaged cache", record, detail=blob, actual=actual, expected=expected)
        path.unlink()
        blob.unlink(missing_ok=True)
        raise unavailable("damaged download", record, actual=actual, expected=expected)
    if entry is None:
        write_entry(record, LedgerEntry(commit=path.parent.name, size=path.stat().st_size, sha256=actual))
    return ResolvedWeights(path, origin, actual)


def _sha256_by_hub(path: Path) -> str | None:
    """The Hub's own word: large files lie in its cache under their sha256, with a link of the file's name to them."""
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if re.fullmatch("[0-9a-f]{64}", name) else None
