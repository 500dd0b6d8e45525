"""Gradio's scripts and styles, compressed once and kept: Gradio would read and compress them for every visitor."""

from __future__ import annotations

import re
from dataclasses import dataclass

import brotli
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

NAMED_BY_CONTENT = re.compile(r"/assets/[\w.-]+-[\w-]{8}\.(js|css)")  # so a browser never asks for one twice
FOREVER = "public, max-age=31536000, immutable"
QUALITY = 9  # of 11, above which a file takes seconds


@dataclass(frozen=True)
class Kept:
    """A file as it is sent: its headers, and its content, compressed."""

    headers: list[tuple[bytes, bytes]]
    body: bytes


class KeptAssets:
    """Middleware that answers for these files itself, to whoever reads Brotli. It keeps as many as Gradio has."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._kept: dict[str, Kept] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        if scope["type"] != "http" or scope["method"] != "GET" or not NAMED_BY_CONTENT.fullmatch(path):
            await self.app(scope, receive, send)
            return
        asked = Headers(scope=scope)
        if "br" not in asked.get("accept-encoding", "") or "range" in asked:
            await self.app(scope, receive, send)
            return
        if path not in self._kept:
            messages: list[Message] = []

            async def collect(message: Message) -> None:
                messages.append(message)

            await self.app(scope, receive, collect)
            if messages[0]["status"] != 200:  # there is no such file, or the browser has it
                for message in messages:
                    await send(message)
                return
            self._kept[path] = await run_in_threadpool(_compressed, messages)
        kept = self._kept[path]
        await send({"type": "http.response.start", "status": 200, "headers": list(kept.headers)})
        await send({"type": "http.response.body", "body": kept.body})


def _compressed(messages: list[Message]) -> Kept:
    body = brotli.compress(b"".join(message.get("body", b"") for message in messages[1:]), quality=QUALITY)
    headers = MutableHeaders(raw=list(messages[0]["headers"]))
    headers["Content-Encoding"], headers["Content-Length"] = "br", str(len(body))
    headers["Cache-Control"] = FOREVER
    headers.add_vary_header("Accept-Encoding")
    return Kept(headers.raw, body)
