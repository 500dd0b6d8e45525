from __future__ import annotations

import dataclasses
import hashlib
import json
import pickle
import socket
from pathlib import Path

import pytest
from huggingface_hub import constants

from stvit.pretrained.hub import EXPLANATIONS, WeightsUnavailable
from stvit.pretrained.records import ModelRecord
from stvit.pretrained.resolve import entry_path, read_entry, resolve, within_reach
from tests.hub_server import Fault, HubServer

CONTENT = bytes(range(256)) * 1000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def published(hub: HubServer, record: ModelRecord) -> HubServer:
    hub.add_file(record.repo, record.filename, CONTENT)
    return hub


def files_in_cache() -> list[Path]:
    """Files with content: not the client's locks, refs and tags."""
    return [path for path in Path(constants.HF_HUB_CACHE).rglob("*") if path.is_file() and path.stat().st_size > 1000]


def test_a_download_reports_its_progress(published: HubServer, record: ModelRecord) -> None:
    seen: list[tuple[int, int | None]] = []
    weights = resolve(record, progress=lambda done, total: seen.append((done, total)))
    assert (weights.origin, weights.sha256) == ("Hub", SHA256)
    assert weights.path.read_bytes() == CONTENT
    assert seen[0] == (0, len(CONTENT))
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert seen == sorted(seen)


def test_the_first_download_is_recorded(hub: HubServer, record: ModelRecord) -> None:
    commit = hub.add_file(record.repo, record.filename, CONTENT)
    resolve(record)
    assert json.loads(entry_path(record).read_text()) == {"commit": commit, "size": len(CONTENT), "sha256": SHA256}


@pytest.mark.parametrize("offline", [False, True])
def test_a_cached_file_costs_no_request(published: HubServer, record: ModelRecord, offline: bool) -> None:
    resolve(record)
    published.requests.clear()
    weights = resolve(record, offline=offline)
    assert (weights.origin, weights.sha256, published.requests) == ("cache", SHA256, [])


def test_a_file_that_another_program_cached_is_adopted(published: HubServer, record: ModelRecord) -> None:
    resolve(record)
    recorded = read_entry(record)
    entry_path(record).unlink()
    assert resolve(record, offline=True).origin == "cache"
    assert read_entry(record) == recorded


def test_a_new_version_on_the_hub_changes_nothing(published: HubServer, record: ModelRecord) -> None:
    first = resolve(record)
    published.add_file(record.repo, record.filename, b"another version" * 100)
    assert resolve(record) == dataclasses.replace(first, origin="cache")
    first.path.resolve().unlink()
    assert resolve(record) == first


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
    published: HubServer,
    record: ModelRecord,
    fault: Fault,
    reason: str,
    message: str,
    next_step: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published.fault = fault
    with monkeypatch.context() as patch, pytest.raises(WeightsUnavailable, match=message) as caught:
        if reason == "time-out":
            patch.setattr(constants, "HF_HUB_ETAG_TIMEOUT", 0.3)
            patch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.3)
        resolve(record)
    assert caught.value.reason == reason
    assert next_step in caught.value.next_step
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert files_in_cache() == []
    assert read_entry(record) is None

    published.fault = None
    assert resolve(record).path.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("change", "reason", "message"),
    [
        ({"hf_hub_id": "someone/else"}, "repository not found", "There is no repository someone/else on http"),
        ({"hf_hub_filename": "other.pth"}, "file not found", "someone/toy on http.* has no file other.pth"),
        ({"hf_hub_id": "someone/toy@v2"}, "wrong revision", "someone/toy on http.* has no revision v2"),
    ],
)
def test_what_the_hub_does_not_have_is_named(
    published: HubServer, record: ModelRecord, change: dict[str, str], reason: str, message: str
) -> None:
    with pytest.raises(WeightsUnavailable, match=message) as caught:
        resolve(dataclasses.replace(record, **change))
    assert caught.value.reason == reason


def test_the_hub_is_asked_again_only_for_seconds(published: HubServer, record: ModelRecord) -> None:
    published.fault = "down"
    with pytest.raises(WeightsUnavailable):
        resolve(record)
    assert len(published.requests) == 3


def test_offline_without_cache(published: HubServer, record: ModelRecord) -> None:
    with pytest.raises(WeightsUnavailable, match="python -m weights pull toy") as caught:
        resolve(record, offline=True)
    assert (caught.value.reason, published.requests) == ("offline", [])


def test_the_clients_offline_switch_counts_too(
    published: HubServer, record: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(WeightsUnavailable, match="offline mode"):
        resolve(record)
    assert published.requests == []


def test_no_server_at_all(hub: HubServer, record: ModelRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        template = f"http://127.0.0.1:{unused.getsockname()[1]}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    with pytest.raises(WeightsUnavailable, match="cannot be reached") as caught:
        resolve(record)
    assert caught.value.reason == "unreachable"


def test_a_server_that_is_no_hub(hub: HubServer, record: ModelRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/mirror/{repo_id}/{revision}/{filename}")
    with pytest.raises(WeightsUnavailable, match="does not answer as a Hugging Face Hub does") as caught:
        resolve(record)
    assert caught.value.reason == "not a hub"


def test_a_cache_that_cannot_be_written(
    published: HubServer, record: ModelRecord, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with pytest.raises(WeightsUnavailable, match=r"cannot be written to the cache .*Not a directory") as caught:
        resolve(record)
    assert caught.value.reason == "disk"


def test_a_cached_file_that_changed_is_refused_and_replaced_as_the_message_says(
    published: HubServer, record: ModelRecord
) -> None:
    blob = resolve(record).path.resolve()
    blob.write_bytes(b"\x01" + CONTENT[1:])
    changed = hashlib.sha256(blob.read_bytes()).hexdigest()
    with pytest.raises(WeightsUnavailable, match=f"{blob} .*is {changed}, expected was {SHA256}") as caught:
        resolve(record)
    assert caught.value.next_step.startswith("Delete that file, then run `python -m weights pull toy`")
    blob.unlink()
    assert resolve(record).sha256 == SHA256


def test_the_hash_in_a_record_is_the_strongest(published: HubServer, record: ModelRecord) -> None:
    with pytest.raises(WeightsUnavailable, match=f"is {SHA256}, expected was {'0' * 64}"):
        resolve(dataclasses.replace(record, sha256="0" * 64))
    assert files_in_cache() == []


def test_a_record_with_a_commit_and_a_hash_needs_no_ledger(hub: HubServer, record: ModelRecord) -> None:
    commit = hub.add_file(record.repo, record.filename, CONTENT)
    hub.add_file(record.repo, record.filename, b"another version" * 100)
    pinned = dataclasses.replace(record, hf_hub_id=f"{record.repo}@{commit}", sha256=SHA256)
    assert resolve(pinned).path.read_bytes() == CONTENT
    assert not entry_path(pinned).exists()
    entry_path(pinned).parent.mkdir(parents=True, exist_ok=True)
    entry_path(pinned).write_text("not read")
    assert resolve(pinned, offline=True).origin == "cache"


def test_a_revision_that_was_withdrawn_after_the_first_download_names_the_ledger(
    published: HubServer, record: ModelRecord
) -> None:
    resolve(record).path.resolve().unlink()
    published.forget(record.repo)
    published.add_file(record.repo, record.filename, b"another version" * 100)
    with pytest.raises(WeightsUnavailable, match="no longer the revision") as caught:
        resolve(record)
    assert str(entry_path(record)) in caught.value.next_step


def test_a_record_without_a_repository_has_no_weights(hub: HubServer) -> None:
    with pytest.raises(WeightsUnavailable, match="No weights of toy were published") as caught:
        resolve(ModelRecord(architecture="toy"))
    assert (caught.value.reason, hub.requests) == ("unpublished", [])


def test_an_unreadable_ledger_entry_is_named(published: HubServer, record: ModelRecord) -> None:
    resolve(record)
    entry_path(record).write_text("{}")
    with pytest.raises(WeightsUnavailable, match=f"{entry_path(record)}.* is unreadable"):
        resolve(record)


def test_an_exception_in_progress_ends_the_download(published: HubServer, record: ModelRecord) -> None:
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
    published: HubServer, record: ModelRecord
) -> None:
    assert within_reach(record, 20.0)
    assert files_in_cache() == []
    published.fault = "down"
    assert not within_reach(record, 20.0)
    published.fault = None
    resolve(record)
    published.fault = "down"
    before = len(published.requests)
    assert within_reach(record, 20.0) and len(published.requests) == before


@pytest.mark.parametrize("fault", ["silent", "unauthorised", "gated", "rate limit"])
def test_a_file_that_the_hub_does_not_give_at_once_is_out_of_reach(
    published: HubServer, record: ModelRecord, fault: str
) -> None:
    published.fault = fault
    assert not within_reach(record, 0.3)


def test_a_file_that_the_hub_does_not_have_is_out_of_reach(published: HubServer, record: ModelRecord) -> None:
    assert not within_reach(dataclasses.replace(record, hf_hub_filename="other.safetensors"), 20.0)


def test_offline_and_without_any_hub_a_file_is_out_of_reach(
    published: HubServer, record: ModelRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = len(published.requests)
    assert not within_reach(record, 20.0) and len(published.requests) == before
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    assert not within_reach(record, 20.0)
