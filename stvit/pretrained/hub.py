"""Downloading from the Hugging Face Hub, and one message for each way in which that fails."""

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

from stvit.errors import UserError

from .records import ModelRecord

Progress = Callable[[int, int | None], None]

RETRY_PAUSES_S = (1.0, 2.0)
PASSING_STATUSES = (408, 429, 500, 502, 503, 504)
AGAIN = "Try again in a minute, or download {file} from {url} by hand and give its path."
EXPLANATIONS = {  # reason: (what happened, next step)
    "unpublished": (
        "No weights of {name} were published on the Hugging Face Hub.",
        "Give the path of a file of your own, or create the model with pretrained=False and train it.",
    ),
    "by hand": (
        "The weights of {name} cannot be fetched by this program; its authors share them on {url}.",
        "Fetch the file there by hand, then create the model with checkpoint= and its path.",
    ),
    "offline": (
        "{file} is not in the cache, and the Hub may not be asked (offline mode).",
        "Go online once and run `python -m weights pull {name}`, or give the path of a downloaded file.",
    ),
    "unauthorised": (
        "{hub} refused access to {repo} ({detail}): it does not exist, is private, or your token is not valid.",
        "Check HF_TOKEN, or log in again with `hf auth login`.",
    ),
    "gated": (
        "{repo} on {hub} is gated: its authors want to be asked first.",
        "Ask for access on {url}, then log in with `hf auth login`.",
    ),
    "repository not found": (
        "There is no repository {repo} on {hub}.",
        "Check HF_ENDPOINT if you set it; if the authors have removed it, give the path of a copy of {file}.",
    ),
    "file not found": (
        "{repo} on {hub} has no file {file}.",
        "Look on {url} whether its authors renamed or removed it, and correct the pretrained config of {name}.",
    ),
    "wrong revision": (
        "{repo} on {hub} has no revision {detail}.",
        "Look on {url} which there are, and correct the pretrained config of {name}.",
    ),
    "withdrawn revision": (
        "{repo} on {hub} has no longer the revision {detail} of the first download of {file}.",
        "Delete {ledger} to take what the repository has now.",
    ),
    "rate limit": (
        "{hub} allows no more requests for now ({detail}).",
        "Wait some minutes, or log in with `hf auth login` for a higher limit.",
    ),
    "hub down": ("{hub} is out of order ({detail}).", AGAIN),
    "time-out": ("{hub} did not answer in time.", "Check your connection. " + AGAIN),
    "unreachable": ("{hub} cannot be reached ({detail}).", "Check connection, proxy and HF_ENDPOINT. " + AGAIN),
    "not a hub": (
        "{hub} does not answer as a Hugging Face Hub does ({detail}).",
        "Check HF_ENDPOINT and your proxy.",
    ),
    "truncated": ("The download of {file} broke off ({detail}).", AGAIN),
    "damaged download": (
        "{file} came damaged: its sha256 is {actual}, expected was {expected}. It was removed.",
        "Try again; if it stays so, a proxy alters downloads: fetch the file from {url} another way and give its path.",
    ),
    "damaged cache": (
        "{detail} has changed since its first download: its sha256 is {actual}, expected was {expected}.",
        "Delete that file, then run `python -m weights pull {name}`.",
    ),
    "disk": (
        "{file} cannot be written to the cache ({detail}).",
        "Free disk space, or let HF_HOME name a folder that you can write to.",
    ),
    "ledger": (
        "{ledger}, the record of the first download of {file}, is unreadable ({detail}).",
        "Delete it; the file is then recorded again.",
    ),
}


class WeightsUnavailable(UserError, RuntimeError):
    """Weights cannot be found, downloaded or trusted.

    Attributes:
        reason: a key of ``EXPLANATIONS``, or ``"missing"`` or ``"damaged"`` for weights beside a model card.
    """

    def __init__(self, reason: str, problem: str, next_step: str) -> None:
        super().__init__(problem, next_step)
        self.reason = reason
        self.args = (reason, problem, next_step)  # with these it is unpickled


def unavailable(reason: str, record: ModelRecord, **details: object) -> WeightsUnavailable:
    """The error for one reason; ``details`` fill what its sentences name beside the record."""
    known = {"name": record.name, "repo": record.repo, "file": record.filename, "url": record.source_url}
    problem, next_step = (text.format(hub=constants.ENDPOINT, **known, **details) for text in EXPLANATIONS[reason])
    return WeightsUnavailable(reason, problem, next_step)


def download(record: ModelRecord, revision: str, progress: Progress | None = None) -> Path:
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


def has(record: ModelRecord, revision: str, timeout_s: float) -> bool:
    """Whether the Hub answers at once, and has the file; never where it may not be asked (offline mode)."""
    url = hf_hub_url(record.repo, record.filename, revision=revision)
    try:
        return get_hf_file_metadata(url, timeout=timeout_s).commit_hash is not None
    except (HTTPError, OSError):
        return False


def _size_on_hub(record: ModelRecord, revision: str) -> int | None:
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


def _explained(error: Exception, record: ModelRecord, revision: str) -> WeightsUnavailable:
    if isinstance(error, LocalEntryNotFoundError) and error.__cause__:  # the client's wrapping of "cannot ask the Hub"
        error = error.__cause__
    reason, detail = _reason(error)
    if reason == "wrong revision":
        detail = revision
    return unavailable(reason, record, detail=detail)


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
