"""From a record or a model card to a verified file of weights.

Where a record holds no sha256, the commit, the size and the sha256 of its first download are kept in a ledger beside
the Hub's cache, and every later use is compared with them.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import get_ident
from typing import TYPE_CHECKING, Literal

from huggingface_hub import constants, try_to_load_from_cache

from .hub import Progress, WeightsUnavailable, download, has, unavailable
from .records import ModelRecord

if TYPE_CHECKING:
    from .model_cards import ModelCard

logger = logging.getLogger(__name__)

Origin = Literal["cache", "Hub", "bundled"]


@dataclass(frozen=True)
class ResolvedWeights:
    """A verified file of weights, where it came from, and its sha256."""

    path: Path
    origin: Origin
    sha256: str


@dataclass(frozen=True)
class LedgerEntry:
    """The file as it first came: the commit that the revision then meant, its size in bytes, its sha256."""

    commit: str
    size: int
    sha256: str


def resolve(record: ModelRecord, *, progress: Progress | None = None, offline: bool = False) -> ResolvedWeights:
    """Find the weights of a record, in the Hub's cache or on the Hub.

    A cached file costs no request. The record's sha256, or else the ledger's, fixes the bytes: whatever the Hub says
    later, the same ones are used, or an error is raised.

    Args:
        record: of the model.
        progress: called with the bytes so far and the total during a download; what it raises ends the download.
        offline: never ask the Hub.

    Raises:
        WeightsUnavailable: they cannot be fetched, or are not what they were.
    """
    if record.repo is None:
        raise unavailable("by hand" if record.weights_page else "unpublished", record)
    entry = read_entry(record)
    cached = _cached(record, entry)
    if cached is not None:
        return _verified(record, entry, cached, "cache")
    if offline:
        raise unavailable("offline", record)
    return _verified(record, entry, _downloaded(record, entry, progress), "Hub")


def resolve_card(card: ModelCard) -> ResolvedWeights:
    """The weights beside a model card, compared with the sha256 in it.

    Raises:
        WeightsUnavailable: the file is missing, or is not the one that the card describes.
    """
    name = card.path.name
    again = f"Put back {name} as it came with its card, or write card and weights again."
    if not card.path.is_file():
        raise WeightsUnavailable("missing", f"The weights {name} are missing.", again)
    actual = sha256_of(card.path)
    if actual != card.sha256:
        problem = f"The weights {name} are damaged: their sha256 is {actual}, expected was {card.sha256}."
        raise WeightsUnavailable("damaged", problem, again)
    return ResolvedWeights(card.path, "bundled", actual)


def within_reach(record: ModelRecord, timeout_s: float) -> bool:
    """Whether weights are in the cache, or the Hub says in time that it has them; nothing is downloaded."""
    try:
        entry = read_entry(record)
    except WeightsUnavailable:
        return False
    return _cached(record, entry) is not None or has(record, _revision(record, entry), timeout_s)


def entry_path(record: ModelRecord) -> Path:
    """One small file for each checkpoint, beside the Hub's cache: nothing to lock when two processes download."""
    name = f"{record.repo}--{record.revision}--{record.filename}.json".replace("/", "--")
    return Path(constants.HF_HOME) / "stvit-studio" / name


def read_entry(record: ModelRecord) -> LedgerEntry | None:
    """The ledger's entry, or ``None`` where there is none: before the first download, and for a record with a sha256.

    Raises:
        WeightsUnavailable: the entry is unreadable.
    """
    if record.sha256:
        return None
    path = entry_path(record)
    try:
        return LedgerEntry(**json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise unavailable("ledger", record, ledger=path, detail=error) from error


def sha256_of(path: Path) -> str:
    """Hash a file (0.2 s for 200 MB); an unchanged file is hashed once per process."""
    stat = path.stat()
    return _sha256(path, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _revision(record: ModelRecord, entry: LedgerEntry | None) -> str:
    return entry.commit if entry else record.revision


def _cached(record: ModelRecord, entry: LedgerEntry | None) -> Path | None:
    path = try_to_load_from_cache(record.repo, record.filename, revision=_revision(record, entry))
    return Path(path) if isinstance(path, str) else None


def _downloaded(record: ModelRecord, entry: LedgerEntry | None, progress: Progress | None) -> Path:
    try:
        return download(record, _revision(record, entry), progress)
    except WeightsUnavailable as error:
        if entry is None or error.reason != "wrong revision":
            raise
        ledger = entry_path(record)
        raise unavailable("withdrawn revision", record, detail=entry.commit, ledger=ledger) from error


def _verified(record: ModelRecord, entry: LedgerEntry | None, path: Path, origin: Origin) -> ResolvedWeights:
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
    if entry is None and record.sha256 is None:
        _write_entry(record, LedgerEntry(commit=path.parent.name, size=path.stat().st_size, sha256=actual))
    return ResolvedWeights(path, origin, actual)


def _write_entry(record: ModelRecord, entry: LedgerEntry) -> None:
    """Keep what came; the entry appears whole or not at all. Where the cache is read-only, nothing is kept."""
    path = entry_path(record)
    partial = path.with_name(f"{path.name}.{os.getpid()}-{get_ident()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_text(json.dumps(asdict(entry)), encoding="utf-8")
        os.replace(partial, path)
        logger.info("No sha256 of %s is recorded; later uses are compared with this download's.", record.name)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        logger.warning("The download of %s cannot be recorded in %s: %s", record.filename, path, error)


def _sha256_by_hub(path: Path) -> str | None:
    """The Hub's own word: large files lie in its cache under their sha256, with a link of the file's name to them."""
    name = Path(os.readlink(path)).name if path.is_symlink() else ""
    return name if re.fullmatch("[0-9a-f]{64}", name) else None
