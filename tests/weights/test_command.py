"""The commands as a user runs them: a process of its own that finds the Hub through HF_ENDPOINT."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.hub_server import HubServer

NAME = "stvit_r_swin_small_224.in1k"
CONTENT = b"weights of STViT-R-Swin-S" * 1000
ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.slow  # every test starts the command

Run = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        server.add_file("csncsn/STViT-R", "STViT-R-Swin-S.pth", CONTENT)
        yield server


@pytest.fixture
def run(hub: HubServer, tmp_path: Path) -> Run:
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path), "HF_HUB_ETAG_TIMEOUT": "20"}
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HUB_OFFLINE", "HF_TOKEN"):
        environment.pop(name, None)

    def weights_command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "weights", *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment | variables, capture_output=True, text=True, check=False
        )

    return weights_command


def test_pull_then_list_then_verify(run: Run, tmp_path: Path) -> None:
    pulled = run("pull", NAME)
    assert pulled.returncode == 0, pulled.stderr
    assert "from: Hub" in pulled.stdout
    path = Path(pulled.stdout.split()[0])
    assert path.is_relative_to(tmp_path)
    assert path.read_bytes() == CONTENT

    assert "from: cache" in run("pull", NAME.partition(".")[0], HF_HUB_OFFLINE="1").stdout
    states = {line.split()[0]: line.split()[1:3] for line in run("list").stdout.splitlines()}
    assert states[NAME][0] == "cache"
    assert states["deit_tiny_patch16_224.fb_in1k"] == ["not", "downloaded"]
    verified = run("verify")
    assert (verified.returncode, f"{NAME}: good" in verified.stdout) == (0, True)

    path.resolve().write_bytes(b"x" + CONTENT[1:])
    verified = run("verify")
    assert verified.returncode == 1
    assert f"{NAME}: {path.resolve()} has changed since its first download" in verified.stdout


def test_a_failed_pull_says_what_happened_and_what_to_do(run: Run, hub: HubServer) -> None:
    hub.fault = "gated"
    pulled = run("pull", NAME)
    assert pulled.returncode == 1
    assert f"csncsn/STViT-R on {hub.url} is gated" in pulled.stderr
    assert "hf auth login" in pulled.stderr
    assert "Traceback" not in pulled.stderr


def test_other_models_of_timm_are_pulled_by_their_own_record(run: Run, hub: HubServer) -> None:
    hub.add_file("timm/resnet50.a1_in1k", "model.safetensors", CONTENT)
    pulled = run("pull", "resnet50")
    assert pulled.returncode == 0, pulled.stderr
    assert "from: Hub" in pulled.stdout and "none is recorded" in pulled.stdout


def test_an_unknown_name_is_answered_with_the_known_ones(run: Run) -> None:
    pulled = run("pull", "resnet5000")
    assert pulled.returncode == 2
    assert NAME in pulled.stderr
