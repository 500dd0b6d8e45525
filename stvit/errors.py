"""The base of every error that is written for the person who uses the program."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


class UserError(Exception):
    """What went wrong and what to do about it. The page, the API and the shell show it as it is.

    Args:
        problem: what is wrong, one sentence.
        next_step: what the person can do, one sentence; empty where the problem says it already.
    """

    def __init__(self, problem: str, next_step: str = "") -> None:
        super().__init__(problem, next_step)
        self.problem = problem
        self.next_step = next_step

    def __str__(self) -> str:
        return f"{self.problem} {self.next_step}".strip()


@contextmanager
def needs_extra(name: str) -> Iterator[None]:
    """End a command with one line that says what to install where an import inside finds a package missing.

    Args:
        name: the extra of ``stvit-studio`` that brings the packages.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        sys.exit(f"{error.name} is not installed. Install what this command needs: pip install 'stvit-studio[{name}]'")
