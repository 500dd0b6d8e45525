"""What of ``python -m demo.serve`` needs no cluster."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import MagicMock, Mock

import pytest
import torch
import yaml

pytest.importorskip("ray")

from ray.autoscaler._private.util import prepare_config, validate_config
from ray.exceptions import RayActorError
from ray.serve.exceptions import BackPressureError

from demo.errors import Told
from demo.predictors import Predictors
from demo.registry import Registry
from demo.runtime import Runtime
from demo.serve import remote
from demo.serve import speed as speed_module
from demo.serve.__main__ import main
from demo.serve.remote import Busy, Deployments, Lost, RemoteRuntime
from demo.serve.speed import loss
from demo.serve.start import NoCluster, actor_options, deployed
from stvit.errors import UserError

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_S", 0.0)


def answering(*results: object) -> tuple[Deployments, Mock]:
    """Deployments of one handle, and what is called for its results."""
    result = Mock(side_effect=results)
    handle = Mock()
    handle.options.return_value = handle
    handle.remote.return_value.result = result
    return Deployments({"dense": handle}), result


def test_a_lost_replica_is_asked_again_and_answers_once() -> None:
    deployments, result = answering(RayActorError(), RayActorError(), "answer")
    assert deployments.ask("dense", "run") == "answer" and result.call_count == 3
    deployments, result = answering(*[RayActorError()] * remote.TRIES)
    with pytest.raises(Lost, match=r"has gone\. Start it again"):
        deployments.ask("dense", "run")


def test_a_full_queue_and_silence_are_told_and_not_repeated() -> None:
    deployments, result = answering(BackPressureError(5, 5))
    with pytest.raises(Busy, match=r"The server is busy\. Try again"):
        deployments.ask("dense", "run")
    deployments, result = answering(TimeoutError())
    with pytest.raises(Lost, match="have not answered for 120 s"):
        deployments.ask("dense", "run")
    assert result.call_count == 1


def test_errors_for_people_come_whole_and_mistakes_as_they_are() -> None:
    deployments, _ = answering(Told(UserError("Too small.", "Take another.")), ZeroDivisionError())
    with pytest.raises(UserError, match=r"Too small\. Take another\."):
        deployments.ask("dense", "run")
    with pytest.raises(ZeroDivisionError):
        deployments.ask("dense", "run")


def stream(*steps: object) -> tuple[Deployments, Mock]:
    def values():
        for step in steps:
            if isinstance(step, Exception):
                raise step
            yield step

    response = MagicMock()
    own = values()
    response.__next__ = lambda self: next(own)
    handle = Mock()
    handle.options.return_value = handle
    handle.remote.return_value = response
    return Deployments({"clips": handle}), response


def test_a_long_job_that_loses_its_replica_is_told_and_not_begun_again() -> None:
    deployments, response = stream(1, 2, RayActorError())
    seen = []
    with pytest.raises(Lost, match="Start it again"):
        seen.extend(deployments.stream("clips", "process_clip"))
    assert response.cancel.called


def test_who_stops_reading_stops_the_job() -> None:
    deployments, response = stream(1, 2, 3)
    values = deployments.stream("clips", "process_clip")
    assert next(values) == 1 and not response.cancel.called
    values.close()
    assert response.cancel.called


def test_nothing_that_a_runtime_offers_is_missing_with_replicas() -> None:
    described = {"describe": ("cpu", "a CPU", 1), "describe_engines": ("eager", ("auto", "eager"))}
    deployments = Mock(ask=lambda name, method: described[method])
    remote_runtime = RemoteRuntime(deployments, Registry(()))
    own = Runtime(Predictors(torch.device("cpu")), Registry(()))
    offered = {name for name in {*vars(own), *dir(Runtime)} if not name.startswith("_")}
    assert {name for name in offered if not hasattr(remote_runtime, name)} == set()


def test_the_loss_of_a_replica_is_measured_until_there_are_as_many_again(monkeypatch: pytest.MonkeyPatch) -> None:
    processes = [11, 12, 12, Lost("Gone.", "Again."), 12, 13]
    found = Mock(side_effect=[("cpu", "a CPU", one) if isinstance(one, int) else one for one in processes])
    killed, ask = Mock(), Mock(side_effect=[None, Lost("Gone.", "Again."), None, None, None])
    monkeypatch.setattr(speed_module.os, "kill", killed)
    measured = loss(Mock(ask=found), 2, ask)
    assert killed.call_args.args[0] == 11 and measured.told == 2
    assert 0 <= measured.slowest_s <= measured.recovered_s and ask.call_count == 5 and found.call_count == 6


def test_gpus_are_shared_so_that_all_replicas_fit_and_comparisons_have_one() -> None:
    assert "num_gpus" not in actor_options("classify", 2, 0)
    for gpus in (1, 2, 3, 8):
        for replicas in (1, 2, 4, 7):
            share = actor_options("classify", replicas, gpus)["num_gpus"]
            own = actor_options("benchmark", replicas, gpus)["num_gpus"]
            assert own == (1 if gpus > 1 else share)
            each = int(1 / share + 1e-9)  # replicas on one GPU
            sharing = replicas + 2 + (gpus == 1)
            assert each * max(gpus - 1, 1) >= sharing


def test_the_cluster_file_is_one_that_ray_takes() -> None:
    config = prepare_config(yaml.safe_load((ROOT / "docs" / "ray-cluster.yaml").read_text()))
    validate_config(config)
    assert config["max_workers"] == len(config["provider"]["worker_ips"])
    (folder,) = config["file_mounts"]
    for commands in ("setup_commands", "head_start_ray_commands", "worker_start_ray_commands"):
        assert all(command.startswith(f"cd {folder} && ") for command in config[commands])


def test_addresses_that_cannot_serve_are_told() -> None:
    with pytest.raises(SystemExit):
        main(["--replicas", "0"])
    with pytest.raises(NoCluster, match="cannot stream"), deployed(Registry(()), address="ray://127.0.0.1:10001"):
        pass
