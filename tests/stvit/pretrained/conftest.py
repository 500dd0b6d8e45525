from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.hub_server import HubServer
from weights import CheckpointRecord, Preprocessing


@pytest.fixture
def record() -> CheckpointRecord:
    return CheckpointRecord(
        name="toy",
        model="toy",
        repo="someone/toy",
        filename="toy.safetensors",
        licence="CC0",
        published={},
        preprocessing=Preprocessing(crop_pct=0.875),
    )


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A local Hub and an empty cache, put where the client keeps what HF_ENDPOINT and HF_HOME said at its import."""
    with HubServer() as server:
        monkeypatch.setattr(constants, "ENDPOINT", server.url)
        template = server.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
        monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        monkeypatch.setattr("time.sleep", lambda seconds: None)  # pauses between attempts
        yield server
