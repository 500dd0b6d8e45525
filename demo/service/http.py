"""Refusals and bodies of HTTP, for middleware that stands before Gradio's routes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from starlette.formparsers import MultiPartException
from starlette.responses import JSONResponse
from starlette.types import Message, Receive, Scope

MAX_DEPTH = 32
BODY_S, FORM_S = 60.0, 600.0  # in which a message, or a form with files, has come


class Refused(Exception):
    """A request that goes no further.

    Attributes:
        status: of HTTP, 4xx or 503.
        words: a sentence for whoever sent it.
        detail: what Gradio's clients read in place of the sentence; by default the sentence.
        headers: of the answer, beside those of every answer.
    """

    def __init__(
        self, status: int, words: str, detail: object | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(words)
        self.status, self.words, self.detail, self.headers = status, words, detail or words, headers

    def answer(self) -> JSONResponse:
        """Put the sentence where curl, Gradio's page and Gradio's clients look for it."""
        return JSONResponse({"error": self.words, "detail": self.detail}, self.status, self.headers)


def header(scope: Scope, name: bytes) -> str | None:
    """Return the value of a header, by its name in lower case; ``None`` where it is missing."""
    return next((value.decode("latin-1") for key, value in scope["headers"] if key == name), None)


def check_json(scope: Scope) -> None:
    """Check that a body is sent as JSON.

    Raises:
        Refused: it is of another type, or compressed.
    """
    kind = (header(scope, b"content-type") or "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refused(415, "Send JSON, with the header Content-Type: application/json.")
    if header(scope, b"content-encoding") not in (None, "identity"):
        raise Refused(415, "Send the body as it is, without Content-Encoding.")


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Read the body of a request.

    Raises:
        Refused: it has more than ``limit`` bytes, breaks off, or takes more than ``BODY_S``.
    """
    _check_announced(scope, limit)
    try:
        return await asyncio.wait_for(_read(receive, limit), BODY_S)
    except asyncio.TimeoutError:
        words = f"The request did not come whole within {BODY_S:.0f} s. Send it again."
        raise Refused(408, words, headers={"Connection": "close"}) from None


async def _read(receive: Receive, limit: int) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise Refused(400, "The request broke off. Send it again.")
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def replayed(body: bytes, receive: Receive) -> Receive:
    """Give a whole body once, and then what else comes."""
    given = False

    async def again() -> Message:
        nonlocal given
        if given:
            return await receive()
        given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def bounded_form(scope: Scope, receive: Receive, limit: int) -> Receive:
    """Pass a form with files on in pieces as they come.

    Raises:
        Refused: it announces more than ``limit`` bytes.
        MultiPartException: (where it is read) it has more, or takes more than ``FORM_S``. Gradio's parser removes what
            it wrote, and answers 413 or 400.
    """
    _check_announced(scope, limit)
    seen, whole, end = 0, False, time.monotonic() + FORM_S

    async def bounded() -> Message:
        nonlocal seen, whole
        if whole:
            return await receive()
        try:
            message = await asyncio.wait_for(receive(), end - time.monotonic())
        except asyncio.TimeoutError:
            raise MultiPartException(f"The upload did not come whole within {FORM_S:.0f} s.") from None
        seen, whole = seen + len(message.get("body", b"")), not message.get("more_body")
        if seen > limit:
            raise MultiPartException(f"The upload exceeded the maximum allowed size of {limit} bytes.")
        return message

    return bounded


def containers(value: object) -> Iterator[dict | list]:
    """Yield all lists and objects in a value of JSON.

    Raises:
        Refused: they are nested deeper than any message needs; Gradio would reach Python's limit of recursion.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [entry for entry in level if isinstance(entry, (dict, list))]
        yield from level
        level = [part for entry in level for part in (entry.values() if isinstance(entry, dict) else entry)]
    if level:
        raise Refused(422, f"The message is nested more than {MAX_DEPTH} levels deep.")


def _check_announced(scope: Scope, limit: int) -> None:
    announced = header(scope, b"content-length") or "0"
    if not announced.isdecimal():
        raise Refused(400, "The header Content-Length is no number.")
    if int(announced) > limit:
        raise _too_large(limit)


def _too_large(limit: int) -> Refused:
    return Refused(413, f"The request has more than {limit / 1e6:.0f} MB, the limit here. Send less.")
