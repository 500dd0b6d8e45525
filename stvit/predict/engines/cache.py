"""Graphs on disk: made once, read at the next start, never trusted without their digests, never needed."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from stvit.pretrained.resolve import sha256_of

LOG = logging.getLogger(__name__)
LIMIT_BYTES = 4 * 2**30
MANIFEST = "entry.json"
DRAFT = ".draft-"  # folders that are being written
ABANDONED_S = 3600  # a draft that is older was left by a process that ended


def default_folder() -> Path:
    """``STVIT_CACHE``, else ``stvit`` in ``XDG_CACHE_HOME`` or ``~/.cache``; nowhere for a user without a home."""
    if chosen := os.environ.get("STVIT_CACHE"):
        return Path(chosen)
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stvit"
    except RuntimeError:  # as in a container with a user that it does not know; others may write to shared folders
        return Path(os.devnull) / "stvit"


class GraphCache:
    """Entries are folders of files under a key; what a key does not say is the same for all entries.

    An entry is written aside and renamed, so it is whole or not there; read with the digests of its files, so a damaged
    one counts as missing; and used only in a folder of this user's that nobody else may write to, since some graphs are
    machine code. Where nothing can be written, entries are made in a temporary folder every time, which is said once.

    Args:
        folder: see :func:`default_folder`.
        limit_bytes: of all entries; those that were not used for the longest time go first.
    """

    def __init__(self, folder: Path | None = None, limit_bytes: int = LIMIT_BYTES) -> None:
        self.folder, self.limit_bytes = (folder or default_folder()) / "graphs", limit_bytes
        self._complained = False

    def find(self, key: str) -> Path | None:
        """The folder of an entry, ``None`` if there is none that is whole."""
        entry = self.folder / key
        try:
            if not _is_ours(self.folder):
                return None
            files = json.loads((entry / MANIFEST).read_text(encoding="utf-8"))
            if {name: sha256_of(entry / name) for name in files} != files:
                raise ValueError("a digest differs")
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return None
        except (OSError, ValueError, TypeError, AttributeError) as error:
            self._complain(f"The cached graph {entry} is damaged ({error}); it is made again.")
            self.discard(key)
            return None
        with suppress(OSError):  # on a read-only disk
            os.utime(entry / MANIFEST)
        return entry

    def discard(self, key: str) -> None:
        """Remove an entry that is of no use."""
        shutil.rmtree(self.folder / key, ignore_errors=True)

    @contextmanager
    def written(self, key: str, write: Callable[[Path], None]) -> Iterator[Path]:
        """Let ``write`` fill a folder and keep it as an entry; the folder is there until the context ends."""
        draft, temporary = self._draft()
        try:
            write(draft)
            yield draft if temporary else self._keep(draft, key)
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _draft(self) -> tuple[Path, bool]:
        """A new folder, and whether it is outside of the cache."""
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not _is_ours(self.folder):
                raise PermissionError(0, "others may write to it")
            self._sweep()
            return Path(tempfile.mkdtemp(prefix=DRAFT, dir=self.folder)), False
        except OSError as error:
            self._complain(f"{self.folder} cannot keep graphs ({error.strerror}); they are made at every start.")
            return Path(tempfile.mkdtemp(prefix="stvit-graph-")), True

    def _keep(self, draft: Path, key: str) -> Path:
        """Move a draft to its place; where that fails it stays what it is, and what is there whole is kept."""
        entry = self.folder / key
        try:
            files = {path.name: sha256_of(path) for path in draft.iterdir()}
            (draft / MANIFEST).write_text(json.dumps(files), encoding="utf-8")
            if self.find(key):  # another process was faster, and may be reading it
                return entry
            self.discard(key)
            draft.rename(entry)
        except OSError as error:
            if self.find(key):
                return entry
            self._complain(f"{self.folder} cannot keep a graph ({error.strerror}); it is made at every start.")
            return draft
        self._shrink(keep=entry)
        return entry

    def _shrink(self, keep: Path) -> None:
        """Remove the entries that were not used for the longest time until the rest is within the limit."""
        manifests = sorted(self.folder.glob(f"*/{MANIFEST}"), key=_modified, reverse=True)
        total = _size(keep)
        for manifest in manifests:
            if manifest.parent != keep and not manifest.parent.name.startswith(DRAFT):
                total += _size(manifest.parent)
                if total > self.limit_bytes:
                    shutil.rmtree(manifest.parent, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove the drafts of processes that ended before they were done."""
        for draft in self.folder.glob(f"{DRAFT}*"):
            if time.time() - _modified(draft) > ABANDONED_S:
                shutil.rmtree(draft, ignore_errors=True)

    def _complain(self, message: str) -> None:
        if not self._complained:
            LOG.warning(message)
        self._complained = True


def digest(description: Any) -> str:
    """Key of an entry: sha256 of plain data."""
    return hashlib.sha256(json.dumps(description, sort_keys=True).encode()).hexdigest()


def _is_ours(folder: Path) -> bool:
    """Whether the folder is this user's, and nobody else may write to it; on systems without such rights, always."""
    if not hasattr(os, "getuid"):
        return True
    status = folder.stat()
    return status.st_uid == os.getuid() and not status.st_mode & 0o022


def _modified(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:  # another process has removed it
        return 0.0


def _size(folder: Path) -> int:
    try:
        return sum(path.stat().st_size for path in folder.iterdir())
    except OSError:
        return 0
