"""The models in replicas of Ray Serve on two local nodes: answers as in one process, and none lost with a replica or a
node. Skipped where ray is not installed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("ray")

from ray import serve
from ray.cluster_utils import Cluster

from demo.own import own_pair
from demo.predictors import ClassifyRun, Predictors
from demo.registry import Registry
from demo.serve import speed as speed_module
from demo.serve.remote import Busy, Deployments, RemoteRuntime
from demo.serve.speed import speed
from demo.serve.start import WAITING, deployed
from demo.video import CLASSIFY, ClipJob
from stvit.predict.media import MediaError
from stvit.predict.turns import SCRIPTS, in_lane
from tests.stvit.video.clips import make_clip

pytestmark = pytest.mark.slow

OWN, OWN_BASELINE = "garments_stvit_r_swin", "garments_swin"
STORE_BYTES = 128 * 2**20
PATIENCE_S = 60
START_S = 180  # of a replica, which imports PyTorch, on cores that others share
REQUESTS, VISITORS_AT_ONCE = 120, 8


@pytest.fixture(scope="module")
def nodes() -> Iterator[Cluster]:
    """A head and a second node, as a cluster of two machines has them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STVIT_ENGINE", "eager")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # others fill this machine too
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        cluster = Cluster(True, head_node_args={"num_cpus": 2, "object_store_memory": STORE_BYTES})
        cluster.add_node(num_cpus=2, object_store_memory=STORE_BYTES)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def deployments(nodes: Cluster, garments: Registry) -> Iterator[Deployments]:
    with deployed(garments, 2, nodes.address) as running:
        yield running


@pytest.fixture(scope="module")
def runtime(deployments: Deployments, garments: Registry) -> RemoteRuntime:
    return RemoteRuntime(deployments, garments)


@pytest.fixture
def alone() -> Predictors:
    return Predictors(torch.device("cpu"))


def replicas(deployments: Deployments, count: int) -> set[int]:
    """The processes of so many replicas that classify."""
    found: set[int] = set()
    until = time.monotonic() + START_S
    while len(found) < count:
        assert time.monotonic() < until, f"{count} replicas did not answer in {START_S} s, only {found}"
        found.add(deployments.ask("classify", "describe")[2])
    return found


def same(run: ClassifyRun, other: ClassifyRun) -> bool:
    pairs = ((run.model, other.model), (run.baseline, other.baseline))
    return all(
        [entry.index for entry in one.predictions] == [entry.index for entry in two.predictions]
        and one.predictions[0].probability == pytest.approx(two.predictions[0].probability, abs=2e-2)
        for one, two in pairs
    )


def under_load(runtime: RemoteRuntime, photo: Path, disturb: Callable[[], None]) -> list[ClassifyRun]:
    """Answers of a crowd of programs, during which something happens."""
    pair, begun = (runtime.registry.find(OWN), runtime.registry.find(OWN_BASELINE)), Event()

    def ask(number: int) -> ClassifyRun:
        if number == REQUESTS // 4:
            begun.set()
        with in_lane(SCRIPTS):
            return runtime.classify_file(photo, *pair)

    with ThreadPoolExecutor(VISITORS_AT_ONCE) as crowd:
        answers = [crowd.submit(ask, number) for number in range(REQUESTS)]
        assert begun.wait(PATIENCE_S), "a quarter of the requests did not begin"
        disturb()
        return [answer.result(2 * PATIENCE_S) for answer in answers]


def test_answers_are_those_of_one_process(runtime: RemoteRuntime, alone: Predictors, photo: Path) -> None:
    find = runtime.registry.find
    pair = find(OWN), find(OWN_BASELINE)
    remote, own = runtime.classify_file(photo, *pair), alone.classify_file(photo, *pair)
    assert same(remote, own) and remote.model.weights == own.model.weights
    for one, two in zip(remote.model.regions, own.model.regions, strict=True):
        assert (one.assignment == two.assignment).mean() > 0.99
    detector, segmenter = runtime.registry.first_bundled("detect"), runtime.registry.first_bundled("segment")
    found = [one.detect_file(photo, detector, 320).result for one in (runtime, alone)]
    assert np.allclose(found[0].found.boxes, found[1].found.boxes, atol=1.0)
    labels = [one.segment_file(photo, segmenter).result.labels for one in (runtime, alone)]
    assert (labels[0] == labels[1]).mean() > 0.99


def test_models_and_errors_are_told_as_in_one_process(
    runtime: RemoteRuntime, alone: Predictors, tmp_path: Path
) -> None:
    spec, cache = runtime.registry.find(OWN), runtime.predictors.model_cache
    own = alone.model_cache.get(spec)
    assert (cache.get(spec).weights, cache.get(spec).problem, cache.is_ready(spec)) == (own.weights, "", True)
    (tmp_path / "clip.mp4").write_text("no clip")
    with pytest.raises(Exception, match="clip") as raised:
        list(runtime.process_clip(tmp_path / "clip.mp4", tmp_path, ClipJob(CLASSIFY, spec, None, 0)))
    assert type(raised.value).__name__ == "VideoError"
    with pytest.raises(MediaError):
        runtime.classify_one(tmp_path / "clip.mp4", spec)


def test_a_clip_comes_back_with_its_records(runtime: RemoteRuntime, tmp_path: Path) -> None:
    job = ClipJob(CLASSIFY, runtime.registry.find(OWN), None, 0)
    states = list(runtime.process_clip(make_clip(tmp_path / "clip.mp4"), tmp_path, job))
    assert states[-1].done and states[-1].frames == 12
    clip, records = (tmp_path / name for name in job.file_names)
    assert clip.read_bytes()[4:8] == b"ftyp"
    assert len(records.read_text().splitlines()) >= 12


def test_comparisons_run_one_at_a_time_and_too_many_are_told_so(runtime: RemoteRuntime, photo: Path) -> None:
    pair = runtime.registry.find(OWN), runtime.registry.find(OWN_BASELINE)

    def first_state() -> str:
        states = runtime.benchmark_classifiers(photo, *pair, None)
        try:
            stage = next(states).stage
            time.sleep(1)  # the others ask meanwhile
            return stage
        except Busy as busy:
            return str(busy)
        finally:
            states.close()

    asked = 1 + WAITING["benchmark"] + 4
    with ThreadPoolExecutor(asked) as crowd:
        words = [answer.result(PATIENCE_S) for answer in [crowd.submit(first_state) for _ in range(asked)]]
    busy = [word for word in words if word.startswith("The server is busy.")]
    assert 1 <= len(busy) <= 4 and words.count("Counting multiply-adds") == asked - len(busy)
    assert next(runtime.benchmark_classifiers(photo, *pair, None)).stage == "Counting multiply-adds"  # the others left


def test_architectures_are_compared_in_a_replica_too(runtime: RemoteRuntime) -> None:
    states = runtime.benchmark_own(*own_pair("deit_tiny_patch16_224", 16), 1, "eager")
    try:
        assert next(states).stage == "Counting multiply-adds"
    finally:
        states.close()


def test_what_replicas_bring_is_measured(runtime: RemoteRuntime, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("AT_ONCE", 2), ("SINGLE", 3), ("WARM_UP_S", 0.1)):
        monkeypatch.setattr(speed_module, name, value)
    spec = runtime.registry.find(OWN)
    measured = speed(lambda: runtime.classify_one(photo, spec), 0.5)
    assert measured.per_s > 0 and measured.single_s > 0


def test_no_request_is_lost_with_a_replica(
    runtime: RemoteRuntime, deployments: Deployments, alone: Predictors, photo: Path
) -> None:
    before = replicas(deployments, 2)
    answers = under_load(runtime, photo, lambda: os.kill(min(before), signal.SIGKILL))
    own = alone.classify_file(photo, runtime.registry.find(OWN), runtime.registry.find(OWN_BASELINE))
    assert len(answers) == REQUESTS and all(same(answer, own) for answer in answers)
    assert replicas(deployments, 2) != before  # Serve has started another one


def test_no_request_is_lost_with_a_node(
    runtime: RemoteRuntime, deployments: Deployments, nodes: Cluster, alone: Predictors, photo: Path
) -> None:
    before = replicas(deployments, 2)
    (worker,) = nodes.worker_nodes
    answers = under_load(runtime, photo, lambda: nodes.remove_node(worker, allow_graceful=False))
    own = alone.classify_file(photo, runtime.registry.find(OWN), runtime.registry.find(OWN_BASELINE))
    assert len(answers) == REQUESTS and all(same(answer, own) for answer in answers)
    until = time.monotonic() + START_S
    while replicas(deployments, 2) == before:  # processes outlive their node for a moment
        assert time.monotonic() < until, f"no replica was replaced in {START_S} s"


def test_what_is_under_way_is_answered_before_replicas_go(runtime: RemoteRuntime, tmp_path: Path) -> None:
    job = ClipJob(CLASSIFY, runtime.registry.find(OWN), None, 0)
    states = runtime.process_clip(make_clip(tmp_path / "clip.mp4", frames=600), tmp_path, job)
    first: Any = next(states)
    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(serve.delete, "stvit-clips")
        assert not first.done and list(states)[-1].done and (tmp_path / job.file_names[0]).is_file()
        going.result(PATIENCE_S)
