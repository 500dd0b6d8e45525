"""The HTML document around the page: what a shared link shows, thumbnails, compression, and a way back for who is
lost."""

from __future__ import annotations

import re
from html import escape
from pathlib import Path
from string import Template

from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from demo.page.assets import KeptAssets
from demo.page.examples import all_examples, thumbnail
from demo.page.gradio_private import address_of, brotli_compressed

ASSETS = Path(__file__).resolve().parents[2] / "assets"
FAVICON = ASSETS / "favicon.svg"
LOST = Template((Path(__file__).resolve().parent / "lost.html").read_text(encoding="utf-8"))
CARD = ASSETS / "card.jpg"  # 1200 x 630, as networks show it beside a link
TITLE = "STViT Studio: vision with 16 tokens instead of 196"
DESCRIPTION = (
    "Drop a picture and see a vision transformer replace its 196 image tokens by 16 semantic ones: what each token "
    "looks at, both models' answers, and the speed measured on the spot."
)
GRADIOS_TAGS = re.compile(r'<meta\s+(?:property="og:|name="twitter:)[^>]*>')
COMPRESSION_LEVEL = 6
A_DAY = {"Cache-Control": "public, max-age=86400"}


def routes() -> list[Route]:
    """List what the server answers beside Gradio's own addresses."""
    pictures = {f"{path.stem}.jpg": path for path in all_examples()}

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "ok"})

    def small_picture(request: Request) -> Response:
        path = pictures.get(request.path_params["name"])
        if path is None:
            return JSONResponse({"detail": "There is no such example."}, 404)
        return Response(thumbnail(path), media_type="image/jpeg", headers=A_DAY)

    async def card(request: Request) -> Response:
        return Response(CARD.read_bytes(), media_type="image/jpeg", headers=A_DAY)

    return [
        Route("/health", health),
        Route("/thumbnails/{name}", small_picture),
        Route("/card.jpg", card),
    ]


def middleware() -> list[Middleware]:
    """List what the server's answers go through, the last first."""
    return [
        Middleware(Compressed, compresslevel=COMPRESSION_LEVEL),
        Middleware(KeptAssets),
        Middleware(SharedDocument),
        Middleware(WayBack),
    ]


class Compressed(GZipMiddleware):
    """Compresses what Gradio leaves as it is: it judges by the suffix of an address, and the document has none. The
    document, in which scripts stand twice, becomes much smaller by Brotli."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        suffix = "." in scope.get("path", "").rpartition("/")[2]
        if scope["type"] == "http" and scope["path"] == "/" and "br" in Headers(scope=scope).get("accept-encoding", ""):
            await brotli_compressed(self.app)(scope, receive, send)
        else:
            await (self.app if suffix else super().__call__)(scope, receive, send)


class SharedDocument:
    """Puts title, description and picture of this page into the document in place of Gradio's.

    They have to be in the HTML as it is sent: who shows a preview of a link runs no scripts.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        start: list[Message] = []

        async def send_document(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.append(message)
                return
            if start:
                message, begun = with_own_tags(message, address_of(Request(scope))), start.pop()
                headers = [entry for entry in begun["headers"] if entry[0].lower() != b"content-length"]
                if scope["method"] == "GET":
                    headers.append((b"content-length", str(len(message["body"])).encode()))
                await send({**begun, "headers": headers})
            await send(message)

        await self.app(scope, receive, send_document)


class WayBack:
    """Shows a page that leads back to who opens an address where nothing is in a browser; programs get the answer as
    it is."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or "text/html" not in Headers(scope=scope).get("accept", ""):
            await self.app(scope, receive, send)
            return
        lost = False

        async def lead_back(message: Message) -> None:
            nonlocal lost
            if message["type"] == "http.response.start" and message["status"] == 404:
                lost = True
                page = LOST.substitute(address=escape(address_of(Request(scope))))
                await HTMLResponse(page, 404)(scope, receive, send)
            elif not lost:
                await send(message)

        await self.app(scope, receive, lead_back)


def with_own_tags(message: Message, address: str) -> Message:
    """Replace Gradio's tags in the body of a message; anything but a document stays as it is.

    Args:
        address: of the page, without a slash at its end.
    """
    head, script, rest = message.get("body", b"").decode("utf-8").partition("<script")
    if "<head>" not in head:
        return message
    return {**message, "body": f"{GRADIOS_TAGS.sub('', head)}{_tags(address)}{script}{rest}".encode()}


def _tags(address: str) -> str:
    picture = f"{address}/card.jpg"
    named = {
        "og:title": TITLE,
        "og:description": DESCRIPTION,
        "og:type": "website",
        "og:url": f"{address}/",
        "og:image": picture,
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": "A picture in 196 squares, and the same picture as 16 tokens",
    }
    twitter = {"twitter:card": "summary_large_image", "twitter:title": TITLE, "twitter:description": DESCRIPTION}
    return (
        f'<title>{escape(TITLE)}</title><meta name="description" content="{escape(DESCRIPTION)}">'
        + "".join(f'<meta property="{name}" content="{escape(value)}">' for name, value in named.items())
        + "".join(f'<meta name="{name}" content="{escape(value)}">' for name, value in twitter.items())
        + f'<meta name="twitter:image" content="{escape(picture)}">'
    )
