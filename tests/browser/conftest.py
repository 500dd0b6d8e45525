"""The real app in processes of its own, local Hubs that serve weights to it, and a real browser.

A server takes seconds to start, so each kind of app has one for all tests that do not change it:

    app               app.py, whose Hub has the published weights
    narrow_app        narrow models that run in a second; its Hub has the detector's weights and no others
    offline_garments  stand-ins for the bundled models, no Hub
    online_garments   the same with the published weights in reach
"""

from __future__ import annotations

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
from playwright.sync_api import Browser, Page, expect, sync_playwright

from demo.model_cache import RETRY_AFTER_S
from tests.hub_server import HubServer
from tests.published_weights import MODEL, add_detector, add_released_weights

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
NO_HUB = "http://127.0.0.1:9"
NARROW, GARMENTS = ("-m", "tests.browser.narrow_app"), ("-m", "tests.browser.garment_app")
START_SECONDS = 240

expect.set_options(timeout=60_000)


@dataclass(frozen=True)
class App:
    """A running server, its address, and the folder that is its TMPDIR."""

    url: str
    folder: Path
    process: subprocess.Popen

    def files(self) -> list[Path]:
        """What it keeps of visitors now."""
        return [path for path in self.folder.glob("stvit-*/**/*") if path.is_file()]


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
            "STVIT_ENGINE": "eager",  # graphs of wide models take minutes of these cores
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
            process.wait(120)


@pytest.fixture
def start_app(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """Starts servers of one test's own."""
    with servers(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def start_shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., App]]:
    """Starts servers for all tests."""
    with servers(tmp_path_factory) as start:
        yield start


@pytest.fixture(scope="session")
def app(start_shared: Callable[..., App], hub: HubServer) -> App:
    return start_shared(hub.url)


@pytest.fixture(scope="session")
def narrow_app(start_shared: Callable[..., App]) -> Iterator[App]:
    with HubServer() as hub:
        add_detector(hub)
        yield start_shared(hub.url, *NARROW)


@pytest.fixture(scope="session")
def offline_garments(start_shared: Callable[..., App]) -> App:
    return start_shared(NO_HUB, *GARMENTS)


@pytest.fixture(scope="session")
def online_garments(start_shared: Callable[..., App], hub: HubServer) -> App:
    return start_shared(hub.url, *GARMENTS)


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
    """A fresh window, 1280 pixels wide; the test fails on an uncaught error of the page's scripts, and on what the
    server's content security policy forbids them."""
    page = browser.new_page(viewport={"width": 1280, "height": 900}, color_scheme="light")
    page.set_default_timeout(60_000)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("console", lambda line: errors.append(line.text) if "Content Security Policy" in line.text else None)
    yield page
    page.close()
    assert not errors, errors


def open_published(page: Page, app: App) -> None:
    """Open the page with its first published pair, by its address."""
    page.goto(f"{app.url}/?model={MODEL}")
    expect(page.locator("#model-method input")).to_have_value("STViT-R-Swin")
    expect(page.get_by_role("list", name="Predictions of STViT-R-Swin-S", exact=True)).to_be_visible()
    comes_to_rest(page)


def click_when_seen(page: Page, button: str, seen: str) -> None:
    """Click a button as soon as it can be and something is seen, from within the page: while a comparison takes the
    cores, a test's own calls are answered after seconds, when it may be over."""
    page.wait_for_function(
        """([button, seen]) => {
            const found = document.querySelector(button)
            if (found.disabled || !document.querySelector(seen)) return false
            found.click()
            return true
        }""",
        arg=[button, seen],
    )


def comes_to_rest(page: Page) -> None:
    """Wait until the page has asked the server for nothing for a second; it may ask again and again for a minute."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url) if request.method == "POST" else None)
    for _ in range(60):
        before = len(asked)
        page.wait_for_timeout(1000)
        if len(asked) == before:
            return
    pytest.fail(f"the page does not come to rest: {asked[-5:]}")


def check_fit(page: Page, surface: str) -> None:
    """The page is no wider than its window, and the surface is as light or dark as the visitor's system asks.

    Args:
        page: shows what is checked, in the light scheme; it ends in the dark one.
        surface: selector of an element with a background of its own.
    """
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        light = "> 200" if scheme == "light" else "<= 200"
        page.wait_for_function(
            f"s => parseInt(getComputedStyle(document.querySelector(s)).backgroundColor.match(/\\d+/)[0]) {light}",
            arg=surface,
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= page.viewport_size["width"]


def retry(page: Page) -> None:
    """Press the button beside the notice that weights are missing; those that failed rest for a while before."""
    page.wait_for_timeout(1000 * (RETRY_AFTER_S + 0.5))
    page.get_by_role("button", name="Retry", exact=True).click()


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
