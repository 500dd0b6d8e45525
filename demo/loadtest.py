"""Load a running page with scripts and visitors: ``python -m demo.loadtest --clients 100 --minutes 10``.

Scripts classify pictures one after the other. Beside them, visitors press the page's own button every second or so,
with its first models. Every answer to a script is compared with the one that the same picture got before, alone.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import os
import statistics
import time
from collections import Counter
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit
from uuid import uuid4

import httpx
import numpy as np

from demo.page.examples import load_examples

MODEL, BASELINE = "stvit_r_swin_small_224", "swin_small_patch4_window7_224"
CALL = "/gradio_api/call/classify"
TOLERANCE = 0.02  # of a probability: in bfloat16 a batch rounds otherwise than a picture alone
SAME_TOKENS = 0.9  # of an image's tokens, for the same reason
SIDES = ("model", "baseline")
VISITORS, PAUSE_S = 2, 1.0
TRIES_ALONE = 5
Answer = TypeVar("Answer")


@dataclass
class Figures:
    """What was seen.

    Attributes:
        scripts_s: from sending a script's picture to its answer.
        visitors_s: from the press of a visitor's button to its answer.
        overheads_s: of single requests on an idle page, over the time of both models.
        outcomes: number of right and wrong answers, refusals, and errors.
    """

    scripts_s: list[float] = field(default_factory=list)
    visitors_s: list[float] = field(default_factory=list)
    overheads_s: list[float] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)

    def report(self, seconds: float, before: float, after: float) -> str:
        """Write them as lines of text; memory in bytes."""
        answered = self.outcomes["right"] + self.outcomes["wrong"]
        return "\n".join(
            [
                f"answers          {answered} in {seconds:.0f} s: {answered / seconds:.1f} a second",
                f"wrong            {self.outcomes['wrong']}",
                f"refused, tried again  {self.outcomes['refused']}",
                f"errors           {self.outcomes['error']}",
                f"scripts wait     {_quantiles(self.scripts_s)}",
                f"visitors wait    {_quantiles(self.visitors_s)}, of {len(self.visitors_s)}",
                f"alone, over the time of the models  {_quantiles(self.overheads_s)}",
                f"resident memory  {before / 1e6:.0f} MB before, {after / 1e6:.0f} MB after",
            ]
        )


class LoadTest:
    """Clients of one page, whose answers are known.

    Args:
        http: a client of the page.
        pictures: files to send.
        pair: names of the model and its baseline.
    """

    def __init__(self, http: httpx.AsyncClient, pictures: Sequence[Path], pair: tuple[str, str]) -> None:
        self.http, self.pictures, self.pair = http, pictures, pair
        self.figures = Figures()
        self._uploaded: list[dict[str, Any]] = []
        self._known: list[dict[str, Any]] = []
        self._button, self._chosen = -1, []

    async def prepare(self) -> None:
        """Upload the pictures, and have each classified alone."""
        for path in self.pictures:
            answer = await self.http.post("/gradio_api/upload", files={"files": (path.name, path.read_bytes())})
            (uploaded,) = answer.raise_for_status().json()
            self._uploaded.append({"path": uploaded, "meta": {"_type": "gradio.FileData"}})
        for picture in self._uploaded:
            self._known.append(await self._classified(picture))
        for _ in range(TRIES_ALONE):
            start = time.perf_counter()
            document = await self._classified(self._uploaded[0])
            models_s = sum(document[side]["times_ms"]["model_ms"] for side in SIDES) / 1e3
            self.figures.overheads_s.append(time.perf_counter() - start - models_s)

    async def run(self, clients: int, seconds: float) -> str:
        """Load the page; returns the figures as text."""
        before, end = await self._memory(), time.monotonic() + seconds
        scripts = (self._script(number, end) for number in range(clients))
        visitors = (self._visitor(number, end) for number in range(VISITORS))
        start = time.monotonic()
        await asyncio.gather(*scripts, *visitors)
        return self.figures.report(time.monotonic() - start, before, await self._memory())

    async def find_button(self) -> None:
        """Find the function behind the page's Classify button, and what the page sends to it beside the picture."""
        config = (await self.http.get("/config")).json()
        parts = {part["id"]: part["props"] for part in config["components"]}
        self._button, inputs = next(
            (function["id"], function["inputs"])
            for function in config["dependencies"]
            if str(function["api_name"]).startswith("run") and parts[function["inputs"][0]].get("elem_id") == "picture"
        )
        self._chosen = [parts[part].get("value") for part in inputs[1:]]

    async def _script(self, number: int, end: float) -> None:
        while time.monotonic() < end:
            index, start = number % len(self._uploaded), time.perf_counter()
            if document := await self._tried(self._classified(self._uploaded[index])):
                self.figures.scripts_s.append(time.perf_counter() - start)
                self.figures.outcomes["right" if same(document, self._known[index]) else "wrong"] += 1
            number += 1

    async def _visitor(self, number: int, end: float) -> None:
        while time.monotonic() < end:
            start = time.perf_counter()
            if await self._tried(self._pressed(self._uploaded[number % len(self._uploaded)])):
                self.figures.visitors_s.append(time.perf_counter() - start)
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def _tried(self, request: Awaitable[Answer]) -> Answer | None:
        """Return the answer, or ``None`` where there is none; a refusal is waited out as it says."""
        try:
            return await request
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (429, 503):
                raise
            self.figures.outcomes["refused"] += 1
            await asyncio.sleep(float(error.response.headers["retry-after"]))
        except (httpx.TransportError, ValueError):
            self.figures.outcomes["error"] += 1
        return None

    async def _pressed(self, picture: dict[str, Any]) -> bool:
        """Press the page's button with a picture chosen; raises as ``_classified`` does."""
        session = uuid4().hex
        message = {"data": [picture, *self._chosen], "fn_index": self._button, "session_hash": session}
        (await self.http.post("/gradio_api/queue/join", json=message)).raise_for_status()
        lines = (await self.http.get("/gradio_api/queue/data", params={"session_hash": session})).text.splitlines()
        messages = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        if not any(message["msg"] == "process_completed" and message["success"] for message in messages):
            raise ValueError(lines)
        return True

    async def _classified(self, picture: dict[str, Any]) -> dict[str, Any]:
        """Classify a picture.

        Raises:
            ValueError: the server told an error.
            httpx.HTTPStatusError: it refused.
        """
        message = {"data": [picture, *self.pair]}
        call = (await self.http.post(CALL, json=message)).raise_for_status().json()["event_id"]
        lines = (await self.http.get(f"{CALL}/{call}")).raise_for_status().text.strip().splitlines()
        event, data = lines[-2:]
        if event != "event: complete":
            raise ValueError(data)
        return json.loads(data.removeprefix("data: "))[0]

    async def _memory(self) -> float:
        lines = (await self.http.get("/metrics")).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith("process_resident_memory_bytes"))


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two documents on the same picture say the same, within rounding: classes by their probabilities, token
    regions by the image tokens that belong to them."""
    return all(_same_classes(one[side], other[side]) and _same_regions(one[side], other[side]) for side in SIDES)


def _same_classes(one: dict[str, Any], other: dict[str, Any]) -> bool:
    first, second = (
        {entry["index"]: entry["probability"] for entry in answer["predictions"]} for answer in (one, other)
    )
    least = min([*first.values(), *second.values()], default=0.0)  # of the five that are told
    return all(abs(first.get(index, least) - second.get(index, least)) <= TOLERANCE for index in {*first, *second})


def _same_regions(one: dict[str, Any], other: dict[str, Any]) -> bool:
    layers = [answer["clusters"] + answer["reductions"] for answer in (one, other)]
    if len(layers[0]) != len(layers[1]):
        return False
    return all(
        np.mean(np.array(first["assignment"]) == np.array(second["assignment"])) >= SAME_TOKENS
        for first, second in zip(*layers, strict=True)
    )


def _quantiles(seconds: Sequence[float]) -> str:
    if len(seconds) < 2:
        return "not measured"
    ordered = sorted(seconds)
    return f"p50 {statistics.median(ordered):.3f} s, p95 {ordered[math.ceil(0.95 * len(ordered)) - 1]:.3f} s"


async def load(url: str, clients: int, seconds: float, pictures: Sequence[Path], pair: tuple[str, str]) -> LoadTest:
    """Load a page and print the figures; returns the test."""
    limits = httpx.Limits(max_connections=clients + 10)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as http:
        test = LoadTest(http, pictures, pair)
        await test.prepare()
        await test.find_button()
        print(await test.run(clients, seconds))
    return test


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(prog="python -m demo.loadtest", description=__doc__.partition("\n")[0])
    here = f"http://127.0.0.1:{os.environ.get('PORT', 7860)}"
    parser.add_argument("--url", default=here, help="of a page on this machine")
    parser.add_argument("--clients", type=int, default=100, help="scripts at the same time")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--baseline", default=BASELINE)
    chosen = parser.parse_args(arguments)
    host = urlsplit(chosen.url).hostname or ""
    if host != "localhost" and not (host[:1].isdecimal() and ip_address(host).is_loopback):
        parser.error("load only a page on this machine")
    pictures = [example.path for example in load_examples()]
    asyncio.run(load(chosen.url, chosen.clients, chosen.minutes * 60, pictures, (chosen.model, chosen.baseline)))


if __name__ == "__main__":
    main()
