"""Scripts and visitors of one page, whose answers are known."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx

from demo.benchmark import BATCH_SIZES
from demo.loadtest.figures import SIDES, Alone, Figures, same
from demo.loadtest.page import Answer, FileData, NoAnswer, RemotePage, patiently
from demo.runtime import API_QUEUE, DEVICE_QUEUE
from demo.service.queues import WAITING
from demo.video import CLUSTERS, NO_BASELINE

CLIP = Path(__file__).resolve().parents[2] / "assets" / "clips" / "castle.mp4"
VISITORS, PAUSE_S = 2, 1.0
TRIES_ALONE = 50
LOOK_EVERY_S = 15.0
REST_S = 30.0  # longer than the page waits before it returns freed memory
USUAL_BATCH = 8  # before the load, when its batches are not known yet
BEYOND = 40  # requests more than find room
Job = Callable[[int], Awaitable[Any]]


class LoadTest:
    """Clients of one page.

    Args:
        page: that is loaded.
        pictures: files to send.
        pair: names of the model and its baseline.
        clip: file to send where all kinds of calls are made.
        say: gets a line about every step.
    """

    def __init__(
        self,
        page: RemotePage,
        pictures: Sequence[Path],
        pair: tuple[str, str],
        clip: Path = CLIP,
        say: Callable[[str], object] = lambda line: None,
    ) -> None:
        self.page, self.pictures, self.pair, self.clip, self.say = page, pictures, pair, clip, say
        self.figures = Figures()
        self._uploaded: list[FileData] = []
        self._known: list[dict[str, Any]] = []

    async def upload(self) -> None:
        """Upload the pictures.

        Raises:
            NoAnswer: the page does not take them.
        """
        await self.page.find_button()
        self._uploaded = [await self.page.upload(path) for path in self.pictures]

    async def learn(self, tries: int = TRIES_ALONE) -> None:
        """Have each picture classified alone, and measure the time that a single request adds to that of its models.

        Raises:
            NoAnswer: the page does not answer even so.
        """
        self.say(f"{len(self.pictures)} pictures alone, for comparison")
        for picture in self._uploaded:
            self._known += await self.page.run("classify", picture, *self.pair)
        for _ in range(tries):
            whole_s, (document,) = await _timed(self.page.run("classify", self._uploaded[0], *self.pair))
            call_s, _ = await _timed(self.page.call("models"))
            times_ms = [document[side]["times_ms"] for side in SIDES]
            opened_s = (times_ms[0]["decode_ms"] + times_ms[0]["preprocess_ms"]) / 1e3
            models_s = sum(times["model_ms"] for times in times_ms) / 1e3
            self.figures.single_s["decode and prepare"].append(opened_s)
            self.figures.single_s["HTTP and queue (a call without a model)"].append(call_s)
            self.figures.single_s["all else"].append(whole_s - models_s - opened_s - call_s)

    async def run(self, clients: int, seconds: float, *, mixed: bool = False) -> float:
        """Load the page; returns how long it took, with the answers to what was asked last.

        Args:
            clients: scripts at the same time.
            mixed: scripts do all that the API offers in turns, with pictures that they upload each time, beside
                comparisons and clips.
        """
        self.say(f"{clients} scripts and {VISITORS} visitors for {seconds:.0f} s")
        before, start = await self.page.metrics(), time.monotonic()
        self._see_memory(start, before)
        end = start + seconds
        jobs, scripts_s = await self._all_jobs() if mixed else [self._classify], self.figures.scripts_s
        works = [self._script(jobs, number, end, scripts_s) for number in range(clients)]
        works += [self._visitor(number, end) for number in range(VISITORS)]
        works += [self._script([job], 0, end, self.figures.long_s) for job in (self._long_jobs() if mixed else [])]
        watching = asyncio.create_task(self._watch(start))
        await asyncio.gather(*works)
        watching.cancel()
        took, after = time.monotonic() - start, await self.page.metrics()
        self._see_memory(start, after)
        batches = after["stvit_batch_size_count"] - before["stvit_batch_size_count"]
        pictures = after["stvit_batch_size_sum"] - before["stvit_batch_size_sum"]
        self.figures.batch_size = pictures / max(batches, 1)
        return took

    async def measure_alone(self) -> Alone:
        """Measure the models alone in batches as large as those under load, by the page's own comparison. It waits for
        the page's choice of an engine; whatever is asked from then on runs both models on that one too.

        Raises:
            NoAnswer, httpx.HTTPStatusError: the page does not.
        """
        mean = USUAL_BATCH if math.isnan(self.figures.batch_size) else max(self.figures.batch_size, 1.0)
        batch = min(BATCH_SIZES, key=lambda size: abs(math.log(size / mean)))
        self.say(f"the models alone, in batches of {batch}")
        (document,) = await self.page.run("compare", self._uploaded[0], *self.pair, batch)
        self.page.engine = document["engine_batched"]
        picture_s = sum(1 / document[side]["images_per_second"] for side in SIDES)
        return Alone(document["batch_size"], document["engine_batched"], picture_s)

    async def overfill(self) -> None:
        """Ask at once for as much as may wait, as scripts and as visitors, and then for more: those who are refused are
        told how long it takes until all others have their answers, which is compared with how long it took."""
        self.say("more requests than may wait")
        picture, (of_page, _), (_, of_scripts) = self._uploaded[0], WAITING["page"], WAITING["api"]
        for ask, most in (
            (lambda: self.page.run("classify", picture, *self.pair), API_QUEUE["concurrency_limit"] + of_scripts),
            (lambda: self.page.press(picture), DEVICE_QUEUE["concurrency_limit"] + of_page),
        ):
            for wave in (most, most + BEYOND):  # waits are told by the latest calls, so those of the second are
                outcomes = await asyncio.gather(*(self._answered_or_told(ask()) for _ in range(wave)))
            end = max(at for at, told_s in outcomes if told_s is None)
            self.figures.told_s += [(told_s, end - at) for at, told_s in outcomes if told_s is not None]

    async def rest(self) -> None:
        """See how much memory the page keeps when it has nothing to do."""
        await asyncio.sleep(REST_S)
        self.figures.at_rest = (await self.page.metrics())["process_resident_memory_bytes"]

    async def _script(self, jobs: Sequence[Job], number: int, end: float, waits_s: list[float]) -> None:
        for turn in count(number):
            if time.monotonic() >= end:
                return
            start = time.perf_counter()
            if await self._tried(jobs[turn % len(jobs)](turn), "refused"):
                waits_s.append(time.perf_counter() - start)

    async def _visitor(self, number: int, end: float) -> None:
        while time.monotonic() < end:
            start = time.perf_counter()
            picture = self._uploaded[number % len(self._uploaded)]
            if await self._tried(self.page.press(picture), "visitor refused"):
                self.figures.visitors_s.append(time.perf_counter() - start)
            number += 1
            await asyncio.sleep(PAUSE_S)

    async def _tried(self, request: Awaitable[object], refusal: str) -> bool:
        """Whether there is an answer; a refusal is counted under its name, and waited out as it says."""
        try:
            await request
            return True
        except httpx.HTTPStatusError as error:
            self.figures.outcomes[refusal] += 1
            await asyncio.sleep(told_wait_s(error))
        except (httpx.TransportError, NoAnswer) as error:
            self._see_problem(error)
        return False

    async def _answered_or_told(self, request: Awaitable[object]) -> tuple[float, float | None]:
        """When a request was answered or refused, and then the wait that it was told."""
        told_s = None
        try:
            await request
        except httpx.HTTPStatusError as error:
            told_s = told_wait_s(error)
        except (httpx.TransportError, NoAnswer) as error:
            self._see_problem(error)
        return time.monotonic(), told_s

    def _see_problem(self, error: Exception) -> None:
        self.figures.outcomes["error"] += 1
        self.figures.problems[f"{type(error).__name__} {str(error)[:80]}".strip()] += 1

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

    def _long_jobs(self) -> list[Job]:
        async def compare(turn: int) -> None:
            await self.page.run("compare", self._uploaded[0], *self.pair, BATCH_SIZES[turn % 3])

        async def clip(turn: int) -> None:
            await self.page.run("video", await self.page.upload(self.clip), CLUSTERS, self.pair[0], NO_BASELINE, 320)

        return [compare, clip]

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


def told_wait_s(error: httpx.HTTPStatusError) -> float:
    """Return how long a refused request is told to wait.

    Raises:
        httpx.HTTPStatusError: it was refused for another reason than that too many wait.
    """
    if error.response.status_code not in (429, 503):
        raise error
    return float(error.response.headers["retry-after"])


async def _timed(request: Awaitable[Answer]) -> tuple[float, Answer]:
    start = time.perf_counter()
    answer = await request
    return time.perf_counter() - start, answer
