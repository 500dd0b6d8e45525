"""The real app in its own process, a local Hub that serves weights to it, and a real browser."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from playwright.sync_api import Browser, Page, sync_playwright
from safetensors.torch import save
from yacs.config import CfgNode

from stvit.pretrained.records import record
from tests.golden.fill import fill
from tests.hub_server import HubServer

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
MODEL, BASELINE = "stvit_r_swin_small_224", "swin_small_patch4_window7_224"
FULL_TOKEN_DEIT = "deit_tiny_patch16_224"
START_SECONDS = 120


@dataclass(frozen=True)
class App:
    """A running server, its address, and the folder that is its TMPDIR."""

    url: str
    folder: Path
    process: subprocess.Popen

    def files(self) -> list[Path]:
        """What it keeps of visitors now."""
        return [path for path in self.folder.glob("stvit-*/**/*") if path.is_file()]


def add_released_weights(hub: HubServer) -> None:
    """What the Hub has, in the published containers: the authors' training container and timm's safetensors."""
    shapes = json.loads((ROOT / "tests" / "golden" / "released_shapes_small.json").read_text())
    counters = {name: torch.tensor(0) for name in shapes if name.endswith("num_batches_tracked")}
    container = {"model": fill(shapes) | counters, "optimizer": {}, "epoch": 299, "config": CfgNode({"MODEL": {}})}
    buffer = io.BytesIO()
    torch.save(container, buffer)
    hub.add_file(record(MODEL).repo, record(MODEL).filename, buffer.getvalue())
    torch.manual_seed(0)
    for name in (BASELINE, FULL_TOKEN_DEIT):
        hub.add_file(record(name).repo, record(name).filename, save(timm.create_model(name).state_dict()))


@pytest.fixture(scope="session")
def hub() -> Iterator[HubServer]:
    with HubServer() as server:
        add_released_weights(server)
        yield server


@contextmanager
def servers(factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """Starts servers with an empty cache of their own, whose weights come from a given address; by default app.py."""
    processes = []

    def start(hub_url: str, *program: str) -> App:
        home, port = factory.mktemp("app"), _free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if name != "GRADIO_TEMP_DIR"},
            "HF_ENDPOINT": hub_url,
            "HF_HOME": str(home / "hub"),
            "TMPDIR": str(home),
            "GRADIO_SERVER_NAME": "127.0.0.1",
            "GRADIO_SERVER_PORT": str(port),
        }
        log = (home / "log.txt").open("w")
        process = subprocess.Popen(
            [sys.executable, *(program or ("app.py",))], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
        processes.append(process)
        app = App(f"http://127.0.0.1:{port}", home, process)
        _wait_until_healthy(app, home / "log.txt")
        return app

    try:
        yield start
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.wait(20)


@pytest.fixture(scope="module")
def start_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """Starts servers for one module of tests."""
    with servers(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def app(hub: HubServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[App]:
    """A server whose weights can be had."""
    with servers(tmp_path_factory) as start:
        yield start(hub.url)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        message = "chromium is missing: install it (apt-get install chromium) to run the browser tests"
        (pytest.fail if os.environ.get("CI", "").lower() == "true" else pytest.skip)(message)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A fresh window, 1280 pixels wide; the test fails on an uncaught error of the page's scripts."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    page.close()
    assert not errors, errors


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_healthy(app: App, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and app.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{app.url}/health", timeout=2) as answer:
                if json.load(answer) == {"status": "ok"}:
                    return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"the app did not start:\n{log.read_text()[-3000:]}")
