"""Downloading from the Hugging Face Hub."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HTTPError,  # the base of httpx's errors (huggingface_hub 1) or httpx2's (2)
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import tqdm

from .errors import WeightsUnavailable, unavailable
from .ledger import entry_path
from .records import CheckpointRecord

Progress = Callable[[int, int | None], None]

RETRY_PAUSES_S = (1.0, 2.0)
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)


def download(record: CheckpointRecord, revision: str, progress: Progress | None = None) -> Path:
    """Fetch a file into the Hub's cache.

    Args:
        record: what to fetch.
        revision: the record's own, or the commit that it once meant.
        progress: called with the bytes so far and the total; an exception raised in it ends the download.

    Raises:
        WeightsUnavailable: it could not be fetched. Nothing of it stays in the cache (huggingface_hub 1 may keep an
            unfinished part to resume from, which never passes for the file).
    """
    progress = progress or (lambda done_bytes, total_bytes: None)
    try:
        progress(0, _size_on_hub(record, revision))
        bar = _bar_that_calls(progress)
        return Path(hf_hub_download(record.repo, record.filename, revision=revision, tqdm_class=bar))
    except (HTTPError, OSError) as error:
        raise _explained(error, record, revision) from error


def has(record: CheckpointRecord, revision: str, timeout_s: float) -> bool:
    """Whether the Hub answers at once, and has the file; never where it may not be asked (offline mode)."""
    url = hf_hub_url(record.repo, record.filename, revision=revision)
    try:
        return get_hf_file_metadata(url, timeout=timeout_s).commit_hash is not None
    except (HTTPError, OSError):
        return False


def _size_on_hub(record: CheckpointRecord, revision: str) -> int | None:
    """Ask for the file's size first: unlike the client's own question, this one gives up in seconds, not minutes."""
    url = hf_hub_url(record.repo, record.filename, revision=revision)
    for pause_s in (*RETRY_PAUSES_S, None):
        try:
            metadata = get_hf_file_metadata(url, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        except HfHubHTTPError as error:
            if pause_s is None or error.response.status_code not in PASSING_STATUSES:
                raise
            time.sleep(pause_s)
            continue
        if metadata.commit_hash is None or metadata.etag is None:
            raise unavailable("not a hub", record, detail="its answer names no commit")
        return metadata.size


def _bar_that_calls(progress: Progress) -> type[tqdm]:
    class Bar(tqdm):
        """Stands where the client expects a progress bar, draws nothing, and passes the numbers on."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **{**kwargs, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n
            progress(self.n, self.total)

        # The client's Xet transfer counts the same bytes a second time, in a second bar unless these exist.
        def update_transfer(self, n: int) -> None: ...

        def set_transfer_postfix_str(self, text: str, refresh: bool = True) -> None: ...

    return Bar


def _explained(error: Exception, record: CheckpointRecord, revision: str) -> WeightsUnavailable:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:  # the client's wrapping of "cannot ask the Hub"
        error = error.__cause__
    reason, detail = _reason(error)
    if reason == "wrong revision":
        detail = revision
    return unavailable(reason, record, detail=detail, ledger=entry_path(record))


def _reason(error: Exception) -> tuple[str, str]:
    """Key of ``EXPLANATIONS`` and technical detail of what the client raised."""
    if isinstance(error, HfHubHTTPError):
        return _reason_of_answer(error)
    detail = str(error).strip().partition("\n")[0] or type(error).__name__
    if isinstance(error, OfflineModeIsEnabled):
        return "offline", detail
    if isinstance(error, HTTPError):  # its subclasses by name, because they come from httpx or from httpx2
        names = {base.__name__ for base in type(error).__mro__}
        if "TimeoutException" in names:
            return "time-out", detail
        unreachable = names & {"ConnectError", "ProxyError", "UnsupportedProtocol"}
        return ("unreachable" if unreachable else "truncated"), detail
    # The client has no class of its own for a body of the wrong length, but only the system's errors have a number.
    return ("disk" if getattr(error, "errno", None) else "truncated"), detail


def _reason_of_answer(error: HfHubHTTPError) -> tuple[str, str]:
    status = error.response.status_code
    detail = f"status {status}"
    if isinstance(error, GatedRepoError):
        return "gated", detail
    if status in (401, 403):
        return "unauthorised", detail
    if isinstance(error, RevisionNotFoundError):
        return "wrong revision", detail
    if isinstance(error, EntryNotFoundError):
        return "file not found", detail
    if isinstance(error, RepositoryNotFoundError):
        return "repository not found", detail
    if status == 429:
        wait_s = error.response.headers.get("Retry-After")
        return "rate limit", f"{detail}, to be asked again after {wait_s} s" if wait_s else detail
    return ("hub down" if status >= 500 else "not a hub"), detail
