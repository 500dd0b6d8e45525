"""What the shell's commands share: types of arguments, and checks before anything is loaded."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from stvit.pretrained.records import similar_names


def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def from_zero(text: str) -> int:
    """A whole number from 0 on."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0 on")
    return int(text)


def unknown_model(name: str) -> str:
    """Say that no model is registered under a name, and which names are similar."""
    return f"unknown model: {name}. {similar_names(name)}"


def unwritable(file: Path) -> str:
    """Why a file cannot be written, and what to do; empty if it can. Folders above it may be missing, they are made."""
    if os.path.isdir(file):
        return f"{file} cannot be written: it is a folder; add the name of a file"
    place = next(path for path in (file, *file.absolute().parents) if os.path.lexists(path))
    if place != file and not os.path.isdir(place):
        return f"{file} cannot be written: {place} is no folder; name another"
    if not os.access(place, os.W_OK if place == file else os.W_OK | os.X_OK):
        return f"{file} cannot be written: {place} is read-only; name another"
    return ""
