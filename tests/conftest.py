"""What all tests need."""

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import constants

from stvit.predict.engines import engine
from tests.hub_server import HubServer
from tests.stvit.predict.engines.direct import Direct


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """Narrow models gain nothing from threads, and where other work runs beside them, threads wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True, scope="session")
def no_other_machine() -> Iterator[None]:
    """Names of other machines are unknown at once: how long a resolver takes to say so differs between networks."""
    resolve = socket.getaddrinfo

    def resolve_own(host: Any, *arguments: Any, **options: Any) -> Any:
        if host not in (None, "", "localhost", "127.0.0.1", "::1", "0.0.0.0", b"127.0.0.1", b"localhost"):
            raise socket.gaierror(socket.EAI_NONAME, f"tests reach no other machine, {host!r} neither")
        return resolve(host, *arguments, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", resolve_own)
        yield


@pytest.fixture(autouse=True, scope="session")
def own_uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What the page keeps of visitors lies in a folder of these tests, where nothing else puts anything."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("uploads")))
        yield


@pytest.fixture(autouse=True, scope="session")
def own_graphs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Graphs are kept for these tests alone, and ``auto`` makes none unless a test offers it an engine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STVIT_CACHE", str(tmp_path_factory.mktemp("graphs")))
        patch.setattr(engine, "CANDIDATES", {})
        yield


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """``--engine openvino`` without making graphs."""
    monkeypatch.setitem(engine.BACKENDS, "openvino", Direct)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local Hub and an empty cache, put where the client keeps what HF_ENDPOINT and HF_HOME said at its import."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 20.0)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 20.0)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # pauses between attempts
        yield server
