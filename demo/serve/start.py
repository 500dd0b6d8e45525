"""Start the deployments on this machine, or on a cluster that it belongs to."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import ray
from ray import serve

from demo.registry import Registry
from demo.serve.deployments import Classify, Dense, LongJobs
from demo.serve.remote import Deployments
from demo.service.batches import MAX_BATCH_ON_GPU
from stvit.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
OBJECT_STORE_BYTES = 512 * 2**20  # on a machine of its own: nothing larger than a clip lies in it
OTHERS = 2  # replicas beside those that classify, and the one that measures
CLASSES = {"classify": Classify, "dense": Dense, "clips": LongJobs, "benchmark": LongJobs}
UNDER_WAY = {"classify": MAX_BATCH_ON_GPU, "dense": 2, "clips": 1, "benchmark": 1}
WAITING = {"classify": 128, "dense": 32, "clips": 4, "benchmark": 4}  # in the page's process, for a replica
DRAIN_S = {"classify": 30.0, "dense": 60.0, "clips": 300.0, "benchmark": 90.0}


class NoCluster(UserError, RuntimeError):
    """No cluster can be used under this address."""


@contextmanager
def deployed(registry: Registry, replicas: int = 1, address: str | None = None) -> Iterator[Deployments]:
    """Run the deployments; at the end, what is under way is answered before they go.

    Args:
        registry: the models on offer.
        replicas: that classify; the others have one each.
        address: of a cluster that this machine belongs to, ``HOST:PORT`` or ``auto``; by default one is started here.

    Raises:
        NoCluster: nothing answers there, or it is an address of Ray's client protocol.
    """
    _connect(address)
    try:
        names = [f"stvit-{name}" for name in CLASSES]
        targets = [_target(name, registry, replicas) for name in CLASSES]
        serve.start(proxy_location="Disabled")  # no HTTP: the page asks by handles
        handles = serve.run_many(targets)
        try:
            yield Deployments(dict(zip(CLASSES, handles, strict=True)))
        finally:
            for name in names:
                serve.delete(name)
    finally:
        ray.shutdown()


def _connect(address: str | None) -> None:
    if address is not None and address.startswith("ray://"):
        raise NoCluster(
            "Ray's client protocol (ray://) cannot stream, which Serve needs.",
            "Run `ray start --address=HOST:6379` on this machine, then give --address auto.",
        )
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    here = {"include_dashboard": False, "object_store_memory": OBJECT_STORE_BYTES} if address is None else {}
    python_path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    environment = {"env_vars": {"PYTHONPATH": python_path}}
    try:
        ray.init(address=address, runtime_env=environment, log_to_driver=False, **here)
    except ConnectionError as error:
        raise NoCluster(
            f"No Ray cluster answers at {address}.", "Start one with `ray start --head` on its first machine."
        ) from error


def _target(name: str, registry: Registry, replicas: int) -> serve.RunTarget:
    count = replicas if name == "classify" else 1
    deployment = serve.deployment(
        CLASSES[name],
        name=name,
        num_replicas=count,
        max_ongoing_requests=UNDER_WAY[name],
        max_queued_requests=WAITING[name],
        graceful_shutdown_timeout_s=DRAIN_S[name],
        health_check_period_s=5.0,
        ray_actor_options=actor_options(name, replicas, int(ray.cluster_resources().get("GPU", 0))),
    )
    return serve.RunTarget(deployment.bind(registry), name=f"stvit-{name}", route_prefix=None)


def actor_options(name: str, replicas: int, gpus: int) -> dict[str, Any]:
    """Say what a replica gets.

    With two GPUs or more, comparisons have one for themselves; the other replicas share the rest evenly, all of them a
    single one. Without, every replica computes with its share of the cores.

    Args:
        gpus: of the whole cluster.
    """
    if not gpus:
        threads = max((os.cpu_count() or 1) // replicas, 1)
        return {"num_cpus": 0, "runtime_env": {"env_vars": {"OMP_NUM_THREADS": str(threads)}}}
    if name == "benchmark" and gpus > 1:
        return {"num_cpus": 0, "num_gpus": 1}
    sharing = replicas + OTHERS + (gpus == 1)
    return {"num_cpus": 0, "num_gpus": 1 / math.ceil(sharing / max(gpus - 1, 1))}
