"""The models as Ray Serve deployments: every replica has predictors of its own, on the device that it was given."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ray import serve

from demo.answers import ClassifyAnswer
from demo.errors import Told, telling
from demo.predictors import predictors_of_process
from demo.registry import ModelSpec, Registry
from demo.runtime import Runtime
from demo.service.batches import MAX_BATCH_ON_CPU, MAX_BATCH_ON_GPU, USUAL_PIXELS
from demo.service.folder import own_folder
from demo.video import ClipJob
from stvit.predict.preprocess import PreparedPicture
from stvit.predict.turns import SCRIPTS, VISITORS, in_lane

MAX_MODELS = 8  # that the router knows a replica to have at hand
END = object()
Item = tuple[ModelSpec, PreparedPicture, "str | None"]  # the last is the engine


@dataclass(frozen=True)
class ModelState:
    """What is known of a model's weights, as :class:`demo.model_cache.LoadedModel` says it."""

    spec: ModelSpec
    weights: str
    problem: str
    next_step: str


@dataclass(frozen=True)
class Files:
    """What a clip became, by the files' names."""

    contents: dict[str, bytes]


class Replica:
    """What all deployments have in common.

    Args:
        registry: the models on offer.
    """

    def __init__(self, registry: Registry) -> None:
        self.predictors = predictors_of_process()
        self.runtime = Runtime(self.predictors, registry)

    def check_health(self) -> None:
        """Let Serve replace this replica where its device answers no more; whatever the device raises says so."""
        torch.zeros(1, device=self.predictors.device).item()

    async def describe(self) -> tuple[str, str, int]:
        """Return the type of the device, the device in words, and the number of this process."""
        return self.predictors.device.type, self.predictors.device_words(), os.getpid()

    async def describe_engines(self) -> tuple[str, tuple[str, ...]]:
        """Return the engine of requests that name none, and those that they may name."""
        return self.predictors.engine, await asyncio.to_thread(lambda: self.predictors.engines)

    async def load(self, spec: ModelSpec, retry: bool) -> ModelState | Told:
        """Bring a model into memory."""
        return await asyncio.to_thread(telling(self._load), spec, retry)

    async def _expect(self, ready: Sequence[ModelSpec]) -> None:
        """Try again to get weights that another replica has, and this one could not get before."""
        for spec in ready:
            await asyncio.to_thread(self.predictors.model_cache.get, spec, retry=True)

    def _load(self, spec: ModelSpec, retry: bool) -> ModelState:
        loaded = self.predictors.model_cache.get(spec, retry=retry)
        return ModelState(spec, loaded.weights, loaded.problem, loaded.next_step)


def pixels(batch: Sequence[Item]) -> int:
    """Count the pixels of a batch, by which its size is bounded."""
    return sum(prepared.image.shape[-2] * prepared.image.shape[-1] for _, prepared, _ in batch)


class Classify(Replica):
    """Classifies prepared pictures; requests of programs for one model run as one batch."""

    def __init__(self, registry: Registry) -> None:
        super().__init__(registry)
        if self.predictors.device.type == "cuda":
            self._together.set_max_batch_size(MAX_BATCH_ON_GPU * USUAL_PIXELS)

    async def classify(
        self,
        ready: Sequence[ModelSpec],
        spec: ModelSpec,
        prepared: PreparedPicture,
        together: bool,
        engine: str | None = None,
    ) -> ClassifyAnswer | Told:
        """Classify a picture.

        Args:
            ready: models whose weights another replica has.
            together: in a batch with others; else alone, since its time is shown.
        """
        await self._expect(ready)
        await self._at_hand(spec.name)
        item = spec, prepared, engine
        answer = await (self._together(item) if together else self._alone(item))
        if isinstance(answer, Exception):
            raise answer
        return answer

    @serve.multiplexed(max_num_models_per_replica=MAX_MODELS)
    async def _at_hand(self, name: str) -> str:
        """Let the router know that this replica has a model; its own cache keeps it."""
        return name

    async def _alone(self, item: Item) -> Any:
        return (await asyncio.to_thread(self._answers, [item], VISITORS))[0]

    @serve.batch(max_batch_size=MAX_BATCH_ON_CPU * USUAL_PIXELS, batch_wait_timeout_s=0.0, batch_size_fn=pixels)
    async def _together(self, batch: list[Item]) -> list[Any]:
        return await asyncio.to_thread(self._answers, batch, SCRIPTS)

    def _answers(self, batch: Sequence[Item], lane: str) -> list[Any]:
        """Answer a batch of one model; one for several engines item by item, and one that fails again so, so that an
        error is that of one alone."""
        (spec, _, engine), pictures = batch[0], [prepared for _, prepared, _ in batch]
        if any(other != engine for *_, other in batch):
            return [self._answers([item], lane)[0] for item in batch]
        try:
            with in_lane(lane):
                answers = telling(self.predictors.classify_batch)(pictures, spec, engine)
        except Exception as error:
            answers = error
        if isinstance(answers, list):
            return answers
        return [answers] if len(batch) == 1 else [self._answers([item], lane)[0] for item in batch]


class Dense(Replica):
    """Detects, segments, and predicts single frames of cameras."""

    async def run(self, ready: Sequence[ModelSpec], kind: str, *arguments: Any) -> Any:
        """Call ``detect`` or ``segment`` of the predictors, or ``predict_frame`` of the runtime; ``ready`` as above."""
        await self._expect(ready)
        owner = self.runtime if kind == "predict_frame" else self.predictors
        return await asyncio.to_thread(telling(getattr(owner, kind)), *arguments)


class LongJobs(Replica):
    """Runs what yields its progress: clips and comparisons, on files that are sent along."""

    async def process_clip(
        self, ready: Sequence[ModelSpec], content: bytes, suffix: str, job: ClipJob
    ) -> AsyncIterator[Any]:
        """Yield the progress of a clip; before the last, its files. ``ready`` as above."""
        await self._expect(ready)
        with own_folder() as folder:
            path = _written(folder, content, suffix)
            async for progress in _stepwise(self.runtime.process_clip, path, folder, job):
                if not isinstance(progress, Told) and progress.done:
                    yield Files({name: (folder / name).read_bytes() for name in job.file_names})
                yield progress

    async def compare(self, kind: str, content: bytes, suffix: str, *arguments: Any) -> AsyncIterator[Any]:
        """Yield the states of a comparison.

        Args:
            kind: name of the runtime's method.
        """
        with own_folder() as folder:
            path = _written(folder, content, suffix)
            async for state in _stepwise(getattr(self.runtime, kind), path, *arguments):
                yield state

    async def compare_own(self, *arguments: Any) -> AsyncIterator[Any]:
        """Yield the states of a comparison of architectures, for which there is no file."""
        async for state in _stepwise(self.runtime.benchmark_own, *arguments):
            yield state


def _written(folder: Path, content: bytes, suffix: str) -> str:
    path = folder / f"sent{suffix}"
    path.write_bytes(content)
    return str(path)


async def _stepwise(function: Callable[..., Iterator[Any]], *arguments: Any) -> AsyncIterator[Any]:
    """Run a generator function in threads; it is closed when nobody reads on."""
    steps = telling(function)(*arguments)
    try:
        while (value := await asyncio.to_thread(next, steps, END)) is not END:
            yield value
    finally:
        await asyncio.shield(asyncio.to_thread(steps.close))
