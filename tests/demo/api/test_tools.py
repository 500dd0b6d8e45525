"""The tools of MCP, asked by a real client; what holds for other calls holds for theirs."""

from __future__ import annotations

import json
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import anyio
import httpx
import pytest
from gradio_client import Client
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.types import CallToolResult

from demo.page.examples import garment_examples
from demo.page.gradio_private import upload_folder
from demo.service import calls, queues
from tests.demo.api.conftest import Served

SHIRT = garment_examples("classify")[0].path
PICTURE = f"data:image/jpeg;base64,{b64encode(SHIRT.read_bytes()).decode()}"
MODEL = "garments_stvit_r_swin"
LIST = {"jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {}}
ACCEPT = {"accept": "application/json, text/event-stream"}
Found = TypeVar("Found")

pytestmark = pytest.mark.slow


def ask(client: Client, question: Callable[[ClientSession], Awaitable[Found]]) -> Found:
    """Open a session, ask one thing, and close it."""

    async def asked() -> Found:
        with anyio.fail_after(60):
            async with (
                streamable_http_client(address(client)) as (read, write, _),
                ClientSession(read, write) as session,
            ):
                await session.initialize()
                return await question(session)

    return anyio.run(asked)


def call(client: Client, name: str, arguments: dict[str, Any]) -> CallToolResult:
    return ask(client, lambda session: session.call_tool(name, arguments))


def address(client: Client) -> str:
    return f"{client.src}gradio_api/mcp/"


def test_the_tools_are_the_endpoints_with_their_parameters_described(offline: Client) -> None:
    tools = {tool.name: tool for tool in ask(offline, lambda session: session.list_tools()).tools}
    endpoints = offline.view_api(return_format="dict", print_info=False)["named_endpoints"]
    assert {f"/{name}" for name in tools} == set(endpoints)
    classify = tools["classify"]
    assert "Top-5 classes" in classify.description and "data URL" in classify.description
    assert classify.inputSchema["required"] == ["image"]
    assert {value["type"] for value in classify.inputSchema["properties"].values()} == {"string"}
    assert classify.inputSchema["properties"]["model"]["default"] == MODEL
    parameters = [entry for tool in tools.values() for entry in tool.inputSchema["properties"].values()]
    assert all(len(entry["description"]) > 10 for entry in parameters)


def test_a_picture_is_classified(offline: Client) -> None:
    answer = call(offline, "classify", {"image": PICTURE})
    assert not answer.isError
    told = json.loads(answer.content[0].text)
    assert told["model"]["name"] == MODEL and len(told["model"]["predictions"]) == 5


def test_a_picture_that_was_uploaded_is_drawn_on(offline: Client) -> None:
    with SHIRT.open("rb") as file:
        (path,) = httpx.post(f"{offline.src}gradio_api/upload", files={"files": file}).json()
    answer = call(offline, "annotate", {"image": f"{offline.src}gradio_api/file={path}"})
    assert not answer.isError and answer.content[0].type == "image", answer.content


@pytest.mark.parametrize(
    ("name", "arguments", "words"),
    [
        ("classify", {"image": PICTURE, "model": "resnet50"}, "is not offered here"),
        ("classify", {"image": "data:image/jpeg;base64,a"}, "cannot be decoded"),
        ("classify", {"image": "data:image/jpeg;base64,aaaa"}, "not an image"),
        ("classify", {"image": "shirt.jpg"}, "neither a data URL nor a file that was sent here"),
        ("classify", {"image": "https://example.org/a.jpg"}, "neither a data URL nor a file that was sent here"),
        ("classify", {"image": "http://localhost/gradio_api/file=/etc/hostname"}, "send it as an uploaded file"),
        ("classify", {"image": "http://localhost/gradio_api/file=%2Fetc%2Fhostname"}, "send it as an uploaded file"),
        ("classify", {"image": {"path": "/etc/hostname", "meta": {"_type": "gradio.FileData"}}}, "not of type"),
        ("classify", {"image": PICTURE, "model": {"path": "/etc/hostname"}}, "not of type"),
        ("classify?", {}, "Unknown tool"),
        ("detect", {"image": PICTURE, "short_side": 801}, "Choose one of 800"),
        ("compare_architecture", {"architecture": "resnet50"}, "is no VisionTransformer, Eva or SwinTransformer"),
        ("compare_architecture", {"architecture": "vit_small_r26_s32_224"}, "convolutional hybrid"),
        ("compare_architecture", {"architecture": "test_vit", "tokens": 10}, "10 is no square number"),
        ("compare_architecture", {"architecture": "test_vit", "batch_size": 3}, "A batch of 3 is not offered here"),
        ("run", {}, "Unknown tool"),
    ],
)
def test_what_cannot_be_answered_gets_a_sentence(offline: Client, name: str, arguments: dict, words: str) -> None:
    answer = call(offline, name, arguments)
    assert answer.isError and words in answer.content[0].text, answer.content
    assert not list(upload_folder().rglob("hostname"))


def test_a_full_queue_is_full_for_tools_too(offline: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(queues.WAITING, "api", (0, 0))
    answer = call(offline, "classify", {"image": PICTURE})
    assert answer.isError and "Queue is full" in answer.content[0].text, answer.content


def post(client: Client, message: dict, **headers: str) -> httpx.Response:
    return httpx.post(address(client), json=message, headers={**ACCEPT, **headers}, timeout=60)


def test_foreign_hosts_and_pages_and_long_messages_are_refused(offline: Client) -> None:
    assert post(offline, LIST).status_code == 200
    assert post(offline, LIST, host="evil.example").status_code == 421
    assert post(offline, LIST, origin="https://evil.example").status_code == 403
    assert post(offline, {**LIST, "more": "a" * calls.MAX_JSON_BYTES}).status_code == 413


def test_nothing_stays_open_that_does_not_wait_for_an_answer(offline: Client) -> None:
    assert httpx.get(address(offline), headers=ACCEPT).status_code == 405
    for path in ("sse", "messages/?session_id=1"):
        assert httpx.get(f"{address(offline)}{path}").status_code == 404


def test_calls_that_wait_are_counted_and_leave_the_queue_with_their_caller(
    offline: Client, served_offline: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "MAX_TOOL_CALLS", 1)
    queue = served_offline.page._queue
    own = queue.event_queue_per_concurrency_id["api"]
    monkeypatch.setattr(own, "current_concurrency", own.concurrency_limit)
    asked = {"name": "classify", "arguments": {"image": PICTURE}}

    def leave() -> None:
        with pytest.raises(httpx.ReadTimeout):
            message = {**LIST, "method": "tools/call", "params": asked}
            httpx.post(address(offline), json=message, headers=ACCEPT, timeout=5)

    with ThreadPoolExecutor(1) as pool:
        left = pool.submit(leave)
        until(lambda: own.queue, "the call in the queue")
        assert post(offline, LIST).status_code == 429
        left.result(30)
    until(lambda: not own.queue, "an empty queue, the caller having gone")
    until(lambda: post(offline, LIST).status_code == 200, "room for another call")


def until(seen: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < deadline, f"waited for: {what}"
        time.sleep(0.1)
