from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from stvit.pretrained.records import ModelRecord
from tests.hub_server import HubServer


@pytest.fixture
def record() -> ModelRecord:
    return ModelRecord(architecture="toy", hf_hub_id="someone/toy", hf_hub_filename="toy.safetensors", license="CC0")


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
