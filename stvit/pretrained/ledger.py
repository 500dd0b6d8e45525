"""What the first download of a file was like, so that every later use can be compared with it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import NamedTemporaryFile

from huggingface_hub import constants

from .errors import unavailable
from .records import CheckpointRecord

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class LedgerEntry:
    """The file as it first came: the commit that the revision then meant, its size in bytes, its sha256."""

    commit: str
    size: int
    sha256: str


def entry_path(record: CheckpointRecord) -> Path:
    """One small file for each checkpoint, beside the Hub's cache: nothing to lock when two processes download."""
    name = f"{record.repo}--{record.revision}--{record.filename}.json".replace("/", "--")
    return Path(constants.HF_HOME) / "stvit-studio" / name


def read_entry(record: CheckpointRecord) -> LedgerEntry | None:
    """What was recorded for a checkpoint, or ``None`` if it has never been downloaded.

    Raises:
        WeightsUnavailable: the entry is unreadable.
    """
    path = entry_path(record)
    try:
        return LedgerEntry(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise unavailable("ledger", record, ledger=path, detail=error) from error


def write_entry(record: CheckpointRecord, entry: LedgerEntry) -> None:
    """Record a checkpoint; the entry appears whole or not at all. Where the cache is read-only, nothing is recorded."""
    path = entry_path(record)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile("w", dir=path.parent, suffix=".tmp", delete=False) as file:
            json.dump(asdict(entry), file)
        os.replace(file.name, path)
    except OSError as error:
        logger.warning("The download of %s cannot be recorded in %s: %s", record.filename, path, error)


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
