"""A page as scripts and visitors reach it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import httpx

PATIENCE_S = 120.0  # for one answer
FileData = dict[str, Any]
Answer = TypeVar("Answer")


class NoAnswer(ValueError):
    """The server told an error, or nothing for ``PATIENCE_S``."""


async def patiently(request: Awaitable[Answer], seconds: float = PATIENCE_S) -> Answer:
    """Wait for an answer; a server that only says that it lives is not waited for longer.

    Raises:
        NoAnswer: it did not come.
    """
    try:
        return await asyncio.wait_for(request, seconds)
    except asyncio.TimeoutError:
        raise NoAnswer(f"no answer within {seconds:.0f} s") from None


class RemotePage:
    """Calls of one page.

    Every call raises :class:`NoAnswer`, and ``httpx.HTTPStatusError`` where it is refused.

    Args:
        http: a client of the page.

    Attributes:
        engine: of calls that run models.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self.http, self.engine = http, "auto"
        self._button, self._values, self._place = -1, [], 0

    async def upload(self, path: Path) -> FileData:
        """Upload a file; returns it as a call takes it."""
        answer = await self.http.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
        (uploaded,) = answer.raise_for_status().json()
        return {"path": uploaded, "meta": {"_type": "gradio.FileData"}}

    async def call(self, name: str, *data: Any) -> list[Any]:
        """Call a function of the API; returns its last results."""
        return await patiently(self._called(f"/gradio_api/call/{name}", list(data)))

    async def run(self, name: str, picture: FileData, *chosen: Any) -> list[Any]:
        """Call a function of the API that runs models, on an engine."""
        return await self.call(name, picture, *chosen, self.engine)

    async def press(self, picture: FileData) -> None:
        """Press the page's button with a picture chosen."""
        await patiently(self._pressed(picture))

    async def find_button(self) -> None:
        """Find the function behind Classify's button, what the page sends to it, and where the picture stands."""
        config = (await self.http.get("/config")).json()
        parts = {part["id"]: part["props"] for part in config["components"]}
        picture = next(number for number, props in parts.items() if props.get("elem_id") == "picture")
        self._button, inputs = next(
            (function["id"], function["inputs"])
            for function in config["dependencies"]
            if str(function["api_name"]).startswith("run") and picture in function["inputs"]
        )
        self._values = [parts[part].get("value") for part in inputs]
        self._place = inputs.index(picture)

    async def metrics(self) -> dict[str, float]:
        """Return the page's figures."""
        lines = (await self.http.get("/metrics")).text.splitlines()
        return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}

    async def _called(self, address: str, data: list[Any]) -> list[Any]:
        call = (await self.http.post(address, json={"data": data})).raise_for_status().json()["event_id"]
        lines = (await self.http.get(f"{address}/{call}")).raise_for_status().text.strip().splitlines()
        event, told = lines[-2:]
        if event != "event: complete":
            raise NoAnswer(told)
        return json.loads(told.removeprefix("data: "))

    async def _pressed(self, picture: FileData) -> None:
        session = uuid4().hex
        values = [picture if place == self._place else value for place, value in enumerate(self._values)]
        message = {"data": values, "fn_index": self._button, "session_hash": session}
        (await self.http.post("/gradio_api/queue/join", json=message)).raise_for_status()
        lines = (await self.http.get("/gradio_api/queue/data", params={"session_hash": session})).text.splitlines()
        messages = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        if not any(message["msg"] == "process_completed" and message["success"] for message in messages):
            raise NoAnswer(str(messages[-1:])[:200])
