"""Why weights cannot be had: one sentence on what happened and one on what to do, for each cause."""

from __future__ import annotations

from huggingface_hub import constants

from .records import CheckpointRecord

AGAIN = "Try again in a minute, or download {file} from {url} by hand and give its path."
EXPLANATIONS = {  # reason: (what happened, next step)
    "explicit path": (
        "The checkpoint {detail} cannot be opened ({problem}).",
        "Correct the path, or leave it out to download {file} from {url}.",
    ),
    "offline": (
        "{file} is not in the cache, and the Hub may not be asked (offline mode).",
        "Go online once and run `python -m weights pull {name}`, or give the path of a downloaded file.",
    ),
    "unauthorised": (
        "{hub} refused access to {repo} ({detail}): it does not exist, is private, or your token is not valid.",
        "Check HF_TOKEN, or log in anew with `hf auth login`.",
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
        "Look on {url} what its authors renamed or removed, and correct stvit/pretrained/records.py.",
    ),
    "wrong revision": (
        "{repo} on {hub} has no revision {detail}.",
        "Correct stvit/pretrained/records.py; if the authors withdrew a revision that was downloaded before, delete "
        "{ledger}.",
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
        "Delete it; the file is then recorded anew.",
    ),
}


class WeightsUnavailable(RuntimeError):
    """A checkpoint cannot be had.

    Attributes:
        reason: a key of ``EXPLANATIONS``.
        message: what happened, for the user.
        next_step: what the user can do about it.
    """

    def __init__(self, reason: str, message: str, next_step: str) -> None:
        super().__init__(f"{message} {next_step}")
        self.reason, self.message, self.next_step = reason, message, next_step


def unavailable(reason: str, record: CheckpointRecord, **details: object) -> WeightsUnavailable:
    """The error for one reason; ``details`` fill what its sentences name beside the record."""
    fields = {"name": record.name, "repo": record.repo, "file": record.filename, "url": record.source_url}
    message, next_step = (text.format(hub=constants.ENDPOINT, **fields, **details) for text in EXPLANATIONS[reason])
    return WeightsUnavailable(reason, message, next_step)
