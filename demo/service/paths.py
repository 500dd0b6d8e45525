"""Paths of files as visitors know them: within the folder of uploads, whose place on the server they are not told."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

import orjson
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.page.gradio_private import upload_folder
from demo.service.http import containers

FILES = "/gradio_api/file="
WITH_PATHS = ("application/json", "text/event-stream", "text/html")


def server_path(path: str) -> str:
    """Return where a file lies that visitors know by a path. Paths that lead elsewhere go on leading there: whoever
    opens a file checks that it is one of the uploads."""
    return str(upload_folder() / path) if path else path


def with_server_paths(body: bytes) -> bytes:
    """Replace the paths of files in a message, JSON that was checked, by those that Gradio knows."""
    if b'"path"' not in body:
        return body
    message = orjson.loads(body)
    for entry in containers(message):
        if isinstance(entry, dict) and isinstance(entry.get("path"), str):
            entry["path"] = server_path(entry["path"])
    return orjson.dumps(message)


class PublicPaths:
    """Middleware that leaves the folder of uploads out of all answers, and finds files whose addresses leave it out.

    It stands behind whatever compresses. Gradio sends each message of a stream whole, so that no path is cut in two.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        places = {str(place) for place in (upload_folder(), upload_folder().resolve())}
        self._hidden = [f"{place}/".encode() for place in {*places, *map(quote, places)}]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            if scope["path"].startswith(FILES):
                scope = {**scope, "path": FILES + server_path(scope["path"].removeprefix(FILES))}
            send = _Without(self._hidden, send)
        await self.app(scope, receive, send)


class _Without:
    """Sends an answer on without some bytes, where it is text that may have paths in it."""

    def __init__(self, hidden: Sequence[bytes], send: Send) -> None:
        self._hidden, self._send = hidden, send
        self._is_text = False
        self._start: Message | None = None  # not sent yet: its length is that of the body

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._is_text = MutableHeaders(scope=message).get("content-type", "").startswith(WITH_PATHS)
            if self._is_text:
                self._start = message
                return
        elif self._is_text and message["type"] == "http.response.body":
            await self._send_text(message)
            return
        await self._send(message)

    async def _send_text(self, message: Message) -> None:
        body, start = message.get("body", b""), self._start
        headers = MutableHeaders(scope=start) if start else {}
        if "content-length" in headers and message.get("more_body"):  # a file: those of the page have no such paths
            self._is_text = False
        else:
            for place in self._hidden:
                body = body.replace(place, b"")
            if "content-length" in headers:
                headers["content-length"] = str(len(body))
        if start:
            self._start = None
            await self._send(start)
        await self._send({**message, "body": body})
