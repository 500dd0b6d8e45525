"""Who may speak to the server, on which routes, with how much; and what browsers may do with its answers."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from urllib.parse import unquote_to_bytes

from starlette.datastructures import MutableHeaders, QueryParams
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.service.http import Refused, bounded_form, header

LOCAL_HOSTS = ("localhost",)
MAX_UPLOAD_BYTES = 50 * 10**6
MAX_FORM_BYTES = MAX_UPLOAD_BYTES + 10**5  # with the form's own lines around the file
MAX_PATH, MAX_NAME = 4096, 255  # bytes of a path on Linux, and of one name in it
HOW_TO_UPLOAD = "Send files, each in a field `files`."
SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
UPLOAD = "/gradio_api/upload"
CLOSED = re.compile(
    "/gradio_api/(process_recording|vibe-|undo-vibe|proxy=|custom_component/|dev/|stream/|runs|run-history|profiling)"
    "|/gradio_api/file/"  # the old form of file=, which fetches addresses
    "|/(monitoring|login)(/|$)"
    "|/pwa_icon/"  # the page's icon as large as is asked for
)
"""Routes of Gradio that this page does not use: each is work or memory for whoever asks."""
EMBEDDERS = "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space"
POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval'",  # Gradio's templates, and gr.HTML's js_on_load
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",
    "font-src": "'self' data:",
    "connect-src": "'self' data: blob: https://huggingface.co",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": EMBEDDERS,
}
HEADERS = {
    "Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in POLICY.items()),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
}
ORIGIN = re.compile(r"https?://(([^/:@]+|\[[^/@\]]+\])(?::\d+)?)")
RANGE = re.compile(rb"bytes=\d{1,18}-\d{0,18}")
NO_CONTROLS = re.compile(rb"[^\x00-\x1f\x7f]*")


def allowed_hosts(environment: Mapping[str, str] = os.environ) -> frozenset[str]:
    """Return the names under which the server answers, lower case: those of ``STVIT_ALLOWED_HOSTS`` (separated by
    commas, ``*`` for all), of the Space (``SPACE_HOST``), and localhost. Addresses (127.0.0.1, [::1]) need no name: no
    foreign page has one for its own."""
    named = f"{environment.get('STVIT_ALLOWED_HOSTS', '')},{environment.get('SPACE_HOST', '')}".lower().split(",")
    return frozenset(filter(None, map(str.strip, named))) | frozenset(LOCAL_HOSTS)


class Closed:
    """Middleware that refuses foreign hosts and origins, routes that the page does not use, and bodies without bounds.

    Args:
        app: what it stands before.
        hosts: as :func:`allowed_hosts` returns them.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        self.app, self.hosts = app, hosts
        self.sites = frozenset(hosts) - frozenset(LOCAL_HOSTS)  # another port of localhost is another program

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        try:
            self.check(scope)
            if scope["path"] == UPLOAD:
                await self._upload(scope, bounded_form(scope, receive, MAX_FORM_BYTES), send_guarded)
            else:
                await self.app(scope, receive, send_guarded)
        except Refused as refused:
            await refused.answer()(scope, receive, send_guarded)

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def hold(message: Message) -> None:
            answer.append(message)

        try:
            await self.app(scope, receive, hold)
        except (AttributeError, TypeError):  # what Gradio meets in forms whose fields are no files
            raise Refused(400, f"The form has a field that is no file. {HOW_TO_UPLOAD}") from None
        except ValueError as error:  # of its parser, e.g. too long a boundary
            raise Refused(400, f"The form cannot be read: {error}.") from None
        if any(message.get("body") == b"[]" for message in answer):
            raise Refused(400, f"The form has no file, or breaks off. {HOW_TO_UPLOAD}")
        for message in answer:
            await send(message)

    def check(self, scope: Scope) -> None:
        """Check host, origin and path; takes out of the headers what only Gradio's own proxy may say, and ranges that
        Gradio cannot read (all is sent then), and off the path the prefix under which the page is served: routes are
        found with and without it.

        Raises:
            Refused: one of them is not welcome.
        """
        scope["headers"] = [
            (name, value)
            for name, value in scope["headers"]
            if name != b"x-gradio-server" and not (name == b"range" and not RANGE.fullmatch(value))
        ]
        if (prefix := scope.get("root_path")) and scope["path"].startswith(f"{prefix}/"):
            scope["path"] = scope["path"].removeprefix(prefix)
        for name in (b"host", b"x-forwarded-host"):
            told = header(scope, name)
            if (told is not None or name == b"host") and not self.is_welcome(told or ""):
                raise Refused(
                    421,
                    "This server does not answer under that name. Whoever runs it can add it to STVIT_ALLOWED_HOSTS.",
                )
        if scope["method"] not in SAFE_METHODS:
            self._check_origin(scope)
        if CLOSED.match(scope["path"]):
            raise Refused(404, "There is nothing at this address.")
        if scope["path"] == "/" and QueryParams(scope["query_string"]).get("page"):
            raise Refused(404, "There is one page only: leave `page` out.")
        raw = unquote_to_bytes(scope.get("raw_path", b""))
        if len(raw) > MAX_PATH or any(len(name) > MAX_NAME for name in raw.split(b"/")):
            raise Refused(414, "The address is too long.")
        if not NO_CONTROLS.fullmatch(raw):
            raise Refused(400, "The address has a character in it that no address can have.")

    def _check_origin(self, scope: Scope) -> None:
        origin = header(scope, b"origin")
        if origin is None:
            foreign = header(scope, b"sec-fetch-site") in ("cross-site", "same-site")
        else:
            match = ORIGIN.fullmatch(origin)
            here = (header(scope, b"host"), header(scope, b"x-forwarded-host"))
            foreign = match is None or (match[1] not in here and match[2].lower() not in self.sites)
        if foreign:
            raise Refused(403, "Requests from another site's page are refused. Open this page itself, or use its API.")

    def is_welcome(self, host: str) -> bool:
        """Whether the server answers under a name, or address, with or without a port."""
        match = re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]/?#@\\\s]+)(:\d{1,5})?", host)
        if match is None:
            return False
        name = match[1].lower().rstrip(".")
        return name in self.hosts or "*" in self.hosts or _is_address(name.strip("[]"))


def _is_address(name: str) -> bool:
    try:
        return bool(ip_address(name))
    except ValueError:
        return False
