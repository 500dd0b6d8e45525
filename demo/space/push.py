"""Push what a Space needs of the project, in one commit."""

from __future__ import annotations

import subprocess
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import HTTPError

from stvit.errors import UserError

LEFT_OUT = (".ci/", ".dockerignore", "Dockerfile", "Makefile", "docs/", "requirements-", "tests/")
GENERATED = ".gitattributes"  # the Hub's own


class PushFailed(UserError, RuntimeError):
    """The Hub took nothing."""


def files_to_push(root: Path) -> list[str]:
    """List the files that git tracks, without tests and what is for developers, relative to ``root``.

    Raises:
        PushFailed: it is no git repository.
    """
    tracked = subprocess.run(["git", "-C", root, "ls-files", "-z"], capture_output=True, text=True, check=False)
    if tracked.returncode:
        raise PushFailed(f"{root} is no git repository, so it is not known what belongs to the project.", "Clone it.")
    names = [name for name in tracked.stdout.split("\0") if name and (root / name).is_file()]
    return [name for name in names if not name.startswith(LEFT_OUT)]


def push(root: Path, files: list[str], repo: str, *, private: bool = False, token: str | None = None) -> str:
    """Make a Space, or bring one up to date, in a single commit: ``upload_folder`` makes several of that many files,
    and the Space would be built from half of them.

    Args:
        files: relative to ``root``; others that the Space has are deleted.
        repo: ``OWNER/NAME``.
        token: by default the one that is logged in.

    Returns:
        Address of the commit.

    Raises:
        PushFailed: the Hub refused, or cannot be reached.
    """
    api = HfApi(token=token)
    try:
        api.create_repo(repo, repo_type="space", space_sdk="gradio", private=private, exist_ok=True)
        there = set(api.list_repo_files(repo, repo_type="space")) - {*files, GENERATED}
        operations = [CommitOperationDelete(name) for name in sorted(there)]
        operations += [CommitOperationAdd(name, root / name) for name in files]
        message = f"{_version(root)} of the project"
        return api.create_commit(repo, operations, commit_message=message, repo_type="space").commit_url
    except (HTTPError, ValueError) as error:  # of the front matter, the Hub's own words are in a ValueError
        words = str(error).strip().splitlines()
        raise PushFailed(f"{repo} was not pushed: {' '.join(words)}", "Log in with `hf auth login`.") from error


def _version(root: Path) -> str:
    done = subprocess.run(["git", "-C", root, "describe", "--always", "--dirty"], capture_output=True, text=True)
    return done.stdout.strip() or "State"
