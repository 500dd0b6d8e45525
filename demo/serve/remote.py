"""The page's side of the deployments: requests that are tried again where a replica is lost, and errors in words."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from ray.exceptions import NodeDiedError, ObjectLostError, RayActorError, WorkerCrashedError
from ray.serve.exceptions import BackPressureError, DeploymentUnavailableError, ReplicaUnavailableError
from ray.serve.handle import DeploymentHandle

from demo.answers import ClassifyAnswer, DetectAnswer, SegmentAnswer
from demo.benchmark import BenchmarkState
from demo.camera import FramePrediction
from demo.errors import untold
from demo.model_cache import Progress as Download
from demo.predictors import Predictors
from demo.registry import ModelSpec, Registry
from demo.runtime import Runtime
from demo.serve.deployments import Files, ModelState
from demo.video import ClipJob
from stvit.errors import UserError
from stvit.predict.preprocess import PreparedPicture
from stvit.predict.turns import SCRIPTS, current_lane
from stvit.video.types import Progress

LOST = (RayActorError, NodeDiedError, WorkerCrashedError, ObjectLostError, ReplicaUnavailableError)
TRIES = 4
PAUSE_S = 0.5  # before the second try, twice as long before every further one
ANSWER_S = 120.0
Result = TypeVar("Result")


class Busy(UserError, RuntimeError):
    """As many requests wait as may."""


class Lost(UserError, RuntimeError):
    """What worked on a request has gone, several times or in the middle of a long job."""


BUSY = "The server is busy.", "Try again in a few seconds."
GONE = "The machine that worked on this has gone.", "Start it again."
SILENT = f"The models have not answered for {ANSWER_S:.0f} s.", "Try again in a minute."


class Deployments:
    """Calls of the deployments.

    Args:
        handles: by name: ``classify``, ``dense``, ``clips``, ``benchmark``.
    """

    def __init__(self, handles: dict[str, DeploymentHandle]) -> None:
        # one router each, which counts all that wait; made at the first use, several threads would get one each
        self._handles = {name: handle.options() for name, handle in handles.items()}

    def ask(self, name: str, method: str, *arguments: Any, model: str = "") -> Any:
        """Call a method, and again where its replica is lost: nothing that it does outlasts it.

        Args:
            model: that a replica should have at hand.

        Raises:
            UserError: the method raised it.
            Busy: too many requests wait.
            Lost: replicas were lost in all tries, or none answers.
        """

        def call() -> Any:
            handle = self._handles[name].options(method_name=method, multiplexed_model_id=model)
            response = handle.remote(*arguments)
            try:
                return response.result(timeout_s=ANSWER_S)
            except TimeoutError:
                response.cancel()
                raise Lost(*SILENT) from None

        return untold(_tried_again(call))

    def stream(self, name: str, method: str, *arguments: Any) -> Iterator[Any]:
        """Call a method that yields; its replica ends when the iterator is closed.

        Raises:
            UserError: the method raised it.
            Busy: too many jobs wait.
            Lost: the replica was lost after its first value, or before that in all tries.
        """

        def begin() -> tuple[Any, Any]:
            response = self._handles[name].options(method_name=method, stream=True).remote(*arguments)
            return response, next(response, None)

        response, value = _tried_again(begin)
        try:
            while value is not None:
                yield untold(value)
                value = next(response, None)
        except LOST:
            raise Lost(*GONE) from None
        finally:
            response.cancel()


def _tried_again(call: Callable[[], Result]) -> Result:
    for attempt in range(TRIES):
        try:
            return call()
        except (BackPressureError, DeploymentUnavailableError):
            raise Busy(*BUSY) from None
        except LOST:
            time.sleep(PAUSE_S * 2**attempt)
    raise Lost(*GONE)


class RemoteModels:
    """What a page needs of ``demo.model_cache.ModelCache``, where the models are in replicas."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments, self._known = deployments, dict[str, ModelState]()
        self._lock = Lock()

    def get(self, spec: ModelSpec, progress: Download | None = None, *, retry: bool = False) -> ModelState:
        """Have a replica load the model; its downloads are told to nobody.

        Raises:
            OutOfMemory: the device has no room for it.
        """
        with self._lock:
            known = self._known.get(spec.name)
        if known is None or (retry and known.problem and spec.has_weights):
            known = self._deployments.ask(deployment_of(spec), "load", spec, retry, model=spec.name)
            with self._lock:
                self._known[spec.name] = known
        return known

    def is_ready(self, spec: ModelSpec) -> bool:
        """Whether a replica has the model with its weights, or there are none that could still come."""
        with self._lock:
            known = self._known.get(spec.name)
        return known is not None and not (known.problem and spec.has_weights)

    def with_weights(self, *specs: ModelSpec) -> list[ModelSpec]:
        """List those that some replica has with their weights."""
        return [spec for spec in specs if spec.has_weights and self.is_ready(spec)]


def deployment_of(spec: ModelSpec) -> str:
    """Name the deployment that runs a model."""
    return {"classify": "classify", "video": "clips"}.get(spec.task, "dense")


class RemotePredictors(Predictors):
    """Predictors whose pictures are decoded and prepared here, and answered by the deployments."""

    def __init__(self, deployments: Deployments) -> None:
        self._deployments = deployments
        self.model_cache = RemoteModels(deployments)
        kind, self._device_words, _ = deployments.ask("classify", "describe")
        self.engine, self.engines = deployments.ask("classify", "describe_engines")
        self.device = torch.device(kind)

    def device_words(self) -> str:
        return f"{self._device_words} in each replica"

    def classify(self, prepared: PreparedPicture, model: ModelSpec, engine: str | None = None) -> ClassifyAnswer:
        ready, together = self.model_cache.with_weights(model), current_lane() == SCRIPTS
        asked = (ready, model, prepared, together, engine)
        return self._deployments.ask("classify", "classify", *asked, model=model.name)

    def detect(self, pixels: np.ndarray, model: ModelSpec, short_side: int, engine: str | None = None) -> DetectAnswer:
        return self.run_dense("detect", model, pixels, model, short_side, engine)

    def segment(self, pixels: np.ndarray, model: ModelSpec, engine: str | None = None) -> SegmentAnswer:
        return self.run_dense("segment", model, pixels, model, engine)

    def run_dense(self, kind: str, model: ModelSpec, *arguments: Any) -> Any:
        """Call a method of a replica for dense models, see :class:`demo.serve.deployments.Dense`."""
        return self._deployments.ask("dense", "run", self.model_cache.with_weights(model), kind, *arguments)


class RemoteRuntime(Runtime):
    """A runtime whose models are in the deployments."""

    def __init__(self, deployments: Deployments, registry: Registry) -> None:
        self._deployments, self._predictors = deployments, RemotePredictors(deployments)
        self.predictors, self.registry = self._predictors, registry
        self.classify_file, self.classify_one = self.predictors.classify_file, self.predictors.classify_one
        self.detect_file, self.segment_file = self.predictors.detect_file, self.predictors.segment_file
        self.benchmark_classifiers = partial(self._compare, "benchmark_classifiers")
        self.benchmark_backbones = partial(self._compare, "benchmark_backbones")
        self.benchmark_segmenters = partial(self._compare, "benchmark_segmenters")
        self.benchmark_own = partial(deployments.stream, "benchmark", "compare_own")

    def predict_frame(self, job: ClipJob, pixels: np.ndarray) -> FramePrediction:
        """Say what a model sees in a camera's frame."""
        return self._predictors.run_dense("predict_frame", job.model, job, pixels)

    def process_clip(self, path: str | Path, folder: str | Path, job: ClipJob) -> Iterator[Progress]:
        """Make the new clip and its records in a folder."""
        ready = self._predictors.model_cache.with_weights(*job.models)
        for value in self._deployments.stream("clips", "process_clip", ready, *_sent(path), job):
            if isinstance(value, Files):
                for name, content in value.contents.items():
                    (Path(folder) / name).write_bytes(content)
            else:
                yield value

    def _compare(self, kind: str, path: str | Path, *arguments: Any) -> Iterator[BenchmarkState]:
        yield from self._deployments.stream("benchmark", "compare", kind, *_sent(path), *arguments)


def _sent(path: str | Path) -> tuple[bytes, str]:
    """The content of a file and the end of its name."""
    return Path(path).read_bytes(), Path(path).suffix
