from __future__ import annotations

import dataclasses
import hashlib
import importlib
import json
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants
from stvit.pretrained.errors import EXPLANATIONS
from stvit.pretrained.ledger import entry_path, read_entry

from stvit.pretrained.resolve import resolve
from tests.hub_server import Fault, HubServer
from weights import CheckpointRecord, WeightsUnavailable, within_reach

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def published(hub: HubServer, record: CheckpointRecord) -> HubServer:
    hub.add_file(record.repo, record.filename, CONTENT)
    return hub


def files_in_cache() -> list[Path]:
    """Files with content: not the client's locks, refs and tags."""
    return [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_a_download_reports_its_progress(published: HubServer, record: CheckpointRecord) -> None:
    seen: list[tuple[int, int | None]] = []
    weights = resolve(record, progress=lambda done, total: seen.append((done, total)))
    assert (weights.origin, weights.sha256) == ("Hub", SHA256)
    assert weights.path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_the_first_download_is_recorded(hub: HubServer, record: CheckpointRecord) -> None:
    commit = hub.add_file(record.repo, record.filename, CONTENT)
    resolve(record)
    assert json.loads(entry_path(record).read_text()) == {"commit": commit, "size": len(CONTENT), "sha256": SHA256}


@pytest.mark.parametrize("offline", [False, True])
def test_a_cached_file_costs_no_request(published: HubServer, record: CheckpointRecord, offline: bool) -> None:
    resolve(record)
    published.requests.clear()
    weights = resolve(record, offline=offline)
    assert (weights.origin, weights.sha256, published.requests) == ("cache", SHA256, [])


def test_a_file_that_another_program_cached_is_adopted(published: HubServer, record: CheckpointRecord) -> None:
    resolve(record)
    recorded = read_entry(record)
    entry_path(record).unlink()
    assert resolve(record, offline=True).origin == "cache"
    assert read_entry(record) == recorded


def test_a_new_version_on_the_hub_changes_nothing(published: HubServer, record: CheckpointRecord) -> None:
    first = resolve(record)
    published.add_file(record.repo, record.filename, b"another version" * 100)
    assert resolve(record) == dataclasses.replace(first, origin="cache")
    first.path.resolve().unlink()
    assert resolve(record) == first


def test_an_explicit_path_wins_over_the_cache(published: HubServer, record: CheckpointRecord, tmp_path: Path) -> None:
    resolve(record)
    own = tmp_path / "own.pth"
    own.write_bytes(b"mine")
    weights = resolve(record, explicit_path=own)
    assert (weights.path, weights.origin) == (own, "explicit path")


def test_a_wrong_explicit_path_is_not_replaced_by_something_else(
    published: HubServer, record: CheckpointRecord, tmp_path: Path
) -> None:
    with pytest.raises(WeightsUnavailable, match=r"nowhere\.pth cannot be opened .No such file") as caught:
        resolve(record, explicit_path=tmp_path / "nowhere.pth")
    assert caught.value.reason == "explicit path"
    assert published.requests == []


FAULTS: list[tuple[Fault, str, str, str]] = [
    ("unauthorised", "unauthorised", "refused access to someone/toy .status 401", "hf auth login"),
    ("gated", "gated", "is gated", "Ask for access on https://huggingface.co/someone/toy"),
    ("rate limit", "rate limit", "no more requests for now .status 429, to be asked again after 120 s", "Wait"),
    ("down", "hub down", "out of order .status 503", "Try again in a minute"),
    ("silent", "time-out", "did not answer in time", "Check your connection"),
    ("stalled", "time-out", "did not answer in time", "Check your connection"),
    ("truncated", "truncated", "broke off", "Try again in a minute"),
    ("short", "truncated", "broke off .*256000", "Try again in a minute"),
    ("flipped", "damaged download", f"came damaged: its sha256 is [0-9a-f]{{64}}, expected was {SHA256}", "Try again"),
]


@pytest.mark.parametrize(("fault", "reason", "message", "next_step"), FAULTS)
def test_each_fault_has_its_own_message_and_leaves_no_file(
    published: HubServer, record: CheckpointRecord, fault: Fault, reason: str, message: str, next_step: str
) -> None:
    published.fault = fault
    with pytest.raises(WeightsUnavailable, match=message) as caught:
        resolve(record)
    assert caught.value.reason == reason
    assert next_step in caught.value.next_step
    assert files_in_cache() == []
    assert read_entry(record) is None

    published.fault = None
    assert resolve(record).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"repo": "someone/else"}, "repository not found", "There is no repository someone/else on http"),
        ({"filename": "other.pth"}, "file not found", "someone/toy on http.* has no file other.pth"),
        ({"revision": "v2"}, "wrong revision", "someone/toy on http.* has no revision v2"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    published: HubServer, record: CheckpointRecord, change: dict[str, str], reason: str, message: str
) -> None:
    with pytest.raises(WeightsUnavailable, match=message) as caught:
        resolve(dataclasses.replace(record, **change))
    assert caught.value.reason == reason


def test_the_hub_is_asked_again_only_for_seconds(published: HubServer, record: CheckpointRecord) -> None:
    published.fault = "down"
    with pytest.raises(WeightsUnavailable):
        resolve(record)
    assert len(published.requests) == 3


def test_offline_without_cache(published: HubServer, record: CheckpointRecord) -> None:
    with pytest.raises(WeightsUnavailable, match="python -m weights pull toy") as caught:
        resolve(record, offline=True)
    assert (caught.value.reason, published.requests) == ("offline", [])


def test_the_clients_offline_switch_counts_too(
    published: HubServer, record: CheckpointRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="offline mode"):
        resolve(record)
    assert published.requests == []


def test_no_server_at_all(hub: HubServer, record: CheckpointRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        template = f"http://127.0.0.1:{unused.getsockname()[1]}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(WeightsUnavailable, match="cannot be reached") as caught:
        resolve(record)
    assert caught.value.reason == "unreachable"


def test_a_server_that_is_no_hub(hub: HubServer, record: CheckpointRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/mirror/{repo_id}/{revision}/{filename}")
    with pytest.raises(WeightsUnavailable, match="does not answer as a Hugging Face Hub does") as caught:
        resolve(record)
    assert caught.value.reason == "not a hub"


def test_a_cache_that_cannot_be_written(
    published: HubServer, record: CheckpointRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(WeightsUnavailable, match=r"cannot be written to the cache .*Not a directory") as caught:
        resolve(record)
    assert caught.value.reason == "disk"


def test_a_cached_file_that_changed_is_refused_and_replaced_as_the_message_says(
    published: HubServer, record: CheckpointRecord
) -> None:
    blob = resolve(record).path.resolve()
    blob.write_bytes(b"\x01" + CONTENT[1:])
    changed = hashlib.sha256(blob.read_bytes()).hexdigest()
    with pytest.raises(WeightsUnavailable, match=f"{blob} .*is {changed}, expected was {SHA256}") as caught:
        resolve(record)
    assert caught.value.next_step.startswith("Delete that file, then run `python -m weights pull toy`")
    blob.unlink()
    assert resolve(record).sha256 == SHA256


def test_the_hash_in_a_record_is_the_strongest(published: HubServer, record: CheckpointRecord) -> None:
    with pytest.raises(WeightsUnavailable, match=f"is {SHA256}, expected was {'0' * 64}"):
        resolve(dataclasses.replace(record, sha256="0" * 64))
    assert files_in_cache() == []


def test_an_unreadable_ledger_entry_is_named(published: HubServer, record: CheckpointRecord) -> None:
    resolve(record)
    entry_path(record).write_text("{}")
    with pytest.raises(WeightsUnavailable, match=f"{entry_path(record)}.* is unreadable"):
        resolve(record)


def test_the_bundled_copy_is_the_last_resort(
    published: HubServer, record: CheckpointRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.import_module("stvit.pretrained.resolve"), "BUNDLED", tmp_path)
    (tmp_path / "toy.safetensors").write_bytes(b"bundled")
    published.fault = "down"
    weights = resolve(record)
    assert (weights.path, weights.origin) == (tmp_path / "toy.safetensors", "bundled")
    published.fault = None
    assert resolve(record).origin == "Hub"


def test_an_exception_in_progress_ends_the_download(published: HubServer, record: CheckpointRecord) -> None:
    def cancel(done_bytes: int, total_bytes: int | None) -> None:
        if done_bytes:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resolve(record, progress=cancel)
    assert files_in_cache() == []


def test_no_two_reasons_share_a_message() -> None:
    messages = [message for message, _ in EXPLANATIONS.values()]
    assert len(set(messages)) == len(messages)
    assert all(next_step for _, next_step in EXPLANATIONS.values())


def test_a_file_is_within_reach_while_the_hub_has_it_and_from_then_on_without_the_hub(
    published: HubServer, record: CheckpointRecord
) -> None:
    assert within_reach(record, 1.0)
    assert files_in_cache() == []
    published.fault = "down"
    assert not within_reach(record, 1.0)
    published.fault = None
    resolve(record)
    published.fault = "down"
    before = len(published.requests)
    assert within_reach(record, 1.0) and len(published.requests) == before


@pytest.mark.parametrize("fault", ["silent", "unauthorised", "gated", "rate limit"])
def test_a_file_that_the_hub_does_not_give_at_once_is_out_of_reach(
    published: HubServer, record: CheckpointRecord, fault: str
) -> None:
    published.fault = fault
    assert not within_reach(record, 0.3)


def test_a_file_that_the_hub_does_not_have_is_out_of_reach(published: HubServer, record: CheckpointRecord) -> None:
    assert not within_reach(dataclasses.replace(record, filename="other.safetensors"), 1.0)


def test_offline_and_without_any_hub_a_file_is_out_of_reach(
    published: HubServer, record: CheckpointRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(published.requests)
    assert not within_reach(record, 1.0) and len(published.requests) == before
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert not within_reach(record, 1.0)
