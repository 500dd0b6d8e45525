"""Scripts and visitors of one page, whose answers are known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from demo.benchmark import BATCH_SIZES
from demo.loadtest.figures import SIDES, Figures, same
from demo.loadtest.page import FileData, NoAnswer, RemotePage, patiently

VISITORS, PAUSE_S = 2, 1.0
TRIES_ALONE = 10
LOOK_EVERY_S = 15.0
Job = Callable[[int], Awaitable[Any]]


class LoadTest:
    """Clients of one page.

    Args:
        page: that is loaded.
        pictures: files to send.
        pair: names of the model and its baseline.
        say: gets a line about every step.
    """

    def __init__(
        self,
        page: RemotePage,
        pictures: Sequence[Path],
        pair: tuple[str, str],
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.page, self.pictures, self.pair, self.say = page, pictures, pair, say
        self.figures = Figures()
        self._uploaded: list[FileData] = []
        self._known: list[dict[str, Any]] = []

    async def prepare(self) -> None:
        """Upload the pictures, have each classified alone, and measure the time that a single request adds.

        Raises:
            NoAnswer: the page does not answer even so.
        """
        self.say(f"{len(self.pictures)} pictures alone, for comparison")
        await self.page.find_button()
        self._uploaded = [await self.page.upload(path) for path in self.pictures]
        for picture in self._uploaded:
            self._known += await self.page.run("classify", picture, *self.pair)
        for _ in range(TRIES_ALONE):
            start = time.perf_counter()
            (document,) = await self.page.run("classify", self._uploaded[0], *self.pair)
            models_s = sum(document[side]["times_ms"]["model_ms"] for side in SIDES) / 1e3
            self.figures.overheads_s.append(time.perf_counter() - start - models_s)

    async def run(self, clients: int, seconds: float, *, mixed: bool = False) -> str:
        """Load the page; returns the figures as text.

        Args:
            clients: scripts at the same time.
            mixed: scripts do all that the API offers in turns, with pictures that they upload each time, beside
                comparisons and clips.
        """
        self.say(f"{clients} scripts and {VISITORS} visitors for {seconds:.0f} s")
        before, start = await self.page.metrics(), time.monotonic()
        self._see_memory(start, before)
        end = start + seconds
        jobs = await self._all_jobs() if mixed else [self._classify]
        works = [self._script(jobs, number, end) for number in range(clients)]
        works += [self._visitor(number, end) for number in range(VISITORS)]
        works += [self._script([job], 0, end) for job in (await self._long_jobs() if mixed else [])]
        watching = asyncio.create_task(self._watch(start))
        await asyncio.gather(*works)
        watching.cancel()
        took, after = time.monotonic() - start, await self.page.metrics()
        self._see_memory(start, after)
        batches = after["stvit_batch_size_count"] - before["stvit_batch_size_count"]
        pictures = after["stvit_batch_size_sum"] - before["stvit_batch_size_sum"]
        self.figures.batch_size = pictures / max(batches, 1)
        return self.figures.report(took)

    async def measure_alone(self) -> None:
        """Measure the models alone in batches as large as those under load, by the page's own comparison.

        Raises:
            NoAnswer, httpx.HTTPStatusError: the page does not.
        """
        batch = max(size for size in BATCH_SIZES if size <= max(self.figures.batch_size, 1))
        self.say(f"the models alone, in batches of {batch}")
        (document,) = await self.page.run("compare", self._uploaded[0], *self.pair, batch)
        self.figures.alone_s = sum(1 / document[side]["images_per_second"] for side in SIDES)

    async def _script(self, jobs: Sequence[Job], number: int, end: float) -> None:
        for turn in count(number):
            if time.monotonic() >= end:
                return
            start = time.perf_counter()
            if await self._tried(jobs[turn % len(jobs)](turn)):
                self.figures.scripts_s.append(time.perf_counter() - start)

    async def _visitor(self, number: int, end: float) -> None:
        while time.monotonic() < end:
            start = time.perf_counter()
            if await self._tried(self.page.press(self._uploaded[number % len(self._uploaded)])):
                self.figures.visitors_s.append(time.perf_counter() - start)
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def _tried(self, request: Awaitable[object]) -> bool:
        """Whether there is an answer; a refusal is waited out as it says."""
        try:
            await request
            return True
        except httpx.HTTPStatusError as error:
            if error.response.status_code not in (429, 503):
                raise
            wait_s = float(error.response.headers["retry-after"])
            self.figures.outcomes["refused"] += 1
            self.figures.told_s.append(wait_s)
            await asyncio.sleep(wait_s)
        except (httpx.TransportError, NoAnswer) as error:
            self.figures.outcomes["error"] += 1
            self.figures.problems[f"{type(error).__name__} {str(error)[:80]}".strip()] += 1
        return False

    async def _classify(self, turn: int) -> None:
        index = turn % len(self._uploaded)
        (document,) = await self.page.run("classify", self._uploaded[index], *self.pair)
        self._count(document)
        self.figures.outcomes["right" if same(document, self._known[index]) else "wrong"] += 1

    def _count(self, document: dict[str, Any]) -> None:
        self.figures.engines.update(document[side]["engine"] for side in SIDES)

    async def _all_jobs(self) -> list[Job]:
        """What scripts do in a mixed test: the calls for pictures, each with a file of its own."""
        bundled = await self._bundled()
        chosen: list[tuple[str, tuple[Any, ...]]] = [("annotate", (self.pair[0], 0, "", 0)), ("classify", self.pair)]
        if "detector" in bundled:
            chosen.append(("detect", (bundled["detector"], 320)))
        if "segmenter" in bundled:
            chosen.append(("segment", (bundled["segmenter"],)))

        def job(name: str, more: tuple[Any, ...]) -> Job:
            async def run(turn: int) -> None:
                picture = await self.page.upload(self.pictures[turn % len(self.pictures)])
                await self.page.run(name, picture, *more)
                self.figures.outcomes["unchecked"] += 1

            return run

        return [self._classify, *(job(name, more) for name, more in chosen)]

    async def _long_jobs(self) -> list[Job]:
        async def compare(turn: int) -> None:
            await self.page.run("compare", self._uploaded[0], *self.pair, BATCH_SIZES[turn % 3])

        return [compare]

    async def _bundled(self) -> dict[str, str]:
        """Names of the models that come with the page, the first of each role."""
        (models,) = await self.page.call("models")
        ours = [model for model in models if model["weights"] == "bundled with this page"]
        return {model["role"]: model["name"] for model in reversed(ours)}

    async def _watch(self, start: float) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            with suppress(httpx.TransportError, NoAnswer):
                self._see_memory(start, await patiently(self.page.metrics(), LOOK_EVERY_S))

    def _see_memory(self, start: float, metrics: dict[str, float]) -> None:
        seconds, size = time.monotonic() - start, metrics["process_resident_memory_bytes"]
        self.figures.memory.append((seconds, size))
        self.say(f"{seconds:6.0f} s  {size / 1e6:.0f} MB resident, {len(self.figures.scripts_s)} answers")
