"""Results on disk, one line of JSON for every finished sample, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from .data import EvaluationError

FORMAT = "stvit.evaluate 2"
Id = int | str


def encode(entry: dict[str, Any]) -> bytes:
    """The entry in JSON, on one line."""
    return json.dumps(entry, separators=(",", ":")).encode()


BEGINNING = encode({"format": FORMAT})[:-1]


class ResultsFile:
    """The results of one run. The first line says what they are results of.

    A last line that was only half written is dropped. Use as a context manager.

    Attributes:
        finished: the results by sample.
    """

    def __init__(self, path: Path, origin: dict[str, Any]) -> None:
        """
        Args:
            path: of the file; made, with its folder, if there is none.
            origin: what the results depend on, as plain data: model, checkpoint, scale, ...

        Raises:
            EvaluationError: the file holds results of something else, is no file of results, or cannot be used.
        """
        self.finished: dict[Id, Any] = {}
        header = {"format": FORMAT, **json.loads(json.dumps(origin))}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = path.open("a+b")
        except OSError as error:
            raise EvaluationError(f"{path} cannot be written ({error.strerror}). Choose another --results.") from error
        try:
            self._continue(path, header)
        except EvaluationError:
            self._file.close()
            raise

    def _continue(self, path: Path, header: dict[str, Any]) -> None:
        self._file.seek(0)
        content = self._file.read()
        whole = content[: content.rfind(b"\n") + 1]
        lines = whole.splitlines()
        if lines:
            compare_headers(path, parse_line(path, 1, lines[0]), header)
        elif not (content.startswith(BEGINNING) or BEGINNING.startswith(content)):
            raise not_ours(path)
        for number, line in enumerate(lines[1:], start=2):
            entry = parse_line(path, number, line)
            if not entry.keys() >= {"id", "result"}:
                raise damaged(path, number)
            self.finished[entry["id"]] = entry["result"]
        self._file.truncate(len(whole))
        if not lines:
            self._write(header)

    def append(self, sample: Id, result: Any) -> None:
        """Add a finished sample; its line is on disk, for other processes too, when this returns."""
        self._write({"id": sample, "result": result})
        self.finished[sample] = result

    def _write(self, entry: dict[str, Any]) -> None:
        self._file.write(encode(entry) + b"\n")
        self._file.flush()

    def __enter__(self) -> ResultsFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def compare_headers(path: Path, found: dict[str, Any], expected: dict[str, Any]) -> None:
    """
    Raises:
        EvaluationError: the file is not one of results, or they are results of something else.
    """
    if found.get("format") != FORMAT:
        raise not_ours(path)
    if others := [key for key in expected if found.get(key) != expected[key]]:
        differences = "; ".join(f"{key} {found.get(key)} there, {expected[key]} here" for key in others)
        raise EvaluationError(
            f"{path} holds results of another run: {differences}. Name another file with --results, or delete this one."
        )


def parse_line(path: Path, number: int, line: bytes) -> dict[str, Any]:
    """
    Raises:
        EvaluationError: the line is not an object in JSON.
    """
    try:
        entry = json.loads(line)
    except ValueError as error:
        raise (not_ours(path) if number == 1 else damaged(path, number)) from error
    if not isinstance(entry, dict):
        raise not_ours(path) if number == 1 else damaged(path, number)
    return entry


def not_ours(path: Path) -> EvaluationError:
    return EvaluationError(f"{path} is not a file of results of this program. Name another one with --results.")


def damaged(path: Path, number: int) -> EvaluationError:
    return EvaluationError(f"{path} is damaged at line {number}. Delete that line, or the whole file to begin again.")
