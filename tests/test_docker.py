"""The Dockerfile, read; built only where a docker server is there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from fnmatch import fnmatch
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from demo.space.push import LEFT_OUT

ROOT = Path(__file__).resolve().parents[1]
LINES = (ROOT / "Dockerfile").read_text().replace("\\\n", " ").splitlines()
STEPS = [line.split(maxsplit=1) for line in LINES if line and not line.startswith("#")]
IGNORED = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and line[0] not in "#!"]


def step(name: str) -> str:
    return next(rest for word, rest in STEPS if word == name)


def test_the_page_runs_as_nobody_special_and_tells_its_health() -> None:
    words = [word for word, _ in STEPS]
    assert step("USER") == "1000" and words.index("USER") < words.index("CMD")
    assert step("EXPOSE") == "7860"
    assert step("CMD") == '["python", "app.py"]'


@pytest.mark.parametrize(("address", "status"), [("/health", 0), ("/nothing", 1)])
def test_the_health_check_asks_the_page_itself_whatever_proxy_is_set(address: str, status: int) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == address else 404)
            self.end_headers()

        def log_message(self, *words: object) -> None:
            pass

    command = json.loads(step("HEALTHCHECK").partition(" CMD ")[2])
    with HTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        command = [sys.executable, *(word.replace("7860", str(server.server_port)) for word in command[1:])]
        proxied = {**os.environ, "http_proxy": "http://127.0.0.1:9"}
        assert subprocess.run(command, env=proxied, timeout=60, check=False).returncode == status


def test_all_that_is_written_lies_in_the_volume_or_in_tmp() -> None:
    settings = dict(word.split("=", 1) for word in step("ENV").split())
    assert settings["HF_HOME"].startswith("/data/") and settings["STVIT_CACHE"].startswith("/data/")
    assert settings["MPLCONFIGDIR"].startswith("/tmp/") and settings["PYTHONDONTWRITEBYTECODE"] == "1"
    assert step("VOLUME") == "/data" and settings["GRADIO_SERVER_NAME"] == "0.0.0.0"


def test_an_image_has_what_a_space_has() -> None:
    sources = step("COPY").split()[:-1]
    assert sources == ["pre-requirements.txt", "requirements.txt"]
    assert all(f"-r {name}" in step("RUN") for name in sources)
    for name in (*sources, "app.py", "stvit", "demo", "weights", "assets"):
        assert (ROOT / name).exists() and not any(fnmatch(name, pattern) for pattern in IGNORED)
    for name in LEFT_OUT:
        assert name in ("Dockerfile", ".dockerignore") or any(
            pattern.startswith(name.rstrip("/")) for pattern in IGNORED
        )


def docker_server() -> bool:
    try:
        return subprocess.run(["docker", "info"], capture_output=True, timeout=20).returncode == 0
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return False


@pytest.mark.slow
def test_the_image_can_be_built() -> None:
    if not docker_server():
        pytest.skip("no docker server")
    done = subprocess.run(["docker", "build", "-q", ROOT], capture_output=True, text=True, timeout=550, check=False)
    assert done.returncode == 0, done.stderr
