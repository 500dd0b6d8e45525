"""What the server puts around the page: the tags of a shared link, thumbnails, compression."""

from __future__ import annotations

import asyncio
import gzip
import re
from collections.abc import Callable
from pathlib import Path

import brotli
import gradio
import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route
from starlette.testclient import TestClient

from demo.page.document import CARD, FAVICON, TITLE, middleware, routes, with_own_tags

TEMPLATE = Path(gradio.__file__).parent / "templates" / "frontend" / "index.html"


def answer(path: str, headers: dict[str, str] | None = None, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    """What a server with these routes and middleware, and Gradio's document at its root, answers."""

    async def document(request: object) -> Response:
        return HTMLResponse(TEMPLATE.read_text(encoding="utf-8"))

    app = Starlette(routes=[Route("/", document), *routes()], middleware=middleware())
    sent: list[dict] = []

    async def send(message: dict) -> None:
        sent.append(message)

    async def receive() -> dict:
        return {"type": "http.request", "body": b"", "more_body": False}

    raw = [(name.lower().encode(), value.encode()) for name, value in {"Host": "stvit.test", **(headers or {})}.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": raw}
    scope |= {"query_string": b"", "scheme": "http", "server": ("stvit.test", 80), "root_path": ""}
    asyncio.run(app(scope, receive, send))
    start = next(message for message in sent if message["type"] == "http.response.start")
    answered = {name.decode(): value.decode() for name, value in start["headers"]}
    return start["status"], answered, b"".join(message.get("body", b"") for message in sent)


def test_a_shared_link_shows_this_page_and_nothing_of_gradios_own() -> None:
    _, headers, body = answer("/", {"X-Forwarded-Host": "studio.test", "X-Forwarded-Proto": "https"})
    text = body.decode()
    named = dict(re.findall(r'<meta (?:property|name)="([\w:]+)" content="([^"]*)"', text))
    assert named["og:title"] == named["twitter:title"] == TITLE and f"<title>{TITLE}</title>" in text
    assert named["og:image"] == named["twitter:image"] == "https://studio.test/card.jpg"
    assert named["og:url"] == "https://studio.test/" and 50 < len(named["description"]) < 250
    assert text.count("og:title") == 1 and "@Gradio" not in text and "Click to try out the app" not in text
    assert text.index("<meta charset") < 1024 and headers["content-length"] == str(len(body))


def test_what_is_no_document_is_left_alone() -> None:
    message = {"type": "http.response.body", "body": b'{"detail": "Not Found"}'}
    assert with_own_tags(message, "http://stvit.test") == message


@pytest.mark.parametrize(("name", "decompress"), [("br", brotli.decompress), ("gzip", gzip.decompress)])
def test_the_document_is_compressed_for_those_who_read_it_so(name: str, decompress: Callable[[bytes], bytes]) -> None:
    _, headers, body = answer("/", {"Accept-Encoding": f"deflate, {name}"})
    assert headers["content-encoding"] == name and TITLE in decompress(body).decode()
    assert headers["content-length"] == str(len(body))
    assert "content-encoding" not in answer("/")[1]


def test_the_picture_and_the_icon_of_the_page_are_there() -> None:
    with Image.open(CARD) as picture:
        assert picture.size == (1200, 630)
    status, headers, body = answer("/card.jpg")
    assert (status, headers["content-type"], len(body)) == (200, "image/jpeg", CARD.stat().st_size)
    assert FAVICON.read_text().startswith("<svg")


def test_scripts_are_read_and_compressed_once_and_kept_by_browsers() -> None:
    asked: list[str] = []

    def script(request: Request) -> Response:
        asked.append(request.path_params["name"])
        known = request.path_params["name"] == "Index-0aNuD791.js"
        return Response("let a;" * 1000 if known else "", 200 if known else 404, media_type="text/javascript")

    client = TestClient(Starlette(routes=[Route("/assets/{name}", script)], middleware=middleware()))
    for _ in range(2):
        answered = client.get("/assets/Index-0aNuD791.js", headers={"Accept-Encoding": "gzip, br"})
        assert answered.text == "let a;" * 1000 and "immutable" in answered.headers["cache-control"]
        assert answered.headers["content-encoding"] == "br" and int(answered.headers["content-length"]) < 100
    assert len(asked) == 1
    for _ in range(2):
        assert client.get("/assets/Index-00000000.js", headers={"Accept-Encoding": "br"}).status_code == 404
        plain = client.get("/assets/Index-0aNuD791.js", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers and plain.text == "let a;" * 1000
    assert len(asked) == 5


def test_who_is_lost_is_led_back_and_programs_are_told_in_json() -> None:
    status, headers, body = answer(
        "/thumbnails/none.jpg", {"Accept": "text/html,*/*", "X-Forwarded-Host": "studio.test"}
    )
    assert (status, headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert '<a href="http://studio.test/">Open STViT Studio</a>' in body.decode()
    assert answer("/thumbnails/none.jpg", {"Accept": "*/*"})[1]["content-type"] == "application/json"
    assert TITLE in answer("/", {"Accept": "text/html"})[2].decode()


@pytest.mark.parametrize("name", ["bison.jpg", "dress.jpg", "clockwise.jpg"])
def test_examples_have_small_pictures_that_browsers_keep(name: str) -> None:
    status, headers, body = answer(f"/thumbnails/{name}")
    assert (status, headers["content-type"]) == (200, "image/jpeg") and 1_000 < len(body) < 20_000
    assert "max-age" in headers["cache-control"]


@pytest.mark.parametrize("name", ["app.py", "..%2Fbison.jpg", "licences.json", "BISON.jpg"])
def test_nothing_but_examples_has_a_small_picture(name: str) -> None:
    assert answer(f"/thumbnails/{name}")[0] == 404
